"""Rate limits of keys, of models and of the gateway: exact over all workers, told in headers, honest about the wait."""

import http.client
import json
import os
import re
import signal
import threading
import time

import pytest

from harness import SLOW, wait_until


def rates(answer):
    return {name[12:]: value for name, value in answer.headers.items() if name.startswith("x-ratelimit-")}


def seconds(text):
    """Go's duration."""
    assert re.fullmatch(r"(\d+h)?(\d+m)?\d+(\.\d+)?(ms|s)", text), text
    if text.endswith("ms"):
        return int(text[:-2]) / 1000
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?([\d.]+)s", text).groups()
    return int(parts[0] or 0) * 3600 + int(parts[1] or 0) * 60 + float(parts[2])


def assert_limited(answer, words):
    assert answer.status == 429 and answer.error["code"] == "rate_limit_exceeded", answer.body
    assert answer.error["type"] == "rate_limit_error" and words in answer.error["message"]


# --- a key's


def test_requests_per_minute_and_their_headers(make_gateway, sim):
    gateway = make_gateway(workers=3)
    key = gateway.make_key("limited", "--rpm", 4)
    first = gateway.chat(key=key)
    told = rates(first)
    assert (told["limit-requests"], told["remaining-requests"]) == ("4", "3")
    assert 55 < seconds(told["reset-requests"]) <= 60.01
    assert "limit-tokens" not in told
    stream = gateway.stream("Hello", key=key)
    assert stream.headers["x-ratelimit-remaining-requests"] == "2"
    assert list(stream.events())[-1] == "[DONE]"
    # What is no request to a model is none, and tells how things are.
    for _ in range(3):
        assert rates(gateway.request("GET", "/v1/models", key=key))["remaining-requests"] == "2"
    assert rates(gateway.chat(key=key))["remaining-requests"] == "1"
    assert rates(gateway.chat(key=key))["remaining-requests"] == "0"
    refused = gateway.chat(key=key)
    assert_limited(refused, "4 requests per minute of this key")
    assert rates(refused)["remaining-requests"] == "0"
    wait_ms = int(refused.headers["retry-after-ms"])
    assert 50_000 < wait_ms <= 60_010 and int(refused.headers["retry-after"]) == -(-wait_ms // 1000)
    assert refused.headers["x-should-retry"] == ("true" if wait_ms <= 60_000 else "false")
    assert len(sim.log()) == 4
    # Other keys do not notice.
    assert rates(gateway.chat()) == {}
    gateway.wait_usage(5)  # what is refused leaves no row
    assert gateway.counter("rate_refusals_total") == 1


def test_requests_per_day_are_not_to_be_waited_for(make_gateway):
    gateway = make_gateway()
    key = gateway.make_key("limited", "--rpd", 1)
    assert rates(gateway.chat(key=key))["remaining-requests"] == "0"
    refused = gateway.chat(key=key)
    assert_limited(refused, "1 requests per day of this key")
    left = 86400 - time.time() % 86400
    assert abs(int(refused.headers["retry-after"]) - left) < 5
    assert refused.headers["x-should-retry"] == ("false" if left > 61 else refused.headers["x-should-retry"])


def test_of_two_limits_the_nearer_one_is_told(make_gateway):
    gateway = make_gateway()
    key = gateway.make_key("limited", "--rpm", 10, "--rpd", 3, "--tpm", 100000, "--tpd", 50000)
    told = rates(gateway.chat(key=key))
    assert (told["limit-requests"], told["remaining-requests"]) == ("3", "2")
    assert told["limit-tokens"] == "50000" and 0 < int(told["remaining-tokens"]) < 50000
    assert seconds(told["reset-tokens"]) <= 86400


def test_tokens_are_reserved_and_put_right(make_gateway, sim):
    gateway = make_gateway()
    key = gateway.make_key("limited", "--tpm", 2000)
    used = 0
    for _ in range(5):
        used += gateway.chat(key=key).json["usage"]["total_tokens"]
        told = rates(gateway.request("GET", "/v1/models", key=key))
        assert int(told["remaining-tokens"]) == 2000 - used
    # One that may become long holds so much while it runs.
    stream = gateway.stream("[[words:200]] [[chunk_ms:20]]", key=key)
    events = stream.events()
    next(events)
    held = 2000 - used - int(rates(gateway.request("GET", "/v1/models", key=key))["remaining-tokens"])
    assert 20 < held <= 300
    list(events)
    left = int(rates(gateway.request("GET", "/v1/models", key=key))["remaining-tokens"])
    assert left == 2000 - used - sum(sim.log()[-1][n] for n in ("prompt_tokens", "completion_tokens"))
    # What fails costs none.
    sim.script({"scenario": "status:400", "times": 1})
    assert gateway.chat(key=key).status == 400
    assert int(rates(gateway.request("GET", "/v1/models", key=key))["remaining-tokens"]) == left
    refused = gateway.chat("x" * 9000, key=key)
    assert_limited(refused, "too small for this request")
    assert refused.headers["x-should-retry"] == "false" and "retry-after" not in refused.headers
    refused = gateway.chat("y" * 3 * (left + 10), key=key)
    assert_limited(refused, "2000 tokens per minute of this key")


def test_requests_at_once_over_all_workers(make_gateway):
    gateway = make_gateway(workers=3)
    key = gateway.make_key("limited", "--parallel", 5)
    streams = [gateway.stream("[[words:1000]] [[chunk_ms:20]]", key=key) for _ in range(5)]
    for stream in streams:
        assert stream.status == 200
        next(stream.events())
    refused = gateway.chat(key=key)
    assert_limited(refused, "5 requests at once of this key")
    assert refused.headers["retry-after"] == "1" and refused.headers["x-should-retry"] == "true"
    streams.pop().close()
    wait_until(lambda: gateway.chat(key=key).status == 200, 5, "the place of the one that left")
    for stream in streams:
        stream.close()
    wait_until(lambda: gateway.counter("requests_in_flight") == 0, 5, "the end of the streams")


def test_places_of_a_killed_worker_are_given_back(make_gateway):
    gateway = make_gateway(workers=2)
    key = gateway.make_key("limited", "--parallel", 8)
    for _ in range(3):
        streams = [gateway.stream("[[words:1000]] [[chunk_ms:20]]", key=key) for _ in range(8)]
        assert [s.status for s in streams] == [200] * 8
        for worker in gateway.processes("worker"):
            os.kill(worker["pid"], signal.SIGKILL)
        for stream in streams:
            stream.close()

        def all_places():
            again = [gateway.stream("[[words:1000]] [[chunk_ms:20]]", key=key) for _ in range(8)]
            statuses = [s.status for s in again]
            for stream in again:
                stream.close()
            return statuses == [200] * 8

        def ask():
            try:
                return all_places()
            except (OSError, http.client.HTTPException):
                return False  # the workers are on their way

        wait_until(ask, 20, "all places")
        wait_until(lambda: gateway.counter("requests_in_flight") == 0, 10, "the end of the streams")


def test_a_tiers_limits_and_a_keys_own(make_gateway):
    tiers = {"free": {"rpm": 20, "rpd": 200, "parallel": 5}, "pro": {"rpm": 100, "rpd": 1000, "parallel": 20}}
    gateway = make_gateway(options={"limits": {"tiers": tiers}})
    free = gateway.make_key("free", "--tier", "free")
    assert rates(gateway.chat(key=free))["limit-requests"] == "20"
    gateway.ctl("key", "update", "free", "--tier", "pro")
    wait_until(lambda: rates(gateway.request("GET", "/v1/models", key=free))["limit-requests"] == "100", 5, "the tier")
    assert rates(gateway.request("GET", "/v1/models", key=free))["remaining-requests"] == "99"
    gateway.ctl("key", "update", "free", "--rpm", 2)
    wait_until(lambda: rates(gateway.request("GET", "/v1/models", key=free))["limit-requests"] == "2", 5, "the limit")
    gateway.config["limits"]["tiers"]["pro"]["rpd"] = 1
    gateway.write_config()
    gateway.ctl("reload")
    wait_until(lambda: gateway.chat(key=free).status == 429, 5, "the tier's new limit")


# --- a model's, and the gateway's


@pytest.mark.parametrize("whose", ["model", "gateway"])
def test_limits_of_all_keys_together(make_gateway, whose):
    gateway = make_gateway(start=False, workers=3)
    if whose == "model":
        gateway.config["models"][0]["limits"] = {"rpm": 5}
    else:
        gateway.config["limits"] = {"gateway": {"rpm": 5}}
    gateway.write_config()
    gateway.start()
    keys = [gateway.make_key(f"key-{i}") for i in range(3)]
    answers = [gateway.chat(key=keys[i % 3]) for i in range(8)]
    assert [a.status for a in answers] == [200] * 5 + [429] * 3
    assert_limited(answers[-1], "5 requests per minute of " + ("this model" if whose == "model" else "the gateway"))
    assert rates(answers[-1]) == {}  # they are the key's alone
    other = gateway.chat(model="GigaChat-2-Pro", key=keys[0])
    assert other.status == (200 if whose == "model" else 429)


def test_who_is_refused_by_one_limit_has_used_no_other(make_gateway):
    gateway = make_gateway(start=False)
    gateway.config["limits"] = {"gateway": {"parallel": 1}}
    gateway.write_config()
    gateway.start()
    key = gateway.make_key("limited", "--rpm", 10, "--tpm", 10000)
    running = gateway.stream("[[words:300]] [[chunk_ms:20]]")
    next(running.events())
    for _ in range(3):
        refused = gateway.chat(key=key)
        assert_limited(refused, "1 requests at once of the gateway")
        assert rates(refused)["remaining-requests"] == "10" and rates(refused)["remaining-tokens"] == "10000"
    running.close()


# --- figures


@pytest.mark.parametrize("kind", ["rpm", "tpm"])
def test_overload_of_four_workers_is_served_to_the_limit(make_gateway, sim, kind):
    """64 connections ask for three times as much as there may be."""
    gateway = make_gateway(workers=4)
    answer = gateway.chat("Hello [[words:10]]").json["usage"]["total_tokens"]
    limit = 1000 if kind == "rpm" else 1000 * answer
    key = gateway.make_key("limited", f"--{kind}", limit)
    body = json.dumps({"model": "GigaChat-2", "messages": [{"role": "user", "content": "Hello [[words:10]]"}]})
    results = []

    def client():
        connection = gateway.connect()
        for _ in range(47):
            connection.request("POST", "/v1/chat/completions", body,
                               {"Authorization": "Bearer " + key, "Content-Type": "application/json"})  # fmt: skip
            response = connection.getresponse()
            response.read()
            results.append(response.status)
        connection.close()

    begun = time.monotonic()
    threads = [threading.Thread(target=client) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - begun
    served = results.count(200)
    assert set(results) == {200, 429} and len(results) == 64 * 47
    if took < 55:  # one window
        assert served == 1000 if kind == "rpm" else 995 <= served <= 1000, served
    assert len(sim.log()) <= served + 1
    gateway.wait_usage(served + 1, 30 * SLOW)
