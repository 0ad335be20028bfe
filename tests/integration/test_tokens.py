"""POST /v1/tokens/count and `xrouterctl tokens`: what they count, what they refuse, whom they delay."""

import json
import os
import subprocess
import threading
import time

import pytest

from harness import BUILD, SLOW, wait_until

# text: tokens in o200k_base, in cl100k_base, by the original, tiktoken.
KNOWN = {
    "": (0, 0),
    "Hello, world!": (4, 4),
    "Привет, мир! Сколько это токенов?": (12, 16),
    "def f(x):\n    return x ** 2\n": (11, 11),
    "数一数这句话有多少个词元。": (11, 15),
    "👩‍👩‍👧‍👦 🇷🇺 naïve café": (18, 27),
    "<|endoftext|>": (7, 7),
    "x" * 5000: (625, 625),
    "  \n\n\t  ": (2, 2),
    "ё" * 5000: (5000, 5000),
}
# The examples of OpenAI's cookbook, "How to count tokens with tiktoken".
JARGON = [
    ("", "You are a helpful, pattern-following assistant that translates corporate jargon into plain English."),
    ("example_user", "New synergies will help drive top-line growth."),
    ("example_assistant", "Things working well together will increase revenue."),
    (
        "example_user",
        "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
    ),
    ("example_assistant", "Let's talk later when we're less busy about how to do better."),
]
COOKBOOK = [dict({"role": "system", "content": text}, **({"name": name} if name else {})) for name, text in JARGON] + [
    {
        "role": "user",
        "content": "This late pivot means we don't have time to boil the ocean for the client deliverable.",
    }
]
WEATHER = [
    {"role": "system", "content": "You are a helpful assistant that can answer to questions about the weather."},
    {"role": "user", "content": "What's the weather like in San Francisco?"},
]
WEATHER_FUNCTION = {
    "name": "get_current_weather",
    "description": "Get the current weather in a given location",
    "parameters": {
        "type": "object",
        "properties": {
            "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
            "unit": {"type": "string", "description": "The unit of temperature to return",
                     "enum": ["celsius", "fahrenheit"]},
        },
        "required": ["location"],
    },
}  # fmt: skip
ENCODINGS = ("o200k_base", "cl100k_base")


@pytest.fixture
def gateway(make_gateway):
    """GigaChat-2 counts by chars3; exact/... by a vocabulary, learned by what its provider reports."""
    return start(make_gateway)


def start(make_gateway, **arguments):
    gateway = make_gateway(start=False, **arguments)
    candidate = {"provider": "gigachat", "model": "GigaChat-2"}
    for name in ENCODINGS:
        gateway.config["models"].append({"id": f"exact/{name}", "aliases": [name], "tokenizer": name,
                                         "context_tokens": 100_000_000, "candidates": [candidate]})  # fmt: skip
    gateway.config["models"].append({"id": "learned", "tokenizer": "calibrated", "candidates": [candidate]})
    gateway.write_config()
    return gateway.start()


def count(gateway, model, key=True, **body):
    return gateway.request("POST", "/v1/tokens/count", dict({"model": model}, **body), key)


def counted(gateway, model, **body):
    answer = count(gateway, model, **body)
    assert answer.status == 200, answer.body
    return answer.json


def run(*args, text="", **options):
    if isinstance(text, str):
        text = text.encode()
    return subprocess.run(
        [BUILD / "xrouterctl", *map(str, args)], input=text, capture_output=True, timeout=60 * SLOW, **options
    )


def refused(result, status):
    """One line on stderr and nothing on stdout; returns the line."""
    assert result.returncode == status and result.stdout == b"", result
    line = result.stderr.decode()
    assert line.startswith("xrouterctl: ") and line.count("\n") == 1
    return line


