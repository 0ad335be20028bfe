"""xrouterctl provider: a provider that an operator switches off gets no new requests."""

import os
import signal
import threading

import pytest

from harness import SLOW, Sim, wait_until


@pytest.fixture
def second(directory):
    """Another provider, a simulator of its own."""
    path = directory / "second"
    path.mkdir()
    simulator = Sim(path).start()
    yield simulator
    simulator.stop()


def provider(sim, name, **fields):
    return dict({
        "name": name, "type": "gigachat", "base_url": sim.url, "auth_url": sim.url + "/api/v2/oauth",
        "credentials": "file:credentials", "max_concurrent": 4, "connect_ms": int(5000 * SLOW)},
        **fields)  # fmt: skip


@pytest.fixture
def pair(make_gateway, sim, second):
    """A gateway whose models are served by "first", then by "second"."""
    gateway = make_gateway(start=False)
    gateway.config["providers"] = [provider(sim, "first"), provider(second, "second", max_concurrent=2000)]
    for model in gateway.config["models"]:
        name = model["candidates"][0]["model"]
        model["candidates"] = [{"provider": "first", "model": name}, {"provider": "second", "model": name, "priority": 1}]
    gateway.write_config()
    return gateway.start()


def row(gateway, name):
    listed = gateway.ctl_json("provider", "list")["providers"]
    return next(p for p in listed if p["name"] == name)


def served_by(gateway):
    answer = gateway.chat("[[words:2]]")
    return answer.headers["x-xrouter-provider"] if answer.status == 200 else answer.error["code"]


def test_list_shows_switch_slots_and_breakers(pair):
    first = row(pair, "first")
    assert (first["switch"], first["configured"], first["slots"], first["slots_taken"]) == ("enabled", True, 4, 0)
    assert (first["waiting"], first["in_flight"]) == (0, 0)
    model = next(m for m in first["models"] if m["model"] == "GigaChat-2")
    assert (model["breaker"], model["left_alone_ms"]) == ("closed", 0)
    assert row(pair, "second")["slots"] is None  # so many are no limit
    text = pair.ctl("provider", "list").stdout
    assert "PROVIDER" in text.splitlines()[0] and "GigaChat-2-Max" in text


@pytest.mark.parametrize("verb,shown", [("disable", "disabled"), ("drain", "drained")])
def test_switched_off_gets_nothing_until_it_is_enabled(pair, verb, shown):
    assert served_by(pair) == "first"
    pair.ctl("provider", verb, "first")
    assert row(pair, "first")["switch"] == shown
    assert {served_by(pair) for _ in range(8)} == {"second"}  # in every worker
    pair.ctl("provider", "enable", "first")
    assert row(pair, "first")["switch"] == "enabled"
    assert served_by(pair) == "first"


def test_what_runs_goes_on_while_its_provider_drains(pair):
    stream = pair.stream("[[words:6]] [[chunk_ms:300]]")
    assert stream.headers["x-xrouter-provider"] == "first"
    result = pair.ctl_json("provider", "drain", "first")
    assert result == {"provider": "first", "switch": "draining", "in_flight": 1}
    shown = row(pair, "first")
    assert (shown["switch"], shown["in_flight"], shown["slots_taken"]) == ("draining", 1, 1)
    assert served_by(pair) == "second"
    assert list(stream.events())[-1] == "[DONE]"
    wait_until(lambda: row(pair, "first")["switch"] == "drained", 10, "the end of the drain")


def test_who_waits_for_a_slot_goes_elsewhere(make_gateway, sim, second):
    gateway = make_gateway(start=False, workers=1)
    gateway.config["providers"] = [provider(sim, "first", max_concurrent=1), provider(second, "second", max_concurrent=1)]
    gateway.config["models"] = gateway.config["models"][:1]
    model = gateway.config["models"][0]
    model["candidates"] = [{"provider": name, "model": "GigaChat-2", "priority": i}
                           for i, name in enumerate(("first", "second"))]  # fmt: skip
    gateway.write_config()
    gateway.start()
    running = [gateway.stream("[[words:5]] [[chunk_ms:300]]") for _ in range(2)]
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(gateway.chat("[[words:2]]")))
    waiting.start()
    wait_until(lambda: row(gateway, "first")["waiting"] == 1, 10, "somebody in the queue")
    gateway.ctl("provider", "drain", "first")
    for stream in running:
        assert list(stream.events())[-1] == "[DONE]"
    waiting.join()
    assert (answers[0].status, answers[0].headers["x-xrouter-provider"]) == (200, "second")
    wait_until(lambda: row(gateway, "first")["switch"] == "drained", 10, "the end of the drain")


def test_with_all_switched_off_requests_are_refused(gateway):
    gateway.ctl("provider", "disable", "gigachat")
    answer = gateway.chat()
    assert (answer.status, answer.error["code"]) == (503, "no_provider")
    assert "switched off" in answer.error["message"]
    assert "retry-after" in answer.headers


def test_switch_outlives_workers_and_a_reload(pair):
    pair.ctl("provider", "disable", "first")
    pair.ctl("reload")
    before = {worker["pid"] for worker in pair.processes("worker")}
    for pid in before:
        os.kill(pid, signal.SIGKILL)

    def are_new():
        ready = {w["pid"] for w in pair.processes("worker") if w["state"] == "ready"}
        return len(ready) == 2 and not ready & before

    wait_until(are_new, 20, "new workers")
    assert row(pair, "first")["switch"] == "disabled"
    assert {served_by(pair) for _ in range(4)} == {"second"}


def test_list_needs_no_master_and_orders_do(pair):
    pair.ctl("provider", "disable", "second")
    os.kill(pair.process.pid, signal.SIGSTOP)
    try:
        assert row(pair, "second")["switch"] == "disabled"
    finally:
        os.kill(pair.process.pid, signal.SIGCONT)
    pair.stop()
    for verb in (["list"], ["enable", "first"]):
        result = pair.ctl("provider", *verb, check=False)
        assert (result.returncode, "not running" in result.stderr) == (3, True)


def test_unknown_provider_is_refused_with_the_nearest_name(pair):
    result = pair.ctl("provider", "disable", "secnd", check=False)
    assert result.returncode == 1
    assert 'there is no provider "secnd"; did you mean "second"?' in result.stderr
    assert row(pair, "second")["switch"] == "enabled"
    result = pair.ctl("provider", "disable", check=False)
    assert result.returncode == 2


def test_each_switch_is_logged(pair):
    pair.ctl("provider", "drain", "first")
    lines = wait_until(
        lambda: [line for line in pair.error_log() if line.get("event") == "provider_switched"], 10, "its line"
    )
    assert len(lines) == 1 and "first" in lines[0]["message"] and "draining" in lines[0]["message"]
