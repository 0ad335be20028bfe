"""Gateway + usage: what is billed at the edges: clients that leave at any moment, providers that tell nonsense, a
clock that jumps."""

import threading
import time

import pytest

from faults import Clock, lasting, let_pass, wait_progress
from harness import SLOW, Load, wait_until
from ledger import assert_exact, row_id

TOKENS = 12
STREAMS = 1000 if lasting(1000) >= 1000 else 96
NOWHERE = TOKENS + 2


# --- clients that leave


def leave_at(gateway, token, out):
    """Reads a stream up to a token (0: nothing, NOWHERE: to its end) and goes."""
    stream = gateway.stream(f"[[words:{TOKENS}]] [[chunk_ms:5]] [[first_ms:30]]")
    content = 0
    if token > 0:
        for event in stream.events():
            if event != "[DONE]" and '"content":"' in event and '"content":""' not in event:
                content += 1
            if content == token:
                break
    stream.close()
    out.append((stream.headers["x-request-id"], content, time.time()))


def leave_before_the_head(gateway, out):
    """Sends the request and is gone before anything can have come back."""
    connection = gateway.connect()
    body = {"model": "GigaChat-2", "stream": True,
            "messages": [{"role": "user", "content": "[[words:3]] [[first_ms:150]]"}]}  # fmt: skip
    gateway.send(connection, "POST", "/v1/chat/completions", body)
    connection.close()
    out.append((None, 0, time.time()))


