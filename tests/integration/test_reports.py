"""What the owner of a key may ask about it: GET /v1/key, /v1/usage, /v1/generation."""

import os
import re
import signal
import threading
import time
from decimal import Decimal

import pytest

from harness import SLOW, wait_until
from ledger import half_up

INPUT, OUTPUT = 500_000_000_000, 1_000_500_000_000  # nanocredits per 1M tokens: the harness' prices
NANO = Decimal(10) ** 9
ROW_FIELDS = {"requests", "errors", "tokens_input", "tokens_cached", "tokens_output", "cost"}


def get(gateway, path, key=True):
    return gateway.request("GET", path, key=key)


def data(answer):
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    return answer.json["data"]


def cost_of(told):
    cached = told["precached_prompt_tokens"]
    nano = half_up((told["prompt_tokens"] - cached) * INPUT + told["completion_tokens"] * OUTPUT)
    return format((Decimal(nano) / NANO).normalize(), "f")


def journal(sim, answer):
    request_id = answer.headers["x-request-id"]
    return [e for e in sim.log() if e["request_id"] == request_id][-1]


@pytest.fixture
def used(gateway):
    """Two keys; the first has two models and one answer that failed."""
    gateway.other = gateway.make_key("other")
    gateway.answers = [gateway.chat("one"), gateway.chat("two words", model="GigaChat-2-Pro")]
    gateway.failed = gateway.chat("[[sim:status:400]]")
    gateway.foreign = gateway.chat("[[words:30]]", key=gateway.other)
    gateway.wait_usage(4)
    return gateway


def test_own_usage_is_what_the_provider_counted(used, sim):
    told = [journal(sim, a) for a in used.answers]
    for by in ("hour", "day", "model", "key"):
        answer = get(used, f"/v1/usage?by={by}")
        assert answer.status == 200
        usage = answer.json
        assert set(usage) == {"since", "until", "by", "rows", "total"} and usage["by"] == by
        total = usage["total"]
        assert set(total) == ROW_FIELDS
        assert total["requests"] == 3 and total["errors"] == 1
        assert total["tokens_input"] == sum(e["prompt_tokens"] for e in told)
        assert total["tokens_output"] == sum(e["completion_tokens"] for e in told)
        assert Decimal(total["cost"]) == sum(Decimal(cost_of(e)) for e in told)
        for field in ROW_FIELDS - {"cost"}:
            assert sum(row[field] for row in usage["rows"]) == total[field]
    assert usage["rows"][0]["name"] == "test" and len(usage["rows"]) == 1
    shown = used.usage(key="test", by="model")
    own = get(used, "/v1/usage?by=model").json
    assert own["rows"] == shown["rows"] and own["total"] == shown["total"]
    assert get(used, "/v1/usage").json["by"] == "day"


def test_usage_filters(used):
    pro = get(used, "/v1/usage?model=gigachat%2FGigaChat-2-Pro").json
    assert pro["total"]["requests"] == 1
    assert get(used, "/v1/usage?model=GigaChat-2-Pro").json["total"] == pro["total"]
    assert get(used, "/v1/usage?model=nothing").json["rows"] == []
    assert get(used, "/v1/usage?since=1h&until=2099-01-01").json["total"]["requests"] == 3
    assert get(used, "/v1/usage?since=2099-01-01").json["total"]["requests"] == 0
    assert get(used, "/v1/usage?since=1970-01-01").json["total"]["requests"] == 3


def test_generation(used, sim):
    for answer in used.answers:
        completion = answer.json["id"]
        told = journal(sim, answer)
        found = data(get(used, f"/v1/generation?id={completion}"))
        assert found["id"] == completion
        assert found["model"] in ("gigachat/GigaChat-2", "gigachat/GigaChat-2-Pro")
        assert found["provider_name"] == "gigachat"
        assert found["tokens_prompt"] == found["native_tokens_prompt"] == told["prompt_tokens"]
        assert found["tokens_completion"] == told["completion_tokens"]
        assert found["native_tokens_cached"] == told["precached_prompt_tokens"]
        assert found["tokens_source"] == "provider"
        assert found["total_cost"] == cost_of(told)
        assert found["streamed"] is False and found["cancelled"] is False
        assert found["latency"] >= found["generation_time"] >= 0
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found["created_at"])
        assert [r["status"] for r in found["provider_responses"]] == [200]
        same = data(get(used, f"/v1/generation?id={answer.headers['x-request-id']}"))
        assert dict(same, id=completion) == found
        assert data(get(used, f"/v1/generation?id={completion[-32:]}"))["model"] == found["model"]


def test_generation_that_failed(used):
    found = data(get(used, f"/v1/generation?id={used.failed.headers['x-request-id']}"))
    assert found["finish_reason"] == "error" and found["total_cost"] == "0"
    assert found["http_status"] == used.failed.status
    assert found["error_code"] == used.failed.error["code"]


def test_generation_of_a_stream_that_was_cancelled(gateway, sim):
    stream = gateway.stream("[[words:2000]] [[chunk_ms:10]]")
    next(stream.events())
    request_id = stream.response.getheader("x-request-id")
    stream.close()
    gateway.wait_usage(1)
    found = data(get(gateway, f"/v1/generation?id={request_id}"))
    assert found["streamed"] is True and found["cancelled"] is True


def test_anothers_generation_is_not_found(used):
    path = f"/v1/generation?id={used.foreign.json['id']}"
    assert get(used, path, key=used.other).status == 200
    mine = get(used, path)
    assert mine.status == 404 and mine.error["code"] == "not_found"
    never = get(used, "/v1/generation?id=chatcmpl-" + "0" * 32)
    assert never.status == 404
    assert never.error == mine.error, "whether it exists must not be told"
    assert never.headers["x-should-retry"] == "false"


