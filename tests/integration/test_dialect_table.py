"""Router + provider: docs/dialects.md, a table of what works in which dialect. Each cell is run through the gateway
against the simulator; `XROUTER_WRITE_DOCS=1` writes the file anew."""

import json
import os
from pathlib import Path

import pytest

from harness import wait_until
from test_dialects import DIALECTS, WEATHER, ask, content_of, path_of, speak, stream

DOCS = Path(__file__).resolve().parents[2] / "docs" / "dialects.md"
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
CITY = {"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
    "additionalProperties": False}}}  # fmt: skip
CALL = "Please call get_weather for me."
CLASSES = {  # what the simulator plays: what it is, what the client gets
    "status:400": ("HTTP 400", 400, "invalid_request"),
    "status:401": ("HTTP 401", 502, "upstream_auth_failed"),
    "status:403": ("HTTP 403", 502, "upstream_auth_failed"),
    "status:404": ("HTTP 404", 404, "model_not_found"),
    "status:429": ("HTTP 429", 429, "provider_busy"),
    "status:500": ("HTTP 500", 502, "upstream_failed"),
    "status:503": ("HTTP 503", 502, "upstream_failed"),
    "malformed": ("a body that is no JSON", 502, "upstream_failed"),
    "reset:0": ("a reset connection", 502, "upstream_failed"),
}


def told(answer):
    """What a refusal is, for a cell."""
    return f"{answer.status} `{answer.error['code']}`"


def plain(gateway, sim, dialect):
    answer = ask(gateway, "Hello [[words:12]]")
    assert answer.status == 200 and len(answer.json["choices"][0]["message"]["content"].split()) == 12
    return "yes"


def streamed(gateway, sim, dialect):
    chunks = stream(gateway, "Hello [[words:12]]", stream_options={"include_usage": True})
    assert len(content_of(chunks).split()) == 12 and chunks[-1]["usage"]["completion_tokens"] > 0
    return "yes"


def call_of(gateway):
    (choice,) = ask(gateway, CALL, tools=[WEATHER]).json["choices"]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert isinstance(json.loads(call["function"]["arguments"])["city"], str)
    return call


def tools(gateway, sim, dialect):
    assert call_of(gateway)["function"]["name"] == "get_weather"
    return "yes"


def tool_loop(gateway, sim, dialect):
    call = call_of(gateway)
    history = [
        {"role": "user", "content": CALL},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": json.dumps({"degrees": 7})},
    ]
    assert "7" in content_of(stream(gateway, history, tools=[WEATHER]))
    return "yes"


def images(gateway, sim, dialect):
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    answer = ask(gateway, [{"role": "user", "content": parts}])
    if answer.status == 200:
        assert answer.json["choices"][0]["message"]["content"]
        return "yes"
    assert answer.error["param"].startswith("messages")
    return told(answer)


def json_schema(gateway, sim, dialect):
    answer = ask(gateway, "A city, please.", response_format=CITY)
    assert isinstance(json.loads(answer.json["choices"][0]["message"]["content"])["city"], str), answer.body
    return "yes"


def error_classes(gateway, sim, dialect):
    for scenario, (_, *expected) in CLASSES.items():
        sim.reset()
        sim.script({"scenario": scenario, "times": -1, **path_of(dialect)})
        answer = ask(gateway, f"Hello {scenario}", model="GigaChat-2")
        assert [answer.status, answer.error["code"]] == expected, (scenario, answer.body)
    sim.reset()
    return f"all {len(CLASSES)}"


def abort(gateway, sim, dialect):
    answer = gateway.stream("Hello [[words:500]] [[chunk_ms:5]]")
    events = answer.events()
    for _ in range(5):
        next(events)
    answer.close()
    wait_until(lambda: sim.log() and sim.log()[-1]["end"] == "aborted", 5, "the provider's connection to be closed")
    return "yes"


CELLS = {
    "plain": plain,
    "stream": streamed,
    "tools": tools,
    "tool loop": tool_loop,
    "images": images,
    "json_schema": json_schema,
    "abort": abort,
    "error classes": error_classes
}

HEAD = """# Dialects: what works with which provider

Written by a test (tests/integration/test_dialect_table.py) that runs each cell through the gateway against llm-sim in
that dialect; it fails when a cell changes. The ten flavors of `openai` differ in single fields
(providers/openai_flavor.c).

"""
TAIL = """
- **plain, stream, tools, tool loop**: text, usage and calls arrive as OpenAI's clients expect them.
- **images**: an inline PNG beside a text. At GigaChat it is uploaded before the request, and
  removed after it.
- **json_schema**: `response_format` with a strict schema; the content is JSON by it.
- **abort**: the client leaves in the middle of a stream, and the provider's connection is closed.
- **error classes**: what the provider does, and what the client gets:

"""


def table_row(feature, cells):
    return "| " + " | ".join([feature, *cells]) + " |\n"


def read_column(dialect):
    """The dialect's cells in the file, by feature."""
    cells = {}
    for line in DOCS.read_text().splitlines() if DOCS.exists() else []:
        parts = [part.strip() for part in line.strip("|").split(" | ")]
        if len(parts) == len(DIALECTS) + 1 and parts[0] in CELLS:
            cells[parts[0]] = parts[1 + DIALECTS.index(dialect)]
    return cells


def write(dialect, column):
    columns = {name: read_column(name) for name in DIALECTS}
    columns[dialect] = column
    text = HEAD + table_row("feature", DIALECTS) + "| --- " * (len(columns) + 1) + "|\n"
    for feature in CELLS:
        text += table_row(feature, [columns[name].get(feature, "?") for name in DIALECTS])
    text += TAIL + "  | provider | client |\n  | --- | --- |\n"
    for name, status, code in CLASSES.values():
        text += f"  | {name} | {status} `{code}` |\n"
    DOCS.write_text(text)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_each_cell_is_what_the_table_says(make_gateway, sim, dialect):
    # Each class of errors is to be seen, not what a breaker or a repeat makes of many.
    patient = {"breaker": {"failures": 1000, "requests": 1000}, "retry": {"attempts": 1}}
    gateway = speak(make_gateway(options=patient, start=False), dialect)
    column = {feature: cell(gateway, sim, dialect) for feature, cell in CELLS.items()}
    if os.environ.get("XROUTER_WRITE_DOCS"):
        write(dialect, column)
    assert read_column(dialect) == column


def test_the_table_has_no_empty_cell():
    for name in DIALECTS:
        cells = read_column(name)
        assert list(cells) == list(CELLS) and all(cells.values()) and "?" not in cells.values()
