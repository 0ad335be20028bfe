"""Router + provider: the next candidate when one fails, the breaker, the queue, deadlines."""

import json
import os
import signal
import threading
import time

import pytest

from faults import Names
from harness import SLOW, Load, Sim, wait_until
from ledger import row_id
from upstreams import provider


def with_two(make_gateway, sim, second, first=None, options=None, **arguments):
    """Candidates: "one" (the fixture's simulator), then "two"."""
    gateway = make_gateway(start=False, options=options, **arguments)
    gateway.config["providers"] = [provider(sim, "one", **(first or {})), provider(second, "two")]
    for model in gateway.config["models"]:
        name = model["candidates"][0]["model"]
        model["candidates"] = [{"provider": "one", "model": name}, {"provider": "two", "model": name, "priority": 1}]
    gateway.write_config()
    return gateway.start()


def ask(gateway, stream, text="Hello", key=True, headers=None):
    if not stream:
        return gateway.chat(text, key=key, headers=headers)
    answer = gateway.stream(text, key=key, headers=headers)
    if answer.status == 200:
        assert list(answer.events())[-1] == "[DONE]"
    return answer


# --- the next candidate

BEFORE_THE_ANSWER = ["status:500", "status:503:html", "status:429", "status:408", "status:401", "reset:0", "refuse:300",
                     "bad_chunk:1", "big_header:80", "slow_headers:2000", "slow_first:2000", "stream_error:0"]  # fmt: skip