def test_key_without_limits(used):
    key = data(get(used, "/v1/key"))
    total = get(used, "/v1/usage").json["total"]
    assert key["label"] == "test" and key["id"].startswith("key_")
    assert key["limit"] is None and key["limit_remaining"] is None and key["limit_reset"] is None
    assert key["usage"] == key["usage_daily"] == total["cost"]
    assert key["usage_weekly"] == key["usage_monthly"] == total["cost"]
    assert key["balance"] is None and key["expires_at"] is None
    assert key["is_free_tier"] is False and key["requests"] == 3
    assert key["rate_limit"]["rpm"] is None
    assert "sk-xr-" not in get(used, "/v1/key").body.decode()


def test_key_with_credits_and_limits(gateway):
    text = gateway.make_key(
        "paid", "--credits", "1000", "--rpm", "600", "--expires", "2099-01-01"
    )
    before = data(get(gateway, "/v1/key", key=text))
    assert before["limit"] == before["limit_remaining"] == before["balance"] == "1000"
    assert before["limit_reset"] is None and before["usage"] == "0"
    assert before["rate_limit"]["rpm"] == before["rate_limit"]["requests"] == 600
    assert before["expires_at"] == "2099-01-01T00:00:00.000Z"
    assert gateway.chat("one", key=text).status == 200
    gateway.wait_usage(1)

    def settled():
        key = data(get(gateway, "/v1/key", key=text))
        return key if key["available"] == key["balance"] else None

    after = wait_until(settled, 10, "the settlement")
    assert Decimal(after["usage"]) > 0 and after["limit"] == "1000"
    assert Decimal(after["limit_remaining"]) == 1000 - Decimal(after["usage"])


BAD = [
    ("/v1/usage?since=yore", "since"),
    ("/v1/usage?since=", "since"),
    ("/v1/usage?until=2026-13-01", "until"),
    ("/v1/usage?by=week", "by"),
    ("/v1/usage?model=", "model"),
    ("/v1/usage?model=%zz", "model"),
    ("/v1/usage?model=%00", "model"),
    ("/v1/usage?by=day&by=hour", "by"),
    ("/v1/usage?form=2026-01-01", "form"),
    ("/v1/usage?key=other", "key"),
    ("/v1/usage?model=" + "a" * 1000, "model"),
    ("/v1/key?id=1", "id"),
    ("/v1/generation", "id"),
    ("/v1/generation?id=", "id"),
    ("/v1/generation?id=chatcmpl-12", "id"),
    ("/v1/generation?id=" + "g" * 32, "id"),
    ("/v1/generation?id=' OR 1=1 --".replace(" ", "+"), "id"),
]


def test_bad_parameters_are_named(gateway):
    for path, param in BAD:
        answer = get(gateway, path)
        assert answer.status == 400, (path, answer.body)
        assert answer.error["code"] == "invalid_request" and answer.error["param"] == param, path


def test_providers_status(used):
    def measured():
        answer = get(used, "/v1/providers/status")
        assert answer.status == 200 and answer.json["object"] == "list"
        rows = [row for row in answer.json["data"] if row["status"] != "unused"]
        return rows or None

    rows = wait_until(measured, 20, "a measured provider")
    assert {row["provider"] for row in rows} == {"gigachat"}
    for row in rows:
        assert set(row) == {
            "provider", "model", "status", "latency_ms", "error_rate", "updated_at",
        }  # fmt: skip
        assert 0 <= row["error_rate"] <= 1


def test_a_key_is_needed(gateway):
    for path in ("/v1/key", "/v1/usage", "/v1/providers/status", "/v1/generation?id=" + "0" * 32):
        assert get(gateway, path, key=False).status == 401
        assert gateway.request("POST", path, {}).status == 405


def test_writer_that_stands_still(used):
    """The deadline is ours, chats go on meanwhile, and what waited is forgotten without harm."""
    pid = used.pid("usage-writer")
    os.kill(pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        answer = get(used, "/v1/key")
        took = time.monotonic() - begun
        assert answer.status == 503 and answer.error["code"] == "accounting_unavailable"
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["x-should-retry"] == "true"
        assert 1.5 < took < 3.5 * SLOW

        statuses = []
        threads = [
            threading.Thread(target=lambda: statuses.append(get(used, "/v1/usage")))
            for _ in range(60)
        ]
        for thread in threads:
            thread.start()
        assert used.chat("meanwhile").status == 200
        for thread in threads:
            thread.join()
        codes = {a.error["code"] for a in statuses}
        assert {a.status for a in statuses} == {503}
        assert codes <= {"accounting_unavailable", "overloaded"} and "overloaded" in codes
    finally:
        os.kill(pid, signal.SIGCONT)
    used.wait_usage(5)
    assert data(get(used, "/v1/key"))["requests"] == 4


def test_client_that_leaves_while_it_waits(used):
    pid = used.pid("usage-writer")
    os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(40):  # more than may be open at once: each gives its place back
            connection = used.connect()
            used.send(connection, "GET", "/v1/usage")
            time.sleep(0.01)
            connection.close()
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: get(used, "/v1/usage").status == 200, what="an answer")


def test_writer_that_died(used):
    os.kill(used.pid("usage-writer"), signal.SIGKILL)
    answers = []

    def answered():
        answers.append(get(used, "/v1/usage"))
        return answers[-1].status == 200

    wait_until(answered, 10, "the respawned usage-writer")
    assert {a.error["code"] for a in answers[:-1]} <= {"accounting_unavailable"}
    assert answers[-1].json["total"]["requests"] == 3
