"""POST /v1/completions: OpenAI's older endpoint, answered by the chat models of every dialect."""

import json

import pytest

import test_dialects

dialect, gateway = test_dialects.dialect, test_dialects.gateway


def ask(gateway, prompt, **fields):
    return gateway.request("POST", "/v1/completions", dict({"model": "GigaChat-2", "prompt": prompt}, **fields))


def test_a_prompt_is_completed_and_billed(gateway):
    answer = ask(gateway, "Say [[words:3]]", max_tokens=64)
    assert answer.status == 200, answer.body
    completion = answer.json
    assert completion["object"] == "text_completion" and completion["id"].startswith("cmpl-")
    assert completion["model"] == "GigaChat-2"
    [choice] = completion["choices"]
    assert set(choice) == {"text", "index", "logprobs", "finish_reason"}
    assert choice["text"] and choice["index"] == 0 and choice["finish_reason"] == "stop"
    usage = completion["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
    total = gateway.wait_usage(1)
    assert (total["tokens_input"], total["tokens_output"]) == (usage["prompt_tokens"], usage["completion_tokens"])


def test_a_stream_has_the_same_text(gateway):
    plain = ask(gateway, "[[words:12]]", max_tokens=64).json["choices"][0]["text"]
    answer = ask(gateway, ["[[words:12]]"], max_tokens=64, stream=True, stream_options={"include_usage": True})
    events = [line[6:] for line in answer.body.decode().splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert {c["object"] for c in chunks} == {"text_completion"}
    assert len({c["id"] for c in chunks}) == 1 and chunks[0]["id"].startswith("cmpl-")
    choices = [choice for c in chunks for choice in c["choices"]]
    assert "".join(choice["text"] for choice in choices) == plain
    assert [c["finish_reason"] for c in choices if c.get("finish_reason")] == ["stop"]
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] > 0


def test_sixteen_tokens_are_the_default(gateway):
    answer = ask(gateway, "[[words:200]]")
    assert answer.json["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    "field, value",
    [("echo", True), ("suffix", "x"), ("best_of", 2), ("logprobs", 1), ("prompt", [1, 2]), ("prompt", ["a", "b"])],
)
def test_what_no_chat_can_do_is_refused(make_gateway, field, value):
    gateway = make_gateway()
    answer = ask(gateway, **{"prompt": "x", field: value})
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "unsupported_parameter", field)
    assert "/v1/chat/completions" in answer.error["message"]


@pytest.mark.parametrize("body", [{}, {"prompt": 7}, {"prompt": []}, {"prompt": "x", "echo": "yes"}])
def test_bad_input_is_named(make_gateway, body):
    answer = make_gateway().request("POST", "/v1/completions", dict({"model": "GigaChat-2"}, **body))
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")
    assert answer.error["param"] in ("prompt", "echo")