BROKEN_PLAIN = ["cut", "reset:1", "malformed", "bad_chunk:1", "status:200:html", "call_error"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("scenario", BEFORE_THE_ANSWER)
def test_failure_before_the_answer_goes_on_to_the_next(make_gateway, sim, second, scenario, stream):
    if scenario == "stream_error:0" and not stream:
        scenario = "malformed"
    gateway = with_two(make_gateway, sim, second, first={"first_byte_ms": int(500 * SLOW)})
    sim.script({"scenario": scenario, "times": -1})
    begun = time.monotonic()
    answer = ask(gateway, stream)
    took = time.monotonic() - begun
    assert answer.status == 200, answer.body
    assert answer.headers["x-xrouter-provider"] == "two" and int(answer.headers["x-xrouter-attempts"]) == 2
    assert took < 5 * SLOW
    gateway.wait_usage(1)
    assert gateway.stop() == 0
    (row,) = gateway.rows()
    assert row["provider"] == "two" and row["source"] == 1 and row["outcome"] == 0
    attempts = sorted(gateway.rows("usage_attempts"), key=lambda line: line["number"])
    assert attempts[0]["provider"] == "one" and attempts[0]["error"] and attempts[0]["tokens_output"] == 0
    assert attempts[-1]["provider"] == "two" and attempts[-1]["error"] is None


@pytest.mark.parametrize("scenario", BROKEN_PLAIN)
def test_bad_plain_answer_goes_on_to_the_next(make_gateway, sim, second, scenario):
    gateway = with_two(make_gateway, sim, second)
    sim.script({"scenario": scenario, "times": -1})
    answer = gateway.chat()
    assert answer.status == 200 and answer.headers["x-xrouter-provider"] == "two"
    told = second.log()[-1]
    assert answer.json["usage"]["completion_tokens"] == told["completion_tokens"]


def test_failure_behind_the_first_byte_is_never_spliced(make_gateway, sim, second):
    """Scenario 39."""
    gateway = with_two(make_gateway, sim, second)
    sim.script({"scenario": "cut:5", "times": -1})
    stream = gateway.stream("[[words:30]]")
    assert stream.status == 200 and stream.headers["x-xrouter-provider"] == "one"
    seen = []
    with pytest.raises(Exception):  # noqa: B017 - the connection is cut behind the error
        seen.extend(stream.events())
        raise ConnectionError
    assert "[DONE]" not in seen
    assert second.log() == []
    gateway.wait_usage(1)
    assert gateway.stop() == 0
    assert len(gateway.rows()) == 1


def test_what_the_client_did_wrong_is_final(make_gateway, sim, second):
    gateway = with_two(make_gateway, sim, second)
    sim.script({"scenario": "status:400", "times": -1})
    assert gateway.chat().status == 400
    assert second.log() == []


def test_all_fail_then_the_most_telling_error(make_gateway, sim, second):
    gateway = with_two(make_gateway, sim, second, options={"retry": {"attempts": 2}})
    sim.script({"scenario": "status:500", "times": -1})
    second.script({"scenario": "status:429", "times": -1})
    answer = gateway.chat()
    assert answer.status == 502 and answer.error["code"] == "upstream_failed"
    gateway.wait_usage(1)
    assert gateway.stop() == 0
    (row,) = gateway.rows()
    assert row["cost"] == 0 and row["tokens_input"] == 0 and row["source"] == 0
    assert len(gateway.rows("usage_attempts")) == 2


# --- repeats


def test_single_provider_is_tried_again_after_a_backoff(make_gateway, sim):
    gateway = make_gateway(options={"retry": {"backoff_ms": 20}})
    sim.script({"scenario": "status:500", "times": 2})
    answer = gateway.chat()
    assert answer.status == 200 and answer.headers["x-xrouter-attempts"] == "3"
    assert gateway.counter("upstream_retries_total") == 2


def test_retry_after_is_respected(make_gateway, sim, second):
    """Scenario 43: 429 with Retry-After 30: no call inside the window, the other provider is used."""
    gateway = with_two(make_gateway, sim, second)
    sim.script({"scenario": "retry_after:30", "times": 1})
    for _ in range(20):
        answer = gateway.chat()
        assert answer.status == 200 and answer.headers["x-xrouter-provider"] == "two"
    assert len(sim.log()) == 1


def test_retry_after_of_the_only_provider_reaches_the_client(make_gateway, sim):
    gateway = make_gateway()
    sim.script({"scenario": "retry_after:7", "times": 1})
    for _ in range(2):
        answer = gateway.chat()
        assert answer.status == 429 and answer.error["code"] == "provider_busy"
        assert 5 <= int(answer.headers["retry-after"]) <= 7
        assert abs(int(answer.headers["retry-after-ms"]) / 1000 - int(answer.headers["retry-after"])) <= 1
    assert len(sim.log()) == 1, "the provider was asked inside its Retry-After"


def test_outage_is_not_multiplied(make_gateway, sim):
    gateway = make_gateway(workers=1, options={"breaker": {"failures": 1000, "requests": 100000},
                                               "retry": {"backoff_ms": 1}})  # fmt: skip
    sim.script({"scenario": "status:500", "times": -1})
    for _ in range(100):
        assert gateway.chat().status == 502
    # Ten saved up, and a fifth of the requests.
    assert len(sim.log()) <= 100 + 10 + 20


# --- the breaker


def test_breaker_of_a_dead_provider(make_gateway, sim, second):
    """Scenario 38: open after a few failures and within 1 s; closed within 2 s of the recovery."""
    gateway = with_two(make_gateway, sim, second)
    with Load(gateway, clients=4, stream_share=0.3) as load:
        wait_until(lambda: len(load.delivered) > 50, 30, "traffic")
        sim.stop()
        begun, calls = time.monotonic(), gateway.counter("upstream_failures_total")
        wait_until(lambda: target(gateway)["breaker"] == "open", 5, "an open breaker")
        opened = time.monotonic() - begun
        count = len(load.delivered)
        wait_until(lambda: len(load.delivered) > count + 200, 30, "traffic without the first")
        failed = gateway.counter("upstream_failures_total") - calls
        took = time.monotonic() - begun
        sim.start()
        begun = time.monotonic()
        wait_until(lambda: target(gateway)["breaker"] == "closed", 10, "a closed breaker")
        closed = time.monotonic() - begun
    assert load.failed == []
    print(f"opened after {opened:.2f} s, closed after {closed:.2f} s, {failed} failures in {took:.1f} s")
    assert opened < 1 * SLOW and closed < 2 * SLOW
    # Those in flight when it died, those that opened it, and a probe a second.
    assert failed <= 5 + 2 * 4 + 1 + took


def target(gateway, name="one", model="GigaChat-2"):
    return next(t for t in gateway.stat()["targets"] if t["provider"] == name and t["model"] == model)


def test_open_breaker_answers_at_once(make_gateway, sim):
    gateway = make_gateway(options={"retry": {"attempts": 1}})
    sim.script({"scenario": "status:500", "times": -1})
    for _ in range(5):
        assert gateway.chat().status == 502
    calls = len(sim.log())
    begun = time.monotonic()
    refused = gateway.chat()
    assert time.monotonic() - begun < 0.5 * SLOW
    assert refused.status == 503 and refused.error["code"] == "no_provider"
    assert 0 < int(refused.headers["retry-after-ms"]) <= 1000
    assert len(sim.log()) == calls
    sim.reset()
    time_out = time.monotonic() + 5 * SLOW
    while gateway.chat().status != 200:
        assert time.monotonic() < time_out


# --- the queue


def test_provider_with_one_slot_and_many_clients(make_gateway, directory):
    """With a limit of 1 and 20 clients no 429 ever leaves the simulator, and every client is served."""
    path = directory / "narrow"
    path.mkdir()
    config = Sim(path).config
    config["clients"][0]["max_concurrent"] = 1
    sim = Sim(path, clients=config["clients"]).start()
    try:
        gateway = make_gateway(start=False, provider={"base_url": sim.url, "auth_url": sim.url + "/api/v2/oauth",
                                                      "max_concurrent": 1})  # fmt: skip
        gateway.start()
        keys = [gateway.make_key(f"client {i}") for i in range(20)]
        answers = {i: [] for i in range(20)}

        def client(i):
            for n in range(3):
                answer = ask(gateway, n % 2 == 0, "[[words:3]] [[chunk_ms:2]]", key=keys[i])
                answers[i].append((answer.status, time.monotonic()))

        threads = [threading.Thread(target=client, args=(i,)) for i in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(status == 200 for done in answers.values() for status, _ in done)
        assert {entry["status"] for entry in sim.log()} == {200}
        # In turn: nobody has the second answer before everybody has had the first.
        firsts = sorted(done[0][1] for done in answers.values())
        thirds = sorted(done[2][1] for done in answers.values())
        assert firsts[-1] < thirds[5]
    finally:
        sim.stop()


def test_full_queue_and_a_wait_that_is_too_long(make_gateway, sim):
    gateway = make_gateway(provider={"max_concurrent": 1}, options={"queue": {"length": 1, "wait_ms": 300}})
    running = gateway.stream("[[words:300]] [[chunk_ms:20]]")
    next(running.events())
    late = []
    thread = threading.Thread(target=lambda: late.append(gateway.chat()))
    thread.start()
    wait_until(lambda: gateway.stat()["queues"][0]["waiting"] == 1, 5, "somebody who waits")
    refused = gateway.chat()
    assert refused.status == 429 and refused.error["code"] == "provider_busy"
    assert int(refused.headers["retry-after"]) >= 1
    thread.join()
    assert late[0].status == 429
    running.close()
    wait_until(lambda: gateway.chat().status == 200, 5, "a free slot")


def test_slots_of_a_killed_worker_are_free_again(make_gateway, sim):
    gateway = make_gateway(provider={"max_concurrent": 1}, workers=1)
    running = gateway.stream("[[words:300]] [[chunk_ms:20]]")
    next(running.events())
    os.kill(gateway.pid("worker"), signal.SIGKILL)
    wait_until(lambda: gateway.chat().status == 200, 10, "an answer")
    running.close()


# --- deadlines


def test_deadline_of_the_client(make_gateway, sim):
    gateway = make_gateway()
    sim.script({"scenario": "slow_headers:5000", "times": -1})
    begun = time.monotonic()
    answer = gateway.chat(headers={"x-request-timeout-ms": "300"})
    took = time.monotonic() - begun
    assert answer.status == 504 and answer.error["code"] == "upstream_timeout"
    assert 0.3 <= took < 0.3 + 0.5 * SLOW
    for wrong in ("0", "soon", "-1", "86400001"):
        refused = gateway.chat(headers={"x-request-timeout-ms": wrong})
        assert refused.status == 400 and "x-request-timeout-ms" in refused.error["message"]


def test_deadline_covers_the_queue(make_gateway, sim):
    gateway = make_gateway(provider={"max_concurrent": 1})
    running = gateway.stream("[[words:300]] [[chunk_ms:20]]")
    next(running.events())
    begun = time.monotonic()
    answer = gateway.chat(headers={"x-request-timeout-ms": "200"})
    assert answer.status == 504 and 0.2 <= time.monotonic() - begun < 0.2 + 0.5 * SLOW
    running.close()


# --- names that nobody answers for


def at_name(sim, name, host, **fields):
    url = f"http://{host}:{sim.port}"
    return provider(sim, name, base_url=url, auth_url=url + "/api/v2/oauth", **fields)


def test_a_black_hole_in_the_dns_is_one_providers_alone(make_gateway, sim, second):
    """Scenario 40."""
    gateway = make_gateway(start=False, options={"breaker": {"open_ms": 200}, "retry": {"attempts": 2}})
    gateway.config["providers"] = [
        at_name(sim, "one", "api.hole.test", connect_ms=int(300 * SLOW)), at_name(second, "two", "api.two.test")]  # fmt: skip
    for model, names in zip(gateway.config["models"], (("two",), ("one", "two"), ("one",))):
        upstream = model["candidates"][0]["model"]
        model["candidates"] = [{"provider": n, "model": upstream, "priority": i} for i, n in enumerate(names)]
    gateway.config["models"] = gateway.config["models"][:3]
    names = Names(gateway, is_open=True)
    gateway.write_config()
    gateway.start()
    # Its look-up hangs: what goes elsewhere never waits for it, in no worker.
    asking = threading.Thread(target=lambda: [gateway.chat(model="GigaChat-2-Max") for _ in range(2)])
    asking.start()
    with Load(gateway, clients=6, count=300) as load:
        load.join()
    asking.join()
    assert load.failed == [] and len(load.delivered) == 300
    assert sorted(load.latencies)[-3] < 0.25 * SLOW
    # Who may go elsewhere does.
    answer = gateway.chat(model="GigaChat-2-Pro")
    assert answer.status == 200 and answer.headers["x-xrouter-provider"] == "two"
    answer = gateway.chat(model="GigaChat-2-Max")
    assert answer.status in (502, 503, 504), answer.body
    assert sim.stats()["connections_opened"] <= 1 + len(sim.log())  # ours alone: /__sim
    # And when the name's server answers again it is found.
    names.close_hole()
    wait_until(lambda: gateway.chat(model="GigaChat-2-Max").status == 200, 10, "the provider")


# --- what is told about it


def test_attempts_are_listed(make_gateway, sim, second):
    gateway = with_two(make_gateway, sim, second)
    sim.script({"scenario": "status:500", "times": 1})
    answer = gateway.chat()
    gateway.wait_usage(1)
    told = gateway.request("GET", f"/v1/generation?id={answer.json['id']}").json["data"]
    assert [(a["provider_name"], a["status"]) for a in told["provider_responses"]] == [("one", 500), ("two", 200)]
    assert json.dumps(told).count("two") >= 2
    assert gateway.stop() == 0
    (row,) = gateway.rows()
    assert row_id(row) == answer.headers["x-request-id"]
