"""A new configuration for a running instance; a bad one changes nothing."""

import copy
import json
import os
import signal
import ssl
import subprocess

import pytest

from harness import BUILD, Load, wait_until


def edit(change):
    """A bad file: the good configuration after a change."""

    def make(gateway):
        config = copy.deepcopy(gateway.config)
        change(config)
        return json.dumps(config, indent=1).encode()

    return make


def raw(data):
    return lambda gateway: data


def put(path, value):
    """A bad file: one option with another value."""
    *way, last = path.split(".")

    def change(config):
        at = config
        for name in way:
            at = at[int(name)] if isinstance(at, list) else at.setdefault(name, {})
        at[int(last) if isinstance(at, list) else last] = value

    return edit(change)


def write_pem(gateway, name, text):
    (gateway.directory / name).write_text(text)
    return name


def broken_certificate(gateway):
    config = copy.deepcopy(gateway.config)
    config["listen"]["https"] = "127.0.0.1:0"
    config["listen"]["tls"] = {
        "cert": write_pem(gateway, "broken.pem", "-----BEGIN CERTIFICATE-----\nnothing\n"),
        "key": write_pem(gateway, "broken.key", "-----BEGIN PRIVATE KEY-----\nnothing\n"),
    }
    return json.dumps(config).encode()


def open_literal_secret(gateway):
    os.chmod(gateway.file, 0o644)
    return put("providers.0.credentials", "bGl0ZXJhbDpzZWNyZXQ=")(gateway)


# What is wrong, and what the error has to name.
BAD = {
    "empty file": (raw(b""), "xrouter.json"),
    "only spaces": (raw(b" \n\n "), "xrouter.json"),
    "no object": (raw(b"[1,2]"), "xrouter.json"),
    "cut in the middle": (lambda g: json.dumps(g.config).encode()[:200], "xrouter.json:1:"),
    "a comma too many": (raw(b'{\n "workers": 1,\n}'), "xrouter.json:3:"),
    "text behind the end": (raw(b'{"workers":1} x'), "xrouter.json:1:"),
    "single quotes": (raw(b"{'workers':1}"), "xrouter.json:1:"),
    "open comment": (raw(b'{"workers":1 /* and'), "xrouter.json:1:"),
    "not UTF-8": (raw(b'{"state_dir":"\xff\xfe"}'), "xrouter.json:1:"),
    "NUL inside": (raw(b'{"state_dir":"a\0b"}'), "xrouter.json:1:"),
    "5,000 deep": (raw(b"[" * 5000), "xrouter.json:1:"),
    "100 MB": (raw(None), "xrouter.json"),
    "the same option twice": (raw(b'{"workers":1,\n"workers":2}'), "workers"),
    "unknown section": (put("listne", {}), "listne"),
    "unknown option": (put("listen.htpp", "127.0.0.1:1"), "did you mean \"http\""),
    "unknown option of a provider": (put("providers.0.base_ulr", "http://x"), "providers[0].base_ulr"),
    "a text for a number": (put("workers", "two"), "workers"),
    "a number for a text": (put("log.level", 3), "log.level"),
    "a fraction": (put("workers", 1.5), "workers"),
    "negative": (put("workers", -1), "workers"),
    "out of range": (put("workers", 100000), "workers"),
    "beyond 64 bits": (put("limits.body_bytes", 10**30), "limits.body_bytes"),
    "a word that is none": (put("log.level", "loud"), "log.level"),
    "an array for an object": (put("listen", []), "listen"),
    "an object for an array": (put("models", {}), "models"),
    "null": (put("state_dir", None), "state_dir"),
    "bad address": (put("listen.http", "127.0.0.1:99999"), "listen.http"),
    "address without a port": (put("listen.http", "localhost"), "listen.http"),
    "HTTPS without a certificate": (put("listen.https", "127.0.0.1:0"), "listen.tls"),
    "broken certificate": (broken_certificate, "listen.tls"),
    "bad URL": (put("providers.0.base_url", "ftp://example.org"), "providers[0].base_url"),
    "URL without a host": (put("providers.0.base_url", "http://"), "providers[0].base_url"),
    "missing credentials file": (put("providers.0.credentials", "file:nowhere"), "providers[0].credentials"),
    "missing variable": (put("providers.0.credentials", "env:XROUTER_NO_SUCH"), "providers[0].credentials"),
    "a secret that others can read": (open_literal_secret, "providers[0].credentials"),
    "unknown adapter": (put("providers.0.type", "clippy"), "providers[0].type"),
    "provider without a name": (edit(lambda c: c["providers"][0].pop("name")), "providers[0]: \"name\" is missing"),
    "two providers of one name": (edit(lambda c: c["providers"].append(c["providers"][0])), "providers[1].name"),
    "model without an id": (edit(lambda c: c["models"][0].pop("id")), "models[0]: \"id\" is missing"),
    "two models of one id": (edit(lambda c: c["models"].append(c["models"][0])), "models["),
    "an alias that is a model": (put("models.0.aliases", ["gigachat/GigaChat-2-Max"]), "models["),
    "unknown provider": (put("models.0.candidates.0.provider", "nobody"), "models[0].candidates[0].provider"),
    "model without candidates": (put("models.0.candidates", []), "models[0].candidates"),
    "unknown tokenizer": (put("models.0.tokenizer", "guess"), "models[0].tokenizer"),
    "price with too many places": (put("models.0.prices.0.input", "1.0123456789"), "models[0].prices[0].input"),
    "price as a number": (put("models.0.prices.0.input", 500), "models[0].prices[0].input"),
    "negative price": (put("models.0.prices.0.input", "-1"), "models[0].prices[0].input"),
    "bad date": (put("models.0.prices.0.from", "2026-02-31"), "models[0].prices[0].from"),
    "unknown limit of a tier": (put("limits.tiers", {"free": {"rpx": 1}}), "limits.tiers.free.rpx"),
}  # fmt: skip


