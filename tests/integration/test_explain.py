"""Gateway + router: POST /v1/chat/completions?explain=1, and the headers that tell what was done."""

import re

import pytest

from harness import wait_until

PATH = "/v1/chat/completions"
TIMING = re.compile(
    r"receive;dur=\d+\.\d, limit;dur=\d+\.\d, queue;dur=(\d+\.\d), connect;dur=([0-9.]+), upstream;dur=(\d+\.\d), gateway;dur=(\d+\.\d)\Z")  # fmt: skip


def explain(gateway, text="Hello", query="?explain=1", key=True, **fields):
    body = dict({"model": "GigaChat-2", "messages": [{"role": "user", "content": text}]}, **fields)
    return gateway.request("POST", PATH + query, body, key)


@pytest.fixture
def pair(make_gateway):
    """Two providers, both the same simulator; the second holds short prompts only."""
    gateway = make_gateway(start=False)
    gateway.config["providers"].append(dict(gateway.config["providers"][0], name="second"))
    gateway.config["models"][0]["candidates"].append(
        {"provider": "second", "model": "GigaChat-2", "priority": 1, "context_tokens": 1000})  # fmt: skip
    gateway.write_config()
    return gateway.start()


def test_explained_is_the_route_and_the_price_and_nobody_is_asked(pair, sim):
    calls = len(sim.log())
    answer = explain(pair, "x" * 30, max_tokens=100)
    assert answer.status == 200 and answer.headers["content-type"] == "application/json"
    told = answer.json
    assert (told["object"], told["model"]) == ("xrouter.explain", "gigachat/GigaChat-2")
    assert [c["provider"] for c in told["candidates"]] == ["gigachat", "second"]
    assert told["candidates"][0] == {
        "id": "gigachat/GigaChat-2", "provider": "gigachat", "model": "GigaChat-2", "switch": "enabled", "breaker": "closed",
        "left_alone_ms": 0, "context_tokens": 131072, "would_try": True, "reason": None}  # fmt: skip
    assert (told["prompt_tokens"], told["method"], told["max_output_tokens"]) == (10, "exact", 100)
    # 10 tokens at 500 a million, and 100 at 1000.5
    assert told["estimate"] == {"currency": "RUB", "cost_at_most": "0.10505", "cost_prompt": "0.005"}
    assert len(sim.log()) == calls
    assert explain(pair, "x" * 30).json["max_output_tokens"] == 8192
    assert pair.usage(by="model")["total"]["requests"] == 0
    assert pair.counter("requests_in_flight") == 0
    pair.stop()
    assert pair.rows() == []


def test_candidates_that_would_be_passed_over_say_why(pair):
    pair.ctl("provider", "disable", "gigachat")
    first, second = explain(pair, "x" * 9000).json["candidates"]
    assert (first["would_try"], first["reason"], first["switch"]) == (False, "switched_off", "disabled")
    assert (second["would_try"], second["reason"]) == (False, "context_too_short")
    assert explain(pair).json["candidates"][1]["would_try"] is True


def test_an_open_breaker_is_explained(pair, sim):
    sim.script(*[{"scenario": "status:500"} for _ in range(40)])
    for _ in range(12):
        pair.chat()
    first = explain(pair).json["candidates"][0]
    assert (first["breaker"], first["would_try"], first["reason"]) == ("open", False, "breaker_open")
    assert first["left_alone_ms"] > 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_would_be_refused_is_refused(gateway, stream):
    assert explain(gateway, key=False).status == 401
    assert explain(gateway, model="nothing", stream=stream).error["code"] == "model_not_found"
    assert explain(gateway, temperature=9, stream=stream).error["param"] == "temperature"
    key = gateway.make_key("narrow", "--models", "GigaChat-2-Pro")
    assert explain(gateway, key=key, stream=stream).status == 403
    assert explain(gateway, stream=stream).json["object"] == "xrouter.explain"


@pytest.mark.parametrize("query,code", [
    ("?explain=0", 200), ("?api-version=2024-10-21", 200), ("?x=%zz", 200), ("?explain=yes", 400),
    ("?explain=1&explain=1", 400)])  # fmt: skip
def test_other_queries(gateway, query, code):
    answer = explain(gateway, "[[words:2]]", query)
    assert answer.status == code
    if code == 200:
        assert answer.json["object"] == "chat.completion"
    else:
        assert answer.error["param"] == "explain"


def test_explain_is_in_the_access_log(gateway):
    explain(gateway)
    line = wait_until(lambda: [x for x in gateway.access_log() if x.get("explain")], 10, "its line")[0]
    assert (line["model"], line["status"]) == ("gigachat/GigaChat-2", 200)


@pytest.mark.parametrize("stream", [False, True])
def test_answers_tell_where_their_time_went(gateway, stream):
    text = "[[first_ms:120]] [[words:2]]"
    answer = gateway.stream(text) if stream else gateway.chat(text)
    queue, connect, upstream, own = map(float, TIMING.match(answer.headers["server-timing"]).groups())
    assert queue == 0 and 0 <= connect < 1000 and upstream >= 100 and own < 1000
    if stream:
        list(answer.events())


def test_the_requests_own_wishes_are_explained(pair):
    only = explain(pair, provider={"only": ["second"]}).json
    assert [c["provider"] for c in only["candidates"]] == ["second"]
    both = explain(pair, models=["GigaChat-2-Max"], provider={"order": ["second"]}).json
    assert [(c["id"], c["provider"]) for c in both["candidates"]] == [
        ("gigachat/GigaChat-2", "second"), ("gigachat/GigaChat-2", "gigachat"),
        ("gigachat/GigaChat-2-Max", "gigachat")]  # fmt: skip
