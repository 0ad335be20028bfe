"""What providers say of themselves: models that they have, tokens that accounts have left."""

import time

import pytest

from harness import Sim, wait_until
from upstreams import provider

FACTS_MS = 300


@pytest.fixture
def sim(directory):
    """One client has prepaid tokens, the other pays afterwards."""
    simulator = Sim(directory, clients=[
        {"id": "demo-client", "secret": "demo-secret", "scopes": ["GIGACHAT_API_PERS"], "max_concurrent": 1,
         "balance": {"GigaChat-2": 50000, "GigaChat-2-Pro": 7}},
        {"id": "client-1", "secret": "secret-1", "scopes": ["GIGACHAT_API_PERS"], "max_concurrent": 1}]).start()  # fmt: skip
    yield simulator
    simulator.stop()


def listed(gateway, name="gigachat"):
    return next(p for p in gateway.ctl_json("provider", "list")["providers"] if p["name"] == name)


def asked(sim, path):
    return sum(sim.stats()["requests"].get(path, {}).values())


def test_models_and_balance_are_known_and_kept_up_to_date(make_gateway, sim):
    gateway = make_gateway(provider={"facts_ms": FACTS_MS, "max_concurrent": 1}, workers=3)
    row = wait_until(lambda: (r := listed(gateway))["models_offered"] is not None and r, what="the list of models")
    assert row["models_offered"] == 3
    assert {m["model"]: m["offered"] for m in row["models"]} == {
        "GigaChat-2": True, "GigaChat-2-Pro": True, "GigaChat-2-Max": True, "sim-auth_always": False}  # fmt: skip
    assert [(b["account"], b["model"], b["tokens"]) for b in row["balances"]] == [
        (0, "GigaChat-2", 50000), (0, "GigaChat-2-Pro", 7)]  # fmt: skip
    warned = [line["message"] for line in gateway.error_log() if line["event"] == "model_not_offered"]
    assert warned == ["gigachat does not list the model sim-auth_always"]
    used = gateway.chat("Hello").json["usage"]["total_tokens"]
    wait_until(lambda: listed(gateway)["balances"][0]["tokens"] == 50000 - used, what="the new balance")
    metrics = gateway.ops("/metrics").body.decode()
    assert f'xrouter_provider_balance_tokens{{provider="gigachat",account="0",model="GigaChat-2"}} {50000 - used}\n' in metrics
    assert 'xrouter_provider_models_offered{provider="gigachat"} 3\n' in metrics
    # Three workers ask no oftener than one.
    before, begun = asked(sim, "/v1/models"), time.monotonic()
    wait_until(lambda: asked(sim, "/v1/models") >= before + 2, what="two more questions")
    assert asked(sim, "/v1/models") - before <= (time.monotonic() - begun) * 1000 / FACTS_MS + 1
    # Told once, not each time.
    assert len([line for line in gateway.error_log() if line["event"] == "model_not_offered"]) == 1
    shown = gateway.ctl("provider", "list").stdout
    assert "TOKENS LEFT" in shown and "GigaChat-2-Pro" in shown


def test_each_account_tells_its_own_balance(make_gateway, sim):
    gateway = make_gateway(start=False, provider={"facts_ms": FACTS_MS, "max_concurrent": 1})
    (gateway.directory / "more").write_text("Y2xpZW50LTE6c2VjcmV0LTE=")
    gateway.config["providers"][0]["accounts"] = [{"credentials": "file:more"}]
    gateway.write_config()
    gateway.start()
    wait_until(lambda: asked(sim, "/v1/balance") >= 4, what="both accounts' answers")
    row = listed(gateway)
    assert {b["account"] for b in row["balances"]} == {0}  # the other pays afterwards: 403
    assert not [line for line in gateway.error_log() if line["event"] == "inquiry_failed"]


def test_a_switched_off_provider_is_not_asked(make_gateway, sim):
    gateway = make_gateway(provider={"facts_ms": FACTS_MS})
    wait_until(lambda: asked(sim, "/v1/models") > 0, what="a question")
    gateway.ctl("provider", "disable", "gigachat")
    before = asked(sim, "/v1/models") + 1  # one may be under way
    gateway.ctl("provider", "list")
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() - begun > 5 * FACTS_MS / 1000, what="five turns")
    assert asked(sim, "/v1/models") <= before
    gateway.ctl("provider", "enable", "gigachat")
    wait_until(lambda: asked(sim, "/v1/models") > before, what="a question")


def test_a_failure_is_told_and_the_old_answer_stays(make_gateway, sim):
    gateway = make_gateway(provider={"facts_ms": FACTS_MS})
    wait_until(lambda: listed(gateway)["models_offered"] == 3, what="the list of models")
    sim.script({"scenario": "status:500", "times": 1, "path": "/v1/models"})
    wait_until(lambda: [line for line in gateway.error_log() if line["event"] == "inquiry_failed"], what="the log line")
    assert listed(gateway)["models_offered"] == 3
    assert gateway.chat("Hello").status == 200


@pytest.mark.parametrize("type", ["openai", "anthropic"])
def test_other_dialects_tell_their_models(make_gateway, sim, type):
    gateway = make_gateway(start=False)
    gateway.config["providers"].append(
        provider(sim, "other", type=type, base_url=sim.url + ("/openai/v1" if type == "openai" else "/anthropic"),
                 credentials="file:key", facts_ms=FACTS_MS))  # fmt: skip
    gateway.config["providers"][-1].pop("auth_url")
    (gateway.directory / "key").write_text("sk-sim")
    gateway.write_config()
    gateway.start()
    wait_until(lambda: listed(gateway, "other")["models_offered"] == 3, what="the list of models")
    assert listed(gateway, "other")["balances"] == []


def test_a_gateway_stops_while_it_asks(make_gateway, sim):
    sim.script({"scenario": "slow_headers:60000", "times": -1, "path": "/v1/balance"})
    gateway = make_gateway(provider={"facts_ms": FACTS_MS, "max_concurrent": 1})
    wait_until(lambda: sim.stats()["connections_open"] > 1, what="the question")
    begun = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - begun < 5