def spoil(gateway, name):
    """Writes the bad file; returns what the error must name."""
    make, named = BAD[name]
    data = make(gateway)
    os.chmod(gateway.file, 0o600)
    if name == "a secret that others can read":
        os.chmod(gateway.file, 0o644)
    with open(gateway.file, "wb") as f:
        if data is None:
            f.truncate(100 << 20)
        else:
            f.write(data)
    return named


def check(gateway):
    return subprocess.run(
        [BUILD / "xrouter", "-t", "-c", gateway.file],
        capture_output=True, text=True, timeout=30, cwd=gateway.directory, env=gateway.env,
    )  # fmt: skip


def test_check_names_what_is_wrong(make_gateway):
    """Scenario 11: xrouter -t."""
    gateway = make_gateway(start=False)
    good = check(gateway)
    assert good.returncode == 0 and "valid" in good.stdout and good.stderr == ""
    wrong = []
    for name in BAD:
        named = spoil(gateway, name)
        result = check(gateway)
        if result.returncode != 1 or named not in result.stderr or result.stdout:
            wrong.append((name, result.returncode, result.stderr[:300]))
        assert "xrouter.json" in result.stderr, name
    assert wrong == []
    # And nothing starts with it.
    gateway.start(wait=False)
    assert gateway.process.wait(10) == 1
    gateway.process = None


def failures(gateway):
    return gateway.counter("reload_failures_total")


def test_bad_files_change_nothing(make_gateway):
    """Scenario 11: HUP, with requests going on."""
    gateway = make_gateway()
    good = gateway.file.read_bytes()
    pids = [p["pid"] for p in gateway.processes()]
    wrong = []
    with Load(gateway, clients=2, text="[[words:5]] [[first_ms:5]]") as load:
        for number, name in enumerate(BAD):
            named = spoil(gateway, name)
            gateway.send_signal(signal.SIGHUP)
            # The file must be good for xrouterctl: look at the log instead.
            wait_until(lambda n=number: len(refusals(gateway)) == n + 1, 10, f"refusal of {name}")
            message = refusals(gateway)[-1]["message"]
            if named not in message:
                wrong.append((name, message))
    gateway.file.write_bytes(good)
    os.chmod(gateway.file, 0o600)
    assert wrong == []
    assert load.failed == [] and len(load.delivered) > 20
    assert failures(gateway) == len(BAD) and gateway.counter("reloads_total") == 0
    assert [p["pid"] for p in gateway.processes()] == pids
    assert gateway.chat().status == 200
    assert gateway.stop() == 0


def refusals(gateway):
    return [line for line in gateway.error_log() if line["event"] == "reload_refused"]


def reloads(gateway):
    return gateway.counter("reloads_total")


def reload(gateway):
    """By signal; returns when every worker has had the time to take it over."""
    before = reloads(gateway)
    gateway.write_config()
    gateway.send_signal(signal.SIGHUP)
    wait_until(lambda: reloads(gateway) == before + 1, what="the reload")


def test_new_model_and_price_count_without_a_restart(make_gateway, sim):
    gateway = make_gateway()
    pids = [p["pid"] for p in gateway.processes()]
    assert gateway.chat(model="fresh").status == 404
    stream = gateway.stream("[[words:20]] [[chunk_ms:20]]")
    events = stream.events()
    next(events)
    model = copy.deepcopy(gateway.config["models"][1])
    model.update(id="new/model", aliases=["fresh"], prices=[{"request": "7"}])
    gateway.config["models"].append(model)
    gateway.config["models"][0]["prices"] = [{"input": "1000000", "output": "0"}]
    reload(gateway)
    wait_until(lambda: gateway.chat(model="fresh").status == 200, what="the new model")
    wait_until(
        lambda: all(gateway.chat(model="new/model").status == 200 for _ in range(8)),
        what="the new model in every worker",
    )
    assert "new/model" in [m["id"] for m in gateway.request("GET", "/v1/models").json["data"]]
    # What was running goes on, with the prices it began with.
    assert list(events)[-1] == "[DONE]"
    priced = gateway.chat()
    assert [p["pid"] for p in gateway.processes()] == pids
    assert gateway.stop() == 0
    rows = {"req_" + row["id"].hex(): row for row in gateway.rows()}
    assert rows[stream.headers["x-request-id"]]["price_input"] == 500 * 10**9
    row = rows[priced.headers["x-request-id"]]
    assert row["cost"] == row["tokens_input"] * 10**9
    assert {row["cost"] for row in rows.values() if row["model"] == "new/model"} == {7 * 10**9}


