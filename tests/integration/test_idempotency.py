"""Idempotency-Key: a request runs once and is charged once, who repeats it gets the same answer."""

import contextlib
import http.client
import os
import signal
import threading
import time

import pytest

from harness import SLOW, wait_until
from ledger import assert_exact, assert_ledger_clean

SLOW_TEXT = "[[words:20]] [[first_ms:400]]"


def ask(gateway, name, text="Say something about rivers", **fields):
    return gateway.chat(text, headers={"Idempotency-Key": name}, **fields)


def retried(gateway, name, text="Say something about rivers", **fields):
    """As an SDK: on 409 idempotency_in_progress asks again after what retry-after says."""

    def answered():
        answer = ask(gateway, name, text, **fields)
        return None if is_running(answer) else answer

    return wait_until(answered, 15, "the end of the running request")


def is_running(answer):
    return answer.status == 409 and answer.error["code"] == "idempotency_in_progress"


def assert_same(answer, first):
    assert answer.status == first.status == 200
    assert answer.body == first.body
    assert answer.headers["content-type"] == first.headers["content-type"]
    assert answer.headers["idempotent-replayed"] == "true"
    assert answer.headers["x-request-id"] != first.headers["x-request-id"]
    assert "idempotent-replayed" not in first.headers


def asked(sim):
    return len(sim.log())


@pytest.mark.parametrize("stream", [False, True])
def test_repeat_gets_the_same_answer_and_costs_nothing(gateway, sim, stream):
    first = ask(gateway, "k-1", stream=stream)
    for _ in range(5):
        assert_same(ask(gateway, "k-1", stream=stream), first)
    assert asked(sim) == 1
    assert gateway.counter("idempotent_replays_total") == 5
    assert gateway.counter("answers_stored_total") == 1
    assert_ledger_clean(gateway)
    gateway.stop()
    assert_exact(gateway, sim, [first.headers["x-request-id"]], 1)


