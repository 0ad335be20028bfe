"""A client's request reaches the provider, the answer streams back, its tokens are in the ledger."""

import json
import threading
import time

import pytest

from harness import wait_until


def test_plain_answer_has_openais_shape(gateway):
    answer = gateway.chat("Say something about rivers")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json
    assert body["object"] == "chat.completion"
    assert body["id"] == "chatcmpl-" + answer.headers["x-request-id"][4:]
    assert body["model"] == "GigaChat-2"
    choice = body["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"]
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_stream_gives_chunks_and_done(gateway):
    stream = gateway.stream("[[words:12]] and so on", stream_options={"include_usage": True})
    assert stream.status == 200
    assert stream.headers["content-type"] == "text/event-stream"
    events = list(stream.events())
    assert events[-1] == "[DONE]"
    chunks = [json.loads(e) for e in events[:-1]]
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"}
    assert len({c["id"] for c in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] > 0
    assert all(c["usage"] is None for c in chunks[:-1])
    finish = [c["choices"][0]["finish_reason"] for c in chunks[:-1]]
    assert finish[-1] == "stop" and set(finish[:-1]) == {None}


def test_stream_without_include_usage_has_no_usage(gateway):
    chunks = gateway.stream("Hello").chunks()
    assert all("usage" not in c or c["usage"] is None for c in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_https_serves_the_same(make_gateway):
    gateway = make_gateway(tls=True)
    assert gateway.chat("Hello", listener="https").json["choices"][0]["message"]["content"]
    stream = gateway.stream("[[words:200]]", listener="https")
    assert list(stream.events())[-1] == "[DONE]"
    # An answer larger than one buffered block.
    answer = gateway.chat("[[words:9000]]", listener="https")
    assert len(answer.body) > 40000 and answer.json["choices"]


def test_tokens_are_in_the_ledger_within_a_second(gateway):
    usage = gateway.chat("How many tokens is this?").json["usage"]
    gateway.wait_usage(1, seconds=1)
    total = gateway.usage(by="model")["total"]
    assert total["requests"] == 1
    assert total["tokens_input"] == usage["prompt_tokens"]
    assert total["tokens_output"] == usage["completion_tokens"]


def test_ledger_row_says_all(gateway, sim):
    usage = gateway.chat("One row for me").json["usage"]
    stream = gateway.stream("[[words:30]]", stream_options={"include_usage": True})
    streamed = stream.chunks()[-1]["usage"]
    gateway.stop()
    rows = sorted(gateway.rows(), key=lambda r: r["streamed"])
    assert len(rows) == 2
    for row, told in zip(rows, (usage, streamed)):
        assert row["tokens_input"] == told["prompt_tokens"]
        assert row["tokens_output"] == told["completion_tokens"]
        assert row["model"] == "gigachat/GigaChat-2" and row["provider"] == "gigachat"
        # 500 credits per 1M prompt tokens, 1000.5 per 1M completion tokens, in nanocredits.
        cached = row["tokens_cached"]
        assert row["cost"] == (told["prompt_tokens"] - cached) * 500_000 + (
            told["completion_tokens"] * 1_000_500
        )
        assert row["http_status"] == 200
    assert len(gateway.rows("usage_attempts")) == 2
    log = {e["request_id"]: e for e in sim.log()}
    assert len(log) == 2


def test_upstream_error_before_the_first_byte_keeps_its_status(gateway):
    answer = gateway.chat("[[sim:status:500]]", stream=True)
    assert answer.status == 502
    assert answer.error["code"] == "upstream_failed"
    gateway.stop()
    (row,) = gateway.rows()
    assert (row["tokens_input"], row["tokens_output"], row["cost"]) == (0, 0, 0)
    assert row["http_status"] == 502


@pytest.mark.parametrize(
    "scenario, status, code",
    [
        ("status:400", 400, "invalid_request"),
        ("status:402", 502, "provider_quota_exhausted"),
        ("status:403", 502, "upstream_auth_failed"),
        ("status:404", 404, "model_not_found"),
        ("status:413", 400, "context_length_exceeded"),
        ("status:422", 400, "invalid_request"),
        ("status:429", 429, "provider_busy"),
        ("status:500:html", 502, "upstream_failed"),
        ("status:503", 502, "upstream_failed"),
        ("auth_always", 502, "upstream_auth_failed"),
        ("reset:0", 502, "upstream_failed"),
        ("json_for_stream", 502, "upstream_failed"),
    ],
)
def test_provider_failures_are_mapped(gateway, scenario, status, code):
    answer = gateway.chat(f"[[sim:{scenario}]]", stream=scenario == "json_for_stream")
    assert (answer.status, answer.error["code"]) == (status, code)
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert answer.headers["x-should-retry"] in ("true", "false")


@pytest.mark.parametrize("scenario", ["cut:3", "reset:3", "stream_error", "malformed:2"])
def test_stream_that_dies_has_an_error_and_no_done(gateway, scenario):
    stream = gateway.stream(f"[[words:40]] [[sim:{scenario}]]")
    events = []
    try:
        for event in stream.events():
            events.append(event)
    except Exception as cut:  # the connection is aborted so that a client can tell
        assert "IncompleteRead" in type(cut).__name__
    if scenario.startswith("malformed"):
        # One bad event is skipped; the stream goes on.
        assert events[-1] == "[DONE]"
        return
    assert "[DONE]" not in events
    assert json.loads(events[-1])["error"]["code"] == "upstream_failed"
    gateway.stop()
    (row,) = gateway.rows()
    assert row["tokens_output"] >= 0 and row["tokens_input"] > 0


@pytest.mark.parametrize(
    "scenario",
    ["drip:1:0", "one_chunk", "cut_after_finish", "no_done", "no_usage", "double_done",
     "after_done", "comment", "crlf", "object_plural", "hang_after_finish", "big_header"],
)  # fmt: skip
def test_odd_but_whole_streams_are_whole(gateway, scenario):
    begun = time.monotonic()
    events = list(gateway.stream(f"[[words:8]] [[sim:{scenario}]]").events())
    assert events[-1] == "[DONE]" and events.count("[DONE]") == 1
    text = "".join(json.loads(e)["choices"][0]["delta"].get("content", "") for e in events[:-1])
    assert text.strip()
    assert time.monotonic() - begun < 30


def test_function_call_becomes_tool_calls(gateway):
    tools = [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "Weather",
                "parameters": {
                    "type": "object",
                    "properties": {"city": {"type": "string"}},
                    "required": ["city"],
                },
            },
        }
    ]
    first = gateway.chat("Please use get_weather", tools=tools).json["choices"][0]
    assert first["finish_reason"] == "tool_calls"
    call = first["message"]["tool_calls"][0]
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "x"}
    body = {
        "model": "GigaChat-2",
        "tools": tools,
        "messages": [
            {"role": "user", "content": "Please use get_weather"},
            first["message"],
            {"role": "tool", "tool_call_id": call["id"], "content": "7 degrees, rain"},
        ],
    }
    answer = gateway.request("POST", "/v1/chat/completions", body)
    assert answer.status == 200
    assert "7 degrees, rain" in answer.json["choices"][0]["message"]["content"]