# --- the endpoint: what it counts


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_texts_count_as_the_original_counts_them(gateway, encoding):
    column = ENCODINGS.index(encoding)
    for text, numbers in KNOWN.items():
        assert counted(gateway, encoding, input=text) == {
            "object": "tokens", "model": encoding, "tokens": numbers[column], "characters": len(text),
            "method": "exact"}, text[:40]  # fmt: skip
    # Each text alone: none grows together with the next.
    whole = counted(gateway, f"exact/{encoding}", input=list(KNOWN))
    assert whole["model"] == f"exact/{encoding}"
    assert whole["tokens"] == sum(numbers[column] for numbers in KNOWN.values())
    assert whole["characters"] == sum(map(len, KNOWN))


def test_messages_and_tools_count_by_the_published_formulas(gateway):
    characters = sum(len(message["content"]) for message in COOKBOOK)
    for model, tokens in (("o200k_base", 124), ("cl100k_base", 129)):
        answer = counted(gateway, model, messages=COOKBOOK, temperature=0, unknown={"a": 1})
        assert (answer["tokens"], answer["characters"], answer["method"]) == (tokens, characters, "exact")
    tools = [{"type": "function", "function": WEATHER_FUNCTION}]
    for model, tokens in (("o200k_base", 101), ("cl100k_base", 105)):
        assert counted(gateway, model, messages=WEATHER, tools=tools)["tokens"] == tokens
        assert counted(gateway, model, messages=WEATHER, functions=[WEATHER_FUNCTION])["tokens"] == tokens
        assert counted(gateway, model, messages=WEATHER)["tokens"] < tokens


def test_what_the_formulas_do_not_know_is_not_called_exact(gateway):
    part = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    answer = counted(gateway, "o200k_base", messages=[{"role": "user", "content": [part]}])
    assert answer["method"] == "calibrated" and answer["tokens"] > 85


def test_chars3_is_what_the_provider_reports(gateway):
    messages = [
        {"role": "system", "content": "Ты отвечаешь коротко."},
        {"role": "user", "content": "Привет! 👋 naïve 数"},
        {"role": "assistant", "content": "ok"},
        {"role": "user", "content": [{"type": "text", "text": "one, "}, {"type": "text", "text": "two"}]},
    ]
    for some in (messages[:2], messages):
        body = {"model": "GigaChat-2", "messages": some}
        chat = gateway.request("POST", "/v1/chat/completions", body)
        assert chat.status == 200
        answer = counted(gateway, "GigaChat-2", messages=some)
        assert answer["tokens"] == chat.json["usage"]["prompt_tokens"]
        assert answer["model"] == chat.json["model"] == "GigaChat-2" and answer["method"] == "exact"
    assert counted(gateway, "GigaChat-2", input="Привет")["tokens"] == 2


def test_calibrated_model_counts_by_what_it_has_learned(gateway):
    text = "Сколько будет токенов в этом сообщении, никто заранее не знает. " * 20
    messages = [{"role": "user", "content": text}]
    before = counted(gateway, "learned", messages=messages)
    assert before["method"] == "calibrated"
    # Nothing is known yet: as the nearest vocabulary has it.
    assert before["tokens"] == counted(gateway, "o200k_base", messages=messages)["tokens"]
    plain = run("tokens", "--encoding", "o200k_base", "-", text=text)
    ignorant = run("-c", gateway.file, "tokens", "--model", "learned", "-", text=text)
    assert ignorant.returncode == 0 and ignorant.stdout == plain.stdout
    assert b"learned nothing yet" in ignorant.stderr and ignorant.stderr.count(b"\n") == 1

    chat = gateway.request("POST", "/v1/chat/completions", {"model": "learned", "messages": messages})
    reported = chat.json["usage"]["prompt_tokens"]
    after = counted(gateway, "learned", messages=messages)
    assert after["method"] == "calibrated" and abs(after["tokens"] - reported) <= 1 < abs(before["tokens"] - reported)

    told = run("-c", gateway.file, "tokens", "--model", "learned", "-", text=text)
    assert told.returncode == 0 and told.stderr == b""
    assert int(told.stdout) == counted(gateway, "learned", input=text)["tokens"] != int(plain.stdout)
    gateway.stop()
    alone = run("-c", gateway.file, "tokens", "--model", "learned", "-", text=text)
    assert alone.returncode == 0 and alone.stdout == plain.stdout
    assert b"not running" in alone.stderr and alone.stderr.count(b"\n") == 1