def test_ten_at_once_are_one_call_and_one_charge(gateway, sim):
    answers = []

    def run():
        answers.append(ask(gateway, "many", SLOW_TEXT))

    threads = [threading.Thread(target=run) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first = [a for a in answers if a.status == 200 and "idempotent-replayed" not in a.headers]
    refused = [a for a in answers if a.status == 409]
    assert len(first) == 1
    assert len(refused) >= 5
    for answer in refused:
        assert answer.error["code"] == "idempotency_in_progress"
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["x-should-retry"] == "true"
    assert_same(retried(gateway, "many", SLOW_TEXT), first[0])
    assert asked(sim) == 1
    gateway.wait_usage(1)
    assert gateway.usage(by="model")["total"]["requests"] == 1


def test_same_key_with_another_body_is_refused(gateway, sim):
    ask(gateway, "k-1")
    answer = ask(gateway, "k-1", "Say something about mountains")
    assert answer.status == 409
    assert answer.error["code"] == "idempotency_key_reused"
    assert answer.error["param"] == "Idempotency-Key"
    assert answer.headers["x-should-retry"] == "false"
    assert asked(sim) == 1


def test_keys_of_two_clients_do_not_meet(gateway, sim):
    other = gateway.make_key("other")
    first = ask(gateway, "k-1")
    second = ask(gateway, "k-1", key=other)
    assert "idempotent-replayed" not in second.headers
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    assert asked(sim) == 2


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u00e9"])
def test_bad_key_is_refused(gateway, sim, key):
    answer = gateway.request(
        "POST", "/v1/chat/completions",
        {"model": "GigaChat-2", "messages": [{"role": "user", "content": "Hi"}]},
        headers={"Idempotency-Key": key.encode("latin-1")},
    )  # fmt: skip
    assert answer.status == 400
    assert answer.error["code"] == "invalid_request"
    assert answer.error["param"] == "Idempotency-Key"
    assert asked(sim) == 0


def test_two_keys_are_refused(gateway, sim):
    body = b'{"model":"GigaChat-2","messages":[{"role":"user","content":"Hi"}]}'
    answer = gateway.raw(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
        b"Idempotency-Key: a\r\nIdempotency-Key: a\r\nContent-Length: %d\r\n\r\n%s"
        % (gateway.key.encode(), len(body), body)
    )
    assert answer.startswith(b"HTTP/1.1 400 ") and b"Idempotency-Key" in answer
    assert asked(sim) == 0


def test_failure_that_cost_nothing_may_run_again(gateway, sim):
    sim.script([{"scenario": "status:500", "times": 10}])
    failed = ask(gateway, "k-1")
    assert failed.status >= 500
    sim.reset()
    answer = ask(gateway, "k-1")
    assert answer.status == 200 and "idempotent-replayed" not in answer.headers
    assert_same(ask(gateway, "k-1"), answer)


def test_refusal_before_admission_leaves_the_key_free(gateway):
    assert ask(gateway, "k-1", model="no-such-model").status == 404
    assert ask(gateway, "k-1").status == 200


def test_client_that_left_never_makes_it_run_again(gateway, sim):
    text = "[[words:200]] [[chunk_ms:20]]"
    body = {"model": "GigaChat-2", "messages": [{"role": "user", "content": text}], "stream": True}
    connection = gateway.connect()
    gateway.send(connection, "POST", "/v1/chat/completions", body, headers={"Idempotency-Key": "k"})
    sock = connection.sock
    response = connection.getresponse()
    response.read(200)
    sock.close()
    response.close()
    connection.close()

    def refused():
        answer = gateway.request("POST", "/v1/chat/completions", body,
                                 headers={"Idempotency-Key": "k"})  # fmt: skip
        return None if is_running(answer) else answer

    answer = wait_until(refused, 15, "the end of the cut request")
    assert answer.status == 409
    assert answer.error["code"] == "idempotency_replay_unavailable"
    assert answer.headers["x-should-retry"] == "false"
    assert asked(sim) == 1


def test_plain_answer_ended_by_the_operator_costs_nothing_and_may_run_again(gateway, sim):
    text = "[[words:50]] [[sim:drip:20:50]]"
    answers = []
    thread = threading.Thread(target=lambda: answers.append(ask(gateway, "k-1", text)))
    thread.start()

    def half_answered():
        return next((r for r in gateway.ctl_json("requests")["requests"]
                     if r["state"] == "answering"), None)  # fmt: skip

    gateway.ctl_json("kill", wait_until(half_answered, 10, "a part of the answer")["id"])
    thread.join()
    assert answers[0].status == 503
    assert answers[0].headers["x-should-retry"] == "true"
    assert ask(gateway, "k-1", text).status == 200
    gateway.stop()
    costs = {row["outcome"]: row["cost"] for row in gateway.rows()}
    assert costs[3] == 0 and costs[0] > 0


def test_answer_too_large_to_keep_is_never_run_again(make_gateway, sim):
    gateway = make_gateway(options={"ledger": {"answer_bytes": 1000}})
    first = ask(gateway, "k-1", "[[words:500]]")
    assert first.status == 200 and len(first.body) > 1000
    answer = ask(gateway, "k-1", "[[words:500]]")
    assert answer.status == 409
    assert answer.error["code"] == "idempotency_replay_unavailable"
    assert asked(sim) == 1


def test_largest_answer_is_kept_whole(gateway, sim):
    first = ask(gateway, "k-1", "[[words:20000]]")
    assert 100_000 < len(first.body) < 262_144
    assert_same(ask(gateway, "k-1", "[[words:20000]]"), first)
    assert asked(sim) == 1


def test_key_is_forgotten_when_its_time_is_over(make_gateway, sim):
    gateway = make_gateway(options={"ledger": {"answer_ttl_ms": 1000}})
    first = ask(gateway, "k-1")
    assert_same(ask(gateway, "k-1"), first)

    def ran_again():
        answer = ask(gateway, "k-1")
        return "idempotent-replayed" not in answer.headers and answer.status == 200

    wait_until(ran_again, 10, "the end of the key's time")
    assert asked(sim) == 2


def test_too_many_keys_are_refused_by_name(make_gateway, sim):
    gateway = make_gateway(options={"limits": {"idempotency_keys": 64}})
    for n in range(200):
        answer = ask(gateway, f"k-{n}", "Hi")
        if answer.status != 200:
            break
    assert answer.status == 503
    assert answer.error["code"] == "overloaded"
    assert "limits.idempotency_keys" in answer.error["message"]
    assert n >= 64
    assert asked(sim) == n
    assert ask(gateway, "k-0", "Hi").headers["idempotent-replayed"] == "true"


def test_answers_beyond_the_total_are_dropped_oldest_first(make_gateway, sim):
    gateway = make_gateway(options={"ledger": {"answers_bytes": 4000}})
    first = ask(gateway, "old", "[[words:100]]")
    for n in range(8):
        last = ask(gateway, f"new-{n}", "[[words:100]]")
    wait_until(lambda: gateway.counter("answers_stored_total") == 9, 10, "all answers")
    assert_same(ask(gateway, "new-7", "[[words:100]]"), last)
    answer = ask(gateway, "old", "[[words:100]]")
    assert first.status == 200 and answer.status == 409
    assert answer.error["code"] == "idempotency_replay_unavailable"
    assert asked(sim) == 9


def test_answers_survive_a_restart(make_gateway, sim):
    gateway = make_gateway()
    first = ask(gateway, "k-1", stream=True)
    gateway.stop()
    gateway.start()
    assert_same(ask(gateway, "k-1", stream=True), first)
    assert asked(sim) == 1


def test_everything_killed_then_keys_are_still_known(make_gateway, sim):
    gateway = make_gateway()
    first = ask(gateway, "stored")
    wait_until(lambda: gateway.counter("answers_stored_total") == 1, 10, "the stored answer")
    cut = threading.Thread(target=lambda: swallow(lambda: ask(gateway, "cut", stream=True,
                           text="[[words:200]] [[chunk_ms:20]]")))  # fmt: skip
    cut.start()
    wait_until(lambda: gateway.counter("stream_chunks_total") > 3, 10, "some chunks")
    gateway.kill_all()
    cut.join()
    gateway.start()
    assert_same(ask(gateway, "stored"), first)
    answer = ask(gateway, "cut", stream=True, text="[[words:200]] [[chunk_ms:20]]")
    assert answer.status == 409
    assert answer.error["code"] == "idempotency_replay_unavailable"
    assert asked(sim) == 2


def swallow(call):
    """Of a request whose worker is killed under it."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        call()


def test_worker_killed_while_it_runs_then_decided_by_what_it_cost(make_gateway, sim):
    gateway = make_gateway(workers=1)
    costly, free = "[[words:200]] [[chunk_ms:20]]", "[[first_ms:5000]]"
    threads = [
        threading.Thread(target=lambda k=k, t=t: swallow(
            lambda: ask(gateway, k, t, stream=True)))
        for k, t in (("costly", costly), ("free", free))
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    wait_until(lambda: gateway.counter("stream_chunks_total") > 3, 10, "some chunks")
    wait_until(lambda: gateway.counter("upstream_requests_total") >= 2, 10, "both requests")
    old = gateway.pid("worker")
    os.kill(old, signal.SIGKILL)
    for thread in threads:
        thread.join()
    wait_until(lambda: any(p["pid"] != old and p["state"] == "ready"
                           for p in gateway.processes("worker")), 10, "another worker")  # fmt: skip
    answer = ask(gateway, "costly", costly, stream=True)
    assert answer.status == 409
    assert answer.error["code"] == "idempotency_replay_unavailable"
    assert ask(gateway, "free", "[[first_ms:5000]]", stream=True).status == 200


def test_writer_killed_before_it_has_stored_then_the_worker_sends_again(make_gateway, sim):
    gateway = make_gateway(workers=1)
    writer = gateway.pid("usage-writer")
    os.kill(writer, signal.SIGSTOP)
    first = ask(gateway, "k-1")
    assert first.status == 200
    waiting = ask(gateway, "k-1")  # stored soon, but not while the usage-writer stands still
    assert waiting.status == 409
    assert waiting.error["code"] == "idempotency_in_progress"
    os.kill(writer, signal.SIGKILL)
    assert_same(retried(gateway, "k-1"), first)
    assert asked(sim) == 1


def test_concurrent_keys_under_load_are_all_charged_once(gateway, sim):
    """32 clients, 40 keys, each asked for eight times in any order."""
    answers = {}
    lock = threading.Lock()

    def run(seed):
        for i in range(10):
            n = (seed * 7 + i * 11) % 40
            answer = retried_quickly(gateway, f"k-{n}", f"[[words:10]] number {n}", n % 2 == 0)
            with lock:
                answers.setdefault(n, set()).add(answer.body)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(bodies) == 1 for bodies in answers.values())
    assert asked(sim) == len(answers)
    gateway.stop()
    assert len(gateway.rows()) == len(answers)


def retried_quickly(gateway, key, text, stream):
    deadline = time.monotonic() + 30 * SLOW
    while time.monotonic() < deadline:
        answer = ask(gateway, key, text, stream=stream)
        if answer.status == 200:
            return answer
        assert is_running(answer)
        time.sleep(0.02)
    raise AssertionError("never answered")
