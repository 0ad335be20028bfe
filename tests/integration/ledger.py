"""Ledger equality: what the provider says it sent is what the ledger holds."""

import os

# Rounds of the kill tests: `make crash` asks for many.
ROUNDS = int(os.environ.get("XROUTER_CRASH_ROUNDS", "0"))
# A cut request is billed bytes / 4 for its prompt: the tests' prompts are short.
PROMPT_ESTIMATE_MAX = 64


def rounds(short):
    """How often to kill: a short form by default."""
    return max(ROUNDS, short)


def row_id(row):
    """The request id that the client and the provider saw."""
    return "req_" + row["id"].hex()


def assert_exact(gateway, sim, delivered, asked=None):
    """Judges a stopped gateway's ledger against the provider's journal.

    Each delivered answer has exactly one row with the provider's numbers; a row that was cut has no
    more than the provider counted; no row is there without a request; sums are the rows' sums.
    """
    rows = {row_id(row): row for row in gateway.rows()}
    journal = {}
    for entry in sim.log():
        journal.setdefault(entry["request_id"], []).append(entry)
    whole = set(delivered)
    assert len(whole) == len(delivered), "a request id was given twice"

    missing = [i for i in delivered if i not in rows]
    assert not missing, f"{len(missing)} of {len(delivered)} delivered answers have no row"
    for request_id in delivered:
        row, told = rows[request_id], journal[request_id][-1]
        assert (row["tokens_input"], row["tokens_output"], row["tokens_cached"]) == (
            told["prompt_tokens"], told["completion_tokens"], told["precached_prompt_tokens"],
        ), f"{request_id}: {row} is not {told}"  # fmt: skip
        assert row["http_status"] == 200 and row["outcome"] == 0 and row["error"] is None

    for request_id, row in rows.items():
        billed = row["tokens_input"] + row["tokens_output"] + row["cost"]
        if request_id not in journal:
            assert billed == 0, f"{request_id} was billed but never sent"
        elif request_id not in whole:
            told = journal[request_id][-1]
            assert row["tokens_output"] <= told["completion_tokens"]
            assert row["tokens_input"] <= max(told["prompt_tokens"], PROMPT_ESTIMATE_MAX)
        cached = row["tokens_cached"]
        assert row["cost"] == half_up(
            (row["tokens_input"] - cached) * row["price_input"]
            + cached * row["price_cached_input"]
            + row["tokens_output"] * row["price_output"]
        ), f"{request_id}: {row}"  # fmt: skip
    if asked is not None:
        assert len(rows) <= asked, f"{len(rows)} rows for {asked} requests"

    attempts = {}
    for attempt in gateway.rows("usage_attempts"):
        attempts[attempt["usage_id"].hex()] = attempts.get(attempt["usage_id"].hex(), 0) + 1
    assert set(attempts) <= {row["id"].hex() for row in rows.values()}
    sums = gateway.rows("usage_hourly")
    for column in ("tokens_input", "tokens_cached", "tokens_output", "cost"):
        assert sum(s[column] for s in sums) == sum(r[column] for r in rows.values()), column
    assert sum(s["requests"] for s in sums) == len(rows)


def half_up(micro):
    return (micro + 500_000) // 1_000_000


def assert_ledger_clean(gateway):
    """`ledger verify` of a running gateway finds no drift, and balances are their history's sums."""
    gateway.ctl("ledger", "verify")