def test_counting_costs_nothing_and_leaves_no_row(gateway):
    key = gateway.make_key("poor", "--credits", "0")
    before = gateway.counter("requests_total")
    assert count(gateway, "o200k_base", key, input="Hello, world!").status == 200
    assert gateway.chat("Hello", key=key).status == 402
    assert counted(gateway, "o200k_base", messages=WEATHER)["tokens"] > 0
    assert gateway.counter("requests_total") == before + 3
    assert gateway.counter("events_queued_total") == 0
    assert gateway.usage(by="model")["total"]["requests"] == 0
    lines = wait_until(lambda: [line for line in gateway.access_log() if line["path"] == "/v1/tokens/count"][1:],
                       what="the log")  # fmt: skip
    assert lines[0]["model"] == "exact/o200k_base" and lines[0]["tokens"] > 0 and lines[0]["status"] == 200
    assert gateway.stop() == 0
    assert gateway.rows() == []


# --- the endpoint: what it refuses


@pytest.mark.parametrize(
    "body, param, words",
    [
        ({"input": "a"}, "model", "'model': expected a string"),
        ({"model": 7, "input": "a"}, "model", "'model': expected a string"),
        ({"model": "o200k_base"}, "messages", "or 'input' in its place"),
        ({"model": "o200k_base", "messages": None, "input": None}, "messages", "or 'input' in its place"),
        ({"model": "o200k_base", "messages": WEATHER, "input": "a"}, "messages", "nothing next to 'input'"),
        ({"model": "o200k_base", "messages": []}, "messages", "'messages': expected a non-empty array"),
        ({"model": "o200k_base", "messages": [{"role": "wizard", "content": "a"}]}, "messages[0].role", "wizard"),
        ({"model": "o200k_base", "messages": WEATHER, "tools": [{"type": "x"}]}, "tools[0].type", "function"),
        ({"model": "o200k_base", "input": []}, "input", "found an empty array"),
        ({"model": "o200k_base", "input": 3}, "input", "found the number 3"),
        ({"model": "o200k_base", "input": ["a", ["b"]]}, "input[1]", "expected a string, found an array"),
        ([], None, "must be a JSON object"),
        ("{", None, "not valid JSON"),
        (b'{"model":"o200k_base","input":"\xff"}', None, "not valid JSON"),
        ('{"model":"o200k_base","input":"\\u0000"}', None, "not valid JSON"),
        ("", None, "not valid JSON"),
    ],
)
def test_wrong_requests_are_told_what_is_wrong(gateway, body, param, words):
    answer = gateway.request("POST", "/v1/tokens/count", body)
    assert answer.status == 400, answer.body
    assert answer.error["code"] == "invalid_request" and answer.error["type"] == "invalid_request_error"
    assert answer.error["param"] == param and words in answer.error["message"]


def test_model_key_and_method_are_checked_as_for_a_chat(gateway):
    for body in ({"input": "a"}, {"messages": WEATHER}):
        unknown = count(gateway, "gpt-9", **body)
        assert (unknown.status, unknown.error["code"], unknown.error["param"]) == (404, "model_not_found", "model")
        assert unknown.error == gateway.chat("a", model="gpt-9").error
        for key in (False, "sk-xr-" + "A" * 43):
            stranger = count(gateway, "o200k_base", key, **body)
            assert (stranger.status, stranger.error["code"]) == (401, "invalid_api_key")
        key = gateway.make_key(f"one {len(body)} {list(body)[0]}", "--models", "GigaChat-2-Pro")
        denied = count(gateway, "o200k_base", key, **body)
        assert (denied.status, denied.error["code"]) == (403, "model_not_allowed")
        assert count(gateway, "GigaChat-2-Pro", key, **body).status == 200
    assert gateway.request("GET", "/v1/tokens/count").status == 405
    body = {"model": "o200k_base", "input": "a"}
    assert gateway.request("POST", "/v1/tokens/count", body, listener="ops").status == 404