def test_client_that_leaves_while_waiting_cancels_the_provider(gateway, sim):
    connection = gateway.connect()
    gateway.send(
        connection,
        "POST",
        "/v1/chat/completions",
        {"model": "GigaChat-2", "messages": [{"role": "user", "content": "[[first_ms:20000]]"}]},
    )
    wait_until(lambda: sim.stats()["in_flight"] == 1, what="the request at the provider")
    left_at = time.time()
    connection.close()
    aborted = wait_until(lambda: sim.stats()["aborted_by_client"], what="the cancel at the provider")
    assert aborted == 1
    assert time.time() - left_at < 1.0
    gateway.stop()
    (row,) = gateway.rows()
    assert row["cost"] == 0 and row["tokens_output"] == 0


def test_client_that_leaves_while_streaming_is_billed_for_what_came(gateway, sim):
    stream = gateway.stream("[[words:2000]] [[chunk_ms:10]]")
    events = stream.events()
    for _ in range(5):
        next(events)
    left_at_ms = time.time() * 1000
    stream.close()
    stats = wait_until(lambda: (s := sim.stats())["aborted_by_client"] and s, what="the cancel")
    assert stats["last_abort_at_ms"] - left_at_ms < 100 + 400  # 100 ms, and the machine's noise
    gateway.wait_usage(1)
    gateway.stop()
    (row,) = gateway.rows()
    assert row["tokens_output"] > 0 and row["tokens_input"] > 0


def test_hundred_first_requests_fetch_one_token(gateway, sim):
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(gateway.chat("[[first_ms:5]]").status))
        for _ in range(100)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 100
    assert sim.stats()["tokens_issued"] == 1


def test_expired_token_is_refreshed_once_under_load(gateway, sim):
    """Scenario 42: the token dies under 200 parallel requests."""
    assert gateway.chat("warm").status == 200
    sim.expire_tokens()
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(gateway.chat("[[first_ms:5]]").status))
        for _ in range(200)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 200
    assert sim.stats()["tokens_issued"] == 2


def test_models_are_listed(gateway):
    listed = gateway.request("GET", "/v1/models").json
    assert listed["object"] == "list"
    assert "gigachat/GigaChat-2-Pro" in [m["id"] for m in listed["data"]]
    one = gateway.request("GET", "/v1/models/gigachat%2FGigaChat-2-Pro").json
    assert one["id"] == "gigachat/GigaChat-2-Pro" and one["object"] == "model"
    missing = gateway.request("GET", "/v1/models/nothing")
    assert (missing.status, missing.error["code"]) == (404, "model_not_found")


def test_silent_provider_is_bridged_with_pings(make_gateway):
    gateway = make_gateway(options={"timeouts": {"stream_ping_ms": 100}})
    stream = gateway.stream("[[first_ms:700]] [[words:4]]")
    events = list(stream.events())
    assert stream.comments >= 2
    assert events[-1] == "[DONE]"


def test_first_byte_timeout_is_a_504(make_gateway):
    gateway = make_gateway(provider={"first_byte_ms": 200})
    answer = gateway.chat("[[first_ms:20000]]")
    assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")


def test_dropped_parameters_are_named(gateway):
    answer = gateway.chat("Hello", seed=7, user="someone")
    assert answer.status == 200
    assert answer.headers["x-xrouter-ignored"] == "seed, user"