def test_a_removed_model_is_gone(make_gateway):
    gateway = make_gateway()
    assert gateway.chat(model="GigaChat-2-Max").status == 200
    gateway.config["models"] = gateway.config["models"][:1]
    reload(gateway)
    wait_until(
        lambda: all(gateway.chat(model="GigaChat-2-Max").status == 404 for _ in range(8)),
        what="the end of the model",
    )
    assert gateway.chat().status == 200


def test_log_level_changes(make_gateway):
    gateway = make_gateway()
    assert not any(line["level"] == "debug" for line in gateway.error_log())
    gateway.config["log"]["level"] = "error"
    reload(gateway)
    gateway.make_key("silent")  # would be an info line
    gateway.config["log"]["level"] = "info"
    reload(gateway)
    gateway.make_key("loud")
    wait_until(
        lambda: sum(line["event"] == "key_created" for line in gateway.error_log()) == 2,
        what="the line of the second key",
    )
    assert [l["event"] for l in gateway.error_log()].count("key_created") == 2  # test and loud


def test_ctl_reload_tells_the_verdict(make_gateway):
    gateway = make_gateway()
    assert gateway.ctl("reload").stdout == "reloaded\n"
    assert gateway.ctl_json("reload") == {"generation": 3, "restart_needed": ""}
    gateway.config["workers"] = 1
    gateway.config["listen"]["http"] = "127.0.0.1:1"
    gateway.config.setdefault("limits", {})["in_flight"] = 100
    gateway.config["timeouts"] = {"stop_timeout_ms": 1234}
    gateway.write_config()
    told = gateway.ctl_json("reload")
    assert sorted(told["restart_needed"].split(", ")) == ["limits.in_flight", "listen.http", "workers"]
    text = gateway.ctl("reload").stdout
    assert text.startswith("reloaded; these count only after a restart: ") and "workers" in text
    assert len(gateway.processes("worker")) == 2 and gateway.chat().status == 200
    # xrouterctl reads the file, too, as far as it must: the error is one that only loading finds.
    gateway.config["providers"][0]["credentials"] = "file:nowhere"
    gateway.write_config()
    refused = gateway.ctl("reload", check=False)
    assert refused.returncode == 1
    assert "providers[0].credentials" in refused.stderr and refused.stdout == ""
    assert gateway.chat().status == 200


def peer_certificate(gateway):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    import socket

    address = ("127.0.0.1", gateway.ports["https"])
    with socket.create_connection(address, timeout=10) as plain:
        with context.wrap_socket(plain) as secure:
            return secure.getpeercert(binary_form=True)


def pem_certificate(gateway):
    return ssl.PEM_cert_to_DER_cert((gateway.directory / "tls" / "cert.pem").read_text())


def test_certificate_is_swapped_and_a_broken_one_refused(make_gateway):
    gateway = make_gateway(tls=True)
    first = pem_certificate(gateway)
    assert peer_certificate(gateway) == first
    stream = gateway.stream("[[words:30]] [[chunk_ms:20]]", listener="https")
    events = stream.events()
    next(events)
    gateway.make_certificate()
    second = pem_certificate(gateway)
    assert second != first and peer_certificate(gateway) == first
    gateway.ctl("reload")
    wait_until(
        lambda: all(peer_certificate(gateway) == second for _ in range(6)), 2, "the new certificate"
    )
    assert list(events)[-1] == "[DONE]"
    assert gateway.chat(listener="https").status == 200
    good = (gateway.directory / "tls" / "cert.pem").read_text()
    for bad in ("not a certificate", good[: len(good) // 2], ""):
        (gateway.directory / "tls" / "cert.pem").write_text(bad)
        refused = gateway.ctl("reload", check=False)
        assert refused.returncode == 1 and "listen.tls" in refused.stderr
        assert peer_certificate(gateway) == second
    # The key of another certificate.
    (gateway.directory / "tls" / "cert.pem").write_text(good)
    key = (gateway.directory / "tls" / "key.pem").read_text()
    gateway.make_certificate()
    (gateway.directory / "tls" / "key.pem").write_text(key)
    refused = gateway.ctl("reload", check=False)
    assert refused.returncode == 1 and "listen.tls" in refused.stderr
    assert all(peer_certificate(gateway) == second for _ in range(6))


@pytest.mark.parametrize("rounds", [15])
def test_reloads_under_load_fail_nothing(make_gateway, rounds):
    gateway = make_gateway()
    with Load(gateway, clients=6, text="[[words:5]] [[chunk_ms:2]]") as load:
        for _ in range(rounds):
            gateway.ctl("reload")
            seen = len(load.delivered)
            wait_until(lambda s=seen: len(load.delivered) > s + 10, what="progress")
    assert load.failed == []
    assert reloads(gateway) == rounds