# --- long texts


def prose(size):
    words = "the model reads every message before it answers, модель читает каждое сообщение; "
    return (words * (size // len(words.encode()) + 1)).encode()[:size].decode(errors="ignore")


def test_long_text_delays_nobody_else(make_gateway):
    gateway = start(make_gateway, workers=1)
    bodies = [{"input": prose(1 << 20)}, {"messages": [{"role": "user", "content": prose(1 << 20)}]}]
    numbers = [counted(gateway, "o200k_base", **body)["tokens"] for body in bodies]
    wrong = []
    stopped = threading.Event()

    def client(body, tokens):
        while not stopped.is_set():
            answer = count(gateway, "o200k_base", **body)
            if answer.status != 200 or answer.json["tokens"] != tokens:
                wrong.append(answer.body)

    before = took_ms(gateway, 40)
    threads = [threading.Thread(target=client, args=pair) for pair in zip(bodies, numbers)]
    for thread in threads:
        thread.start()
    during = took_ms(gateway, 40)
    stopped.set()
    for thread in threads:
        thread.join(60 * SLOW)
    assert wrong == []
    # Two megabytes are counted again and again on the same core: one slice at a time is waited for.
    assert during[20] < before[20] + 40 * SLOW, f"{before} {during}"
    print(f"median {before[20]:.1f} ms alone, {during[20]:.1f} beside two texts of 1 MB; worst {during[-1]:.1f}")


def took_ms(gateway, times):
    took = []
    for _ in range(times):
        begun = time.monotonic()
        assert counted(gateway, "o200k_base", input="Hello, world!")["tokens"] == 4
        took.append(1000 * (time.monotonic() - begun))
    return sorted(took)


def cpu_s(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_client_that_leaves_ends_its_count(make_gateway):
    gateway = start(make_gateway, workers=1)
    pid = gateway.pid("worker")
    text = "q" * 15_000_000  # the longest kind to count: one word
    connection = gateway.connect()
    gateway.send(connection, "POST", "/v1/tokens/count", {"model": "o200k_base", "input": text})
    read = cpu_s(pid)
    wait_until(lambda: cpu_s(pid) > read + 0.1, what="a count that runs")
    connection.close()
    (line,) = wait_until(gateway.access_log, what="the end of the request")
    assert line["status"] == 0 and not line["delivered"] and "tokens" not in line
    assert line["model"] == "exact/o200k_base"
    wait_until(lambda: gateway.counter("clients_gone_total") == 1, what="the counter")
    # Nobody counts on, and everybody else is served.
    assert took_ms(gateway, 20)[10] < 40 * SLOW
    spent = cpu_s(pid)
    time.sleep(0.3)
    assert cpu_s(pid) - spent < 0.1


def test_count_that_runs_ends_with_its_answer_when_the_gateway_drains(make_gateway):
    gateway = start(make_gateway, workers=1)
    connection = gateway.connect()
    pid = gateway.pid("worker")
    gateway.send(connection, "POST", "/v1/tokens/count", {"model": "o200k_base", "input": "q" * 6_000_000})
    read = cpu_s(pid)
    wait_until(lambda: cpu_s(pid) > read + 0.05, what="a count that runs")
    gateway.ctl("drain")
    response = connection.getresponse()
    assert response.status == 200 and json.loads(response.read())["tokens"] > 1_000_000
    assert gateway.process.wait(20 * SLOW) == 0
    assert gateway.stop() == 0


# --- xrouterctl tokens


def test_verb_counts_as_the_original_without_server_and_configuration(directory):
    env = {"PATH": os.environ["PATH"]}
    file = directory / "text.txt"
    for text, numbers in KNOWN.items():
        file.write_text(text, newline="")
        for encoding, tokens in zip(ENCODINGS, numbers):
            result = run("tokens", "--encoding", encoding, file, env=env, cwd=directory)
            assert (result.returncode, result.stdout, result.stderr) == (0, b"%d\n" % tokens, b""), text[:40]
        assert run("tokens", "-", text=text, env=env, cwd=directory).stdout == b"%d\n" % numbers[0]
    assert run("tokens", "-", text="a\0b", env=env, cwd=directory).stdout == b"3\n"
    shown = json.loads(run("tokens", f"--encoding={ENCODINGS[1]}", "--json", "-", text="Привет, мир!").stdout)
    assert shown.pop("tokens") > 0
    assert shown == {"encoding": "cl100k_base", "characters": 12, "method": "exact"}


def test_verb_counts_for_a_model_what_the_endpoint_counts(gateway):
    for text in KNOWN:
        for model in ("o200k_base", "exact/cl100k_base", "GigaChat-2"):
            answer = counted(gateway, model, input=text)
            result = run("-c", gateway.file, "tokens", "--model", model, "--json", "-", text=text)
            assert result.returncode == 0 and result.stderr == b""
            shown = json.loads(result.stdout)
            assert {name: shown[name] for name in ("tokens", "characters", "method")} == {
                name: answer[name] for name in ("tokens", "characters", "method")
            }
            assert shown["model"] in (model, f"exact/{model}", f"gigachat/{model}")


def test_verb_reads_pipes_of_any_length(directory):
    file = directory / "long.txt"
    text = prose(5 << 20)
    file.write_text(text)
    whole = run("tokens", file)
    assert whole.returncode == 0
    assert run("tokens", "-", text=text).stdout == whole.stdout
    pipe = f"cat {file} {file} | {BUILD}/xrouterctl tokens -"
    piped = subprocess.run(pipe, shell=True, capture_output=True, timeout=60 * SLOW)
    assert abs(int(piped.stdout) - 2 * int(whole.stdout)) <= 2


def test_verb_refuses_what_it_cannot_count(gateway, directory):
    file = directory / "bad.txt"
    file.write_bytes(b"caf\xe9")
    assert "bad.txt: not UTF-8 at byte 3" in refused(run("tokens", file), 1)
    # Not for a rule that only counts characters, either.
    assert "not UTF-8" in refused(run("-c", gateway.file, "tokens", "--model", "GigaChat-2", file), 1)
    assert "standard input: not UTF-8 at byte 0" in refused(run("tokens", "-", text=b"\xed\xa0\x80"), 1)
    assert "No such file" in refused(run("tokens", directory / "nowhere"), 1)
    assert "directory" in refused(run("tokens", directory), 1)
    with open(file, "wb") as f:
        f.truncate((1 << 30) + 1)
    assert "longer than 1073741824 bytes" in refused(run("tokens", file), 1)
    assert 'did you mean "learned"?' in refused(run("-c", gateway.file, "tokens", "--model", "leaned", "-"), 1)


def test_verb_used_wrongly_exits_2(gateway):
    assert "needs FILE" in refused(run("tokens"), 2)
    assert "one word too many" in refused(run("tokens", "a", "b"), 2)
    assert "neither o200k_base nor cl100k_base" in refused(run("tokens", "--encoding", "p50k_base", "-"), 2)
    both = run("-c", gateway.file, "tokens", "--model", "learned", "--encoding", "o200k_base", "-")
    assert "exclude each other" in refused(both, 2)
    assert "unknown option" in refused(run("tokens", "--since", "1d", "-"), 2)
    shown = run("tokens", "--help").stdout.decode()
    assert "o200k_base" in shown and "--model" in shown and "standard input" in shown
