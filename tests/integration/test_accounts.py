"""Several accounts at one provider: slots of each, and the next one when one is refused or limited."""

import base64
import json
import subprocess
import threading

import pytest

from harness import BUILD, CREDENTIALS, Sim

CLIENTS = 3


def secret_of(number):
    return base64.b64encode(f"client-{number}:secret-{number}".encode()).decode()


@pytest.fixture
def sim(directory):
    """A provider with clients that may have one request each."""
    simulator = Sim(directory, first_token_ms=30, clients=[
        {"id": "demo-client", "secret": "demo-secret", "scopes": ["GIGACHAT_API_PERS"], "max_concurrent": 1}, *(
            {"id": f"client-{i}", "secret": f"secret-{i}", "scopes": ["GIGACHAT_API_PERS"], "max_concurrent": 1}
            for i in range(1, CLIENTS))]).start()  # fmt: skip
    yield simulator
    simulator.stop()


@pytest.fixture
def pool(make_gateway):
    """A gateway with these authorization keys, the first of them the provider's own."""

    def make(secrets, max_concurrent=1, **arguments):
        gateway = make_gateway(start=False, provider={"max_concurrent": max_concurrent}, **arguments)
        provider = gateway.config["providers"][0]
        provider["accounts"] = []
        for i, secret in enumerate(secrets):
            (gateway.directory / f"credentials-{i}").write_text(secret)
            if i == 0:
                provider["credentials"] = "file:credentials-0"
            else:
                provider["accounts"].append({"credentials": f"file:credentials-{i}"})
        gateway.write_config()
        return gateway.start()

    return make


def all_secrets():
    return [CREDENTIALS, *(secret_of(i) for i in range(1, CLIENTS))]


def listed(gateway):
    (row,) = gateway.ctl_json("provider", "list")["providers"]
    return row


def tokens_used(sim):
    """The access tokens of the chats, in order; each is one account's."""
    return [r["headers"]["authorization"] for r in sim.stats()["last_requests"] if "/chat/" in r["line"]]


def test_each_account_has_slots_of_its_own(pool, sim):
    gateway = pool(all_secrets())
    statuses = []

    def client():
        for stream in (False, True, False):
            answer = gateway.stream("Hello") if stream else gateway.chat("Hello")
            if stream:
                list(answer.events())
            statuses.append(answer.status)

    threads = [threading.Thread(target=client) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 30
    assert {line["status"] for line in sim.log()} == {200}  # no 429 ever left the provider
    assert sim.stats()["max_in_flight"] == CLIENTS
    row = listed(gateway)
    assert (row["slots"], row["accounts"], row["accounts_resting"]) == (CLIENTS, CLIENTS, 0)


def test_a_key_stays_with_one_account_and_many_keys_share_all(pool, sim):
    gateway = pool(all_secrets(), max_concurrent=10000)
    for _ in range(4):
        assert gateway.chat("Hello").status == 200
    assert len(set(tokens_used(sim))) == 1
    for i in range(20):
        assert gateway.chat("Hello", key=gateway.make_key(f"key-{i}")).status == 200
    assert len(set(tokens_used(sim))) == CLIENTS


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("scenario", ["status:429", "status:402", "status:403", "retry_after:20"])
def test_a_limited_account_is_left_for_another_one_at_once(pool, sim, scenario, stream):
    gateway = pool(all_secrets()[:2], max_concurrent=10000, options={"retry": {"backoff_ms": 5000}})
    sim.script({"scenario": scenario, "times": 1})
    answer = gateway.stream("Hello") if stream else gateway.chat("Hello")
    if stream:
        assert list(answer.events())[-1] == "[DONE]"
    assert answer.status == 200 and answer.headers["x-xrouter-attempts"] == "2"
    assert len(set(tokens_used(sim))) == 2
    row = listed(gateway)
    assert row["accounts_resting"] == 1
    # It is no failure of the provider's, which goes on with what it has.
    assert all(m["breaker"] == "closed" and m["left_alone_ms"] == 0 for m in row["models"])
    for _ in range(3):
        assert gateway.chat("Hello").status == 200
    assert tokens_used(sim)[1:] == [tokens_used(sim)[1]] * 4
    gateway.wait_usage(4)
    assert gateway.stop() == 0
    assert sorted(line["status"] for line in gateway.rows("usage_attempts")) == [200] * 4 + [
        {"retry_after:20": 429}.get(scenario) or int(scenario.rsplit(":")[-1])]  # fmt: skip


def test_an_account_with_wrong_secrets_costs_no_request(pool, sim):
    wrong = base64.b64encode(b"client-1:not-it").decode()
    gateway = pool([wrong, CREDENTIALS], max_concurrent=10000)
    for i in range(12):
        answer = gateway.chat("Hello", key=gateway.make_key(f"key-{i}"))
        assert answer.status == 200, answer.body
    assert sum(line["status"] != 200 for line in sim.log()) == 0
    warnings = [line for line in gateway.error_log() if line["event"] == "account_rests"]
    assert len(warnings) == 1 and "account 0 of gigachat" in warnings[0]["message"]
    assert "not-it" not in json.dumps(gateway.error_log()) and wrong not in gateway.logs()
    assert listed(gateway)["accounts_resting"] == 1


def test_when_no_account_is_left_the_client_is_told_why(pool, sim):
    wrong = [base64.b64encode(f"client-{i}:not-it".encode()).decode() for i in (1, 2)]
    gateway = pool(wrong, max_concurrent=10000)
    for _ in range(2):
        answer = gateway.chat("Hello")
        assert answer.status == 502 and answer.error["code"] == "upstream_auth_failed"
    assert listed(gateway)["accounts_resting"] == 1  # one is always asked


def test_an_account_added_by_a_reload_takes_requests(pool, sim):
    gateway = pool([CREDENTIALS])
    assert gateway.chat("Hello").status == 200
    (gateway.directory / "more").write_text(secret_of(1))
    gateway.config["providers"][0]["accounts"] = [{"credentials": "file:more"}]
    gateway.write_config()
    gateway.ctl("reload")
    for i in range(8):
        assert gateway.chat("Hello", key=gateway.make_key(f"key-{i}")).status == 200
    assert len(set(tokens_used(sim))) == 2


def test_secrets_of_accounts_are_not_shown(pool):
    gateway = pool(all_secrets())
    shown = subprocess.run([BUILD / "xrouter", "-T", "-c", gateway.file], capture_output=True, check=True,
                           text=True, cwd=gateway.directory, env=gateway.env).stdout  # fmt: skip
    assert shown.count('"***"') == CLIENTS
    for secret in all_secrets():
        assert secret not in shown