def test_client_that_leaves_is_billed_for_what_came(make_gateway, sim):
    """Scenario 19: one row each; none for nothing where tokens were sent; upstream closed at once."""
    gateway = make_gateway()
    left, silent = [], []

    def client(number, count):
        for i in range(count):
            token = (number + i) % (NOWHERE + 1)
            if token == 0 and i % 2 == 0:
                leave_before_the_head(gateway, silent)
            else:
                leave_at(gateway, token, left)

    clients = 8
    threads = [
        threading.Thread(target=client, args=(i, STREAMS // clients), daemon=True)
        for i in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120 * SLOW)
        assert not thread.is_alive()
    total = STREAMS // clients * clients
    assert len(left) + len(silent) == total
    wait_until(lambda: gateway.counter("requests_in_flight") == 0, 5, "an idle gateway")
    wait_until(lambda: gateway.counter("events_committed_total") == total, 5, "all rows")
    assert gateway.stop() == 0

    rows = {row_id(row): row for row in gateway.rows()}
    journal = {entry["request_id"]: entry for entry in sim.log()}
    assert len(rows) == total
    for request_id, content, gone_at in left:
        row, told = rows[request_id], journal[request_id]
        # A word of the simulator is at least a token.
        assert content <= row["tokens_output"] <= told["completion_tokens"]
        if told["end"] == "aborted":
            assert told["ended_at_ms"] / 1000 - gone_at < 1 * SLOW, "the provider's call went on"
    for row in rows.values():
        told = journal.get(row_id(row))
        assert row["outcome"] in (0, 2)
        if told is None or told["completion_tokens"] == 0:
            assert row["tokens_output"] == 0
        elif row["cost"] == 0:
            # The client was gone before the first token had crossed.
            assert row_id(row) not in {request_id for request_id, content, _ in left if content}
    whole = [r for r, content, _ in left if content == TOKENS and rows[r]["outcome"] == 0]
    assert_exact(gateway, sim, whole)
    print(f"{len(left)} left, {len(silent)} before the head, {len(whole)} to the end")


# --- providers that tell nonsense


NONSENSE = ["no_usage", *(f"bad_usage:{kind}" for kind in ("negative", "string", "huge", "overflow"))]


@pytest.mark.parametrize("stream", [True, False])
def test_nonsense_usage_is_counted_here(make_gateway, sim, stream):
    """Scenario 20: the local count, flagged as such; no amount is negative or has overflowed."""
    gateway = make_gateway()
    asked = {}
    for scenario in NONSENSE + (["bad_usage:twice"] if stream else []):
        text = f"Привет, {scenario} [[sim:{scenario}]] [[words:9]]"
        if stream:
            answer = gateway.stream(text)
            assert answer.status == 200 and list(answer.events())[-1] == "[DONE]"
        else:
            answer = gateway.chat(text)
            assert answer.status == 200
        asked[answer.headers["x-request-id"]] = scenario
    assert gateway.stop() == 0
    journal = {entry["request_id"]: entry for entry in sim.log()}
    rows = {row_id(row): row for row in gateway.rows()}
    assert set(rows) == set(asked)
    for request_id, scenario in asked.items():
        row, told = rows[request_id], journal[request_id]
        assert row["outcome"] == 0 and row["http_status"] == 200
        # The model's tokenizer is the simulator's.
        assert row["tokens_output"] == told["completion_tokens"], scenario
        assert row["tokens_input"] == told["prompt_tokens"], scenario
        assert row["source"] == (1 if scenario == "bad_usage:twice" else 2), scenario
        assert row["tokens_cached"] == 0
        assert 0 < row["cost"] < 10**9
    assert_exact(gateway, sim, [r for r, s in asked.items() if s == "bad_usage:twice"])


# --- a clock that jumps


YEAR = 365 * 24 * 3600
JUMPS = [3600, -3600, 10 * YEAR, -10 * YEAR, 0]


def test_jumping_clock_disturbs_nothing(make_gateway, sim):
    """Scenario 29: deadlines are monotonic; ids never repeat, durations are never negative."""
    gateway = make_gateway(start=False)
    clock = Clock(gateway)
    gateway.start()
    with Load(gateway, clients=6, stream_share=0.5, text="[[words:5]] [[chunk_ms:10]]") as load:
        wait_progress(load)
        for seconds in JUMPS:
            stream = gateway.stream("[[words:20]] [[chunk_ms:10]]")
            events = stream.events()
            next(events)
            clock.shift(seconds)
            assert list(events)[-1] == "[DONE]"
            load.delivered.append(stream.headers["x-request-id"])
            wait_progress(load)
            let_pass(lasting(10, 0.2, 0.2))
    assert load.failed == []
    # A report would need to know which years to look at.
    count = len(load.delivered)
    wait_until(lambda: gateway.counter("events_committed_total") >= count, 5, "all rows")
    counters = gateway.stat()["counters"]
    assert counters["worker_deaths_total"] == counters["watchdog_kills_total"] == 0
    assert counters["events_dead_total"] == counters["events_duplicate_total"] == 0
    assert gateway.stop() == 0
    assert_exact(gateway, sim, load.delivered)
    for table in ("usage", "usage_attempts"):
        durations = [row["duration_ms"] for row in gateway.rows(table)]
        assert min(durations) >= 0 and max(durations) < 60_000 * SLOW
    created = sorted({row["created_at"] // (1000 * YEAR) for row in gateway.rows()})
    assert len(created) >= 3, "the clock did not jump"


def test_clock_set_back_across_a_restart_repeats_no_id(make_gateway, sim):
    """The same milliseconds come twice."""
    gateway = make_gateway(start=False, workers=1)
    clock = Clock(gateway)
    delivered = []
    for start in range(3):
        gateway.start()
        begun = time.time()
        with Load(gateway, clients=4, stream_share=0.0, text="[[words:1]]") as load:
            wait_progress(load, 200)
        assert load.failed == []
        delivered += load.delivered
        assert gateway.stop() == 0
        # The next instance begins where this one began.
        clock.shift(-(time.time() - begun) * (start + 1) - 0.2 * start)
    assert_exact(gateway, sim, delivered)
    sequences = sorted(int(i[-8:], 16) for i in delivered)
    assert len(set(sequences)) == len(sequences)
