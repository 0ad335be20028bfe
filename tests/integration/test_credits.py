"""Prepaid balances and spending limits: never a nanocredit more than there is, never a refusal
that is not due."""

import os
import signal
import threading
import time
from decimal import Decimal

import pytest

from harness import SLOW, Load, wait_until
from ledger import assert_exact, assert_ledger_clean

INPUT, OUTPUT = 500_000, 1_000_500  # nanocredits a token: the harness' prices
TEXT = "abcdef"  # two tokens by chars3
NANO = Decimal(10) ** 9


def credits_of(nano):
    """The command line's decimal text."""
    return format((Decimal(nano) / NANO).normalize(), "f")


def worst_case(max_tokens, text=TEXT):
    return -(-len(text) // 3) * INPUT + max_tokens * OUTPUT


def key_with(gateway, name, nano, *options):
    """A new key with that balance; returns its text."""
    return gateway.make_key(name, "--credits", credits_of(nano), *options)


def show(gateway, name):
    shown = gateway.ctl_json("credit", "show", name)
    return {
        field: None if shown[field] is None else int(Decimal(shown[field]) * NANO)
        for field in ("balance", "available", "reserved")
    }


def wait_settled(gateway, name):
    """Until everything is committed and nothing is reserved; returns the balance."""

    def settled():
        now = show(gateway, name)
        return now["balance"] == now["available"] and now

    return wait_until(settled, 10, "the settlement of everything")["balance"]


def spent(gateway, name):
    return int(Decimal(gateway.usage(key=name)["total"]["cost"]) * NANO)


def overrun(gateway):
    return int(Decimal(gateway.counter("overrun_credits_total")) * NANO)


def ask(gateway, key, text=TEXT, max_tokens=10, **fields):
    return gateway.chat(text, key=key, max_tokens=max_tokens, **fields)


def in_parallel(count, work):
    results = [None] * count

    def run(i):
        results[i] = work(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60 * SLOW)
        assert not thread.is_alive(), "a client hangs"
    return results


def test_a_key_without_credits_has_no_balance(gateway):
    assert show(gateway, "test") == {"balance": None, "available": None, "reserved": None}
    assert gateway.chat("Hello").status == 200


def test_a_request_costs_what_the_provider_counted(gateway):
    key = key_with(gateway, "paying", 10 * worst_case(10))
    answer = ask(gateway, key)
    assert answer.status == 200
    usage = answer.json["usage"]
    cost = usage["prompt_tokens"] * INPUT + usage["completion_tokens"] * OUTPUT
    assert wait_settled(gateway, "paying") == 10 * worst_case(10) - cost


def test_only_as_many_are_admitted_as_the_balance_covers(gateway):
    """Scenario 17: 100 at once, credit for exactly 10 worst cases."""
    slow = TEXT + " [[first_ms:%d]]" % (1500 * SLOW)
    for number in range(3):
        name = f"ten{number}"
        key = key_with(gateway, name, 10 * worst_case(10, slow))
        answers = in_parallel(100, lambda _: ask(gateway, key, slow))
        statuses = [a.status for a in answers]
        assert statuses.count(200) == 10 and statuses.count(402) == 90, statuses
        refusal = next(a for a in answers if a.status == 402)
        assert refusal.error["code"] == "insufficient_credits"
        assert refusal.error["type"] == "insufficient_quota"
        assert credits_of(worst_case(10, slow)) in refusal.error["message"]
        assert refusal.headers["x-should-retry"] == "false"
        assert wait_settled(gateway, name) >= 0
        assert wait_settled(gateway, name) == 10 * worst_case(10, slow) - spent(gateway, name)


def test_what_was_not_used_is_free_at_once(gateway):
    """Scenario 18: the answer is the sign that its rest can be spent again."""
    left = worst_case(4000)
    key = key_with(gateway, "rest", left)
    for _ in range(30):
        # All that is left, to the token.
        answer = ask(gateway, key, max_tokens=(left - 2 * INPUT) // OUTPUT)
        assert answer.status == 200, answer.body
        usage = answer.json["usage"]
        # What the provider had cached costs nothing.
        input_tokens = usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]
        left -= input_tokens * INPUT + usage["completion_tokens"] * OUTPUT
    assert wait_settled(gateway, "rest") == left


def test_parallel_clients_spend_one_balance_to_the_end_and_never_more(gateway, sim):
    """64 clients on one balance until nobody is served any more."""
    total = 400 * worst_case(10)
    key = key_with(gateway, "shared", total)
    served = []

    def client(i):
        count = 0
        while True:
            answer = ask(gateway, key, f"abc{i:03}")
            if answer.status == 402:
                return count
            assert answer.status == 200, answer.body
            served.append(answer.headers["x-request-id"])
            count += 1

    in_parallel(64, client)
    left = wait_settled(gateway, "shared")
    # A refusal is due only if the worst case of one request was not there.
    assert ask(gateway, key).status == (200 if left >= worst_case(10) else 402)
    assert 0 <= wait_settled(gateway, "shared")
    assert spent(gateway, "shared") + show(gateway, "shared")["balance"] == total
    assert overrun(gateway) == 0
    assert_ledger_clean(gateway)


def test_a_cost_above_the_reservation_is_charged_in_full(make_gateway):
    """The provider counts more tokens than were expected: the key owes them until they are paid."""
    gateway = make_gateway(start=False)
    gateway.config["models"][0]["tokenizer"] = "calibrated"
    gateway.write_config()
    gateway.start()
    text = "a" * 300
    counted = gateway.request("POST", "/v1/tokens/count", {
        "model": "GigaChat-2", "messages": [{"role": "user", "content": text}]}).json["tokens"]  # fmt: skip
    expected = (counted + -(-counted // 4)) * INPUT + OUTPUT  # a quarter more is reserved
    key = key_with(gateway, "over", expected)
    answer = ask(gateway, key, text, max_tokens=1)
    assert answer.status == 200
    usage = answer.json["usage"]
    cost = usage["prompt_tokens"] * INPUT + usage["completion_tokens"] * OUTPUT
    assert cost > expected
    assert wait_settled(gateway, "over") == expected - cost
    assert overrun(gateway) == cost - expected
    assert ask(gateway, key, max_tokens=1).status == 402
    gateway.ctl("credit", "add", "over", credits_of(cost - expected + 100 * OUTPUT))
    assert ask(gateway, key, max_tokens=1).status == 200
    assert_ledger_clean(gateway)


def test_a_payment_counts_once_and_at_once(gateway):
    key = key_with(gateway, "poor", 0)
    assert ask(gateway, key).status == 402
    paid = gateway.ctl_json("credit", "add", "poor", "5", "--operation", "invoice-1", "--note", "May")
    again = gateway.ctl_json("credit", "add", "poor", "5", "--operation", "invoice-1", "--note", "May")
    assert paid["id"] == again["id"] and again["balance"] == "5"
    assert ask(gateway, key).status == 200
    other = gateway.ctl("credit", "add", "poor", "6", "--operation", "invoice-1", check=False)
    assert other.returncode == 1 and "invoice-1" in other.stderr
    wait_settled(gateway, "poor")
    history = gateway.ctl_json("credit", "history", "poor")["entries"]
    assert {e["kind"] for e in history} == {"add", "usage"}
    total = sum(int(Decimal(e["amount"]) * NANO) for e in history)
    assert total == show(gateway, "poor")["balance"]


def test_a_first_payment_turns_the_balance_on_while_requests_run(gateway):
    """From unlimited to prepaid under load: what runs is charged once, wherever it stands."""
    key = gateway.make_key("later")
    text = "[[words:20]] [[chunk_ms:5]]"
    with Load(gateway, clients=8, text=text, key=key) as load:
        wait_until(lambda: len(load.delivered) > 10, 20, "some requests")
        gateway.ctl("credit", "add", "later", "1000")
        seen = len(load.delivered)
        wait_until(lambda: len(load.delivered) > seen + 30, 20, "more requests")
    assert load.failed == []
    wait_settled(gateway, "later")
    assert_ledger_clean(gateway)


def test_a_spending_limit_holds_and_says_when_it_begins_anew(gateway):
    key = gateway.make_key("daily", "--spend-day", credits_of(3 * worst_case(10)))
    statuses = []
    while 402 not in statuses and len(statuses) < 50:
        answer = ask(gateway, key)
        statuses.append(answer.status)
    assert statuses[-1] == 402 and statuses.count(200) >= 3
    assert "spending limit of this day" in answer.error["message"]
    assert "T00:00:00.000Z" in answer.error["message"]
    wait_until(lambda: spent(gateway, "daily") > 0, 10, "the commit")
    assert spent(gateway, "daily") <= 3 * worst_case(10)
    # More may be spent today: at once.
    gateway.ctl("key", "update", "daily", "--spend-day", "100")
    assert ask(gateway, key).status == 200


@pytest.mark.parametrize("role", ["worker", "usage-writer"])
def test_balances_are_exact_after_kills(make_gateway, sim, role):
    gateway = make_gateway()
    key = key_with(gateway, "busy", 100_000 * worst_case(50))
    text = "[[words:20]] [[chunk_ms:5]] [[first_ms:5]]"
    with Load(gateway, clients=12, stream_share=0.5, text=text, key=key) as load:
        for _ in range(3):
            seen = len(load.delivered)
            wait_until(lambda: len(load.delivered) >= seen + 20, 20, "progress of the load")
            pid = gateway.pid(role)
            os.kill(pid, signal.SIGKILL)
            wait_until(
                lambda old=pid: old not in [p["pid"] for p in gateway.processes(role)]
                and gateway.processes(role),
                10,
                f"another {role}",
            )
    if role != "worker":
        assert load.failed == []
    balance = wait_settled(gateway, "busy")
    assert balance == 100_000 * worst_case(50) - spent(gateway, "busy")
    assert_ledger_clean(gateway)
    assert gateway.stop() == 0
    assert_exact(gateway, sim, load.delivered)


def test_balances_survive_the_end_of_everything(make_gateway, sim):
    gateway = make_gateway()
    key = key_with(gateway, "busy", 100_000 * worst_case(50))
    with Load(gateway, clients=8, text="[[words:20]] [[chunk_ms:5]]", key=key) as load:
        wait_until(lambda: len(load.delivered) >= 30, 20, "some requests")
        gateway.kill_all()
    gateway.start()
    balance = wait_settled(gateway, "busy")
    assert balance == 100_000 * worst_case(50) - spent(gateway, "busy")
    assert ask(gateway, key).status == 200
    assert_ledger_clean(gateway)
    assert gateway.stop() == 0
    assert_exact(gateway, sim, load.delivered)
