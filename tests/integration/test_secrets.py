"""Scenario 52: planted secrets are nowhere but where they belong."""

import base64
import http.server
import json
import os
import subprocess
import threading
from pathlib import Path

import pytest

from harness import BUILD, CREDENTIALS, alive, wait_until


class Places:
    """Everything people or other programs can see, by name."""

    def __init__(self):
        self.texts = {}

    def add(self, name, data):
        self.texts[name] = data.encode() if isinstance(data, str) else bytes(data)

    def assert_free_of(self, secrets):
        hits = [
            f"{what} in {name}"
            for name, data in self.texts.items()
            for what, secret in secrets.items()
            if secret.encode() in data
        ]
        assert hits == []


def look_at_processes(places, gateway):
    for process in gateway.processes():
        pid = process["pid"]
        assert alive(pid)
        for name in ("cmdline", "environ", "comm"):
            try:
                places.add(f"{process['role']} {name}", Path(f"/proc/{pid}/{name}").read_bytes())
            except PermissionError:
                assert name == "environ"  # not even for its own user: not dumpable
        limits = Path(f"/proc/{pid}/limits").read_text()
        (core,) = [line.split() for line in limits.splitlines() if "core file" in line]
        assert core[4] == core[5] == "0", "a core file would hold everything"


def look_at_commands(places, gateway):
    for args in (["stat"], ["stat", "--json"], ["stat", "--prom"], ["key", "list"],
                 ["key", "list", "--json"], ["key", "show", "test", "--json"], ["requests"],
                 ["usage", "--by", "key"], ["usage", "--by", "key", "--json"], ["reload"]):  # fmt: skip
        result = gateway.ctl(*args)
        places.add("xrouterctl " + " ".join(args), result.stdout + result.stderr)
    for option in ("-T", "-t"):
        shown = subprocess.run(
            [BUILD / "xrouter", option, "-c", gateway.file],
            capture_output=True, check=True, cwd=gateway.directory, env=gateway.env,
        )  # fmt: skip
        places.add("xrouter " + option, shown.stdout + shown.stderr)
    assert b"***" in places.texts["xrouter -T"]


def look_at_files(places, gateway, skip=()):
    for path in gateway.directory.rglob("*"):
        name = str(path.relative_to(gateway.directory))
        if path.is_file() and not name.startswith(("sim", *skip)):
            places.add("file " + name, path.read_bytes())
    public = Path("/dev/shm") / gateway.shm_name()
    if public.exists():
        places.add("shared memory", public.read_bytes())


def provider_tokens(sim):
    """The access tokens that the simulator has seen in requests."""
    seen = {
        request["headers"]["authorization"].removeprefix("Bearer ")
        for request in sim.stats()["last_requests"]
        if request["line"].startswith("POST /v1/chat") or "/chat/" in request["line"]
    }
    assert seen
    return seen


def test_planted_secrets_are_never_shown(make_gateway, sim):
    gateway = make_gateway(tls=True, options={"log": {
        "level": "debug", "error_file": "error.log", "access_file": "access.log",
    }})  # fmt: skip
    places = Places()
    unused = gateway.make_key("unused")
    revoked = gateway.make_key("revoked")
    gateway.ctl("key", "revoke", "revoked")
    wrong = "sk-xr-" + "W" * 43
    assert gateway.chat().status == 200
    tokens = provider_tokens(sim)
    for answer in (
        gateway.chat(key=wrong),
        gateway.chat(key=revoked),
        gateway.chat(key="sk-xr-short"),
        gateway.chat(temperature="x"),
        gateway.chat(model="nothing"),
        gateway.chat("[[sim:status:500]]"),
        gateway.chat("[[sim:status:403]]"),
        gateway.chat(model="sim/auth_always"),
        gateway.chat("[[sim:reset:0]]"),
        gateway.chat(listener="https"),
        gateway.request("GET", "/v1/models?api_key=" + unused, key=False),
        gateway.request("GET", "/nowhere/" + unused[6:10]),
    ):
        places.add(f"answer {len(places.texts)}", answer.body + str(answer.headers).encode())
    for path in ("/metrics", "/health", "/ready"):
        places.add(path, gateway.ops(path).body)
    look_at_processes(places, gateway)
    look_at_commands(places, gateway)
    # A crash on the way: what the logs say about it.
    os.kill(gateway.pid("worker"), 9)
    wait_until(lambda: len(gateway.processes("worker")) == 2, what="another worker")
    sim.expire_tokens()
    wait_until(lambda: gateway.chat().status == 200, what="a closed breaker")
    tokens |= provider_tokens(sim)
    key_file = (gateway.directory / "tls" / "key.pem").read_text().splitlines()[1]
    pepper = (gateway.directory / "state" / "key.secret").read_bytes().strip()
    look_at_files(places, gateway, ("credentials", "tls/key.pem", "state/key.secret"))
    assert gateway.stop() == 0
    look_at_files(places, gateway, ("credentials", "tls/key.pem", "state/key.secret"))
    secrets = {
        "credentials": CREDENTIALS,
        "client secret": base64.b64decode(CREDENTIALS).decode().split(":")[1],
        "key": gateway.key, "unused key": unused, "revoked key": revoked, "wrong key": wrong,
        "key's secret part": gateway.key[6:30], "TLS key": key_file,
    }  # fmt: skip
    secrets.update({f"access token {i}": token for i, token in enumerate(tokens)})
    assert all(len(secret) >= 8 for secret in secrets.values())
    places.assert_free_of(secrets)
    for name, data in places.texts.items():
        assert pepper not in data and pepper.hex().encode() not in data, name


def test_a_key_is_shown_only_when_it_is_made(make_gateway):
    gateway = make_gateway(start=False)
    gateway.start()
    made = gateway.ctl("key", "create", "--name", "once")
    key = made.stdout.strip()
    assert key.startswith("sk-xr-") and len(key) == 49 and key not in made.stderr
    places = Places()
    for args in (["key", "list"], ["key", "show", "once"], ["key", "show", "once", "--json"],
                 ["key", "revoke", "once", "--json"]):  # fmt: skip
        places.add(" ".join(args), gateway.ctl(*args).stdout)
    gateway.stop()
    look_at_files(places, gateway)
    places.assert_free_of({"key": key})


# As long as real ones are: shorter words of a message are not taken for secrets.
TOKEN_CANARY = "canary-access-token-" + "x" * 400


class Gossip(http.server.BaseHTTPRequestHandler):
    """A provider that repeats what it was told, in its errors and headers."""

    def do_POST(self):
        told = self.headers.get("Authorization", "")
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "oauth" in self.path:
            status, body = 200, {"access_token": TOKEN_CANARY, "expires_at": 4102444800000}
        else:
            status = self.server.status
            body = {"status": status, "message": f"No: {told}"}
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Told", told)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def gossip():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gossip)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_providers_error_never_leaks_what_we_told_it(make_gateway, gossip):
    url = f"http://127.0.0.1:{gossip.server_address[1]}"
    gateway = make_gateway(
        provider={"base_url": url, "auth_url": url + "/oauth"},
        options={"log": {
            "level": "debug", "error_file": "error.log", "access_file": "access.log",
        }},
    )  # fmt: skip
    places = Places()
    for status in (400, 401, 402, 403, 404, 413, 422, 429, 500, 503):
        gossip.status = status
        answer = gateway.chat()
        assert answer.status >= 400
        places.add(f"answer to {status}", answer.body + str(answer.headers).encode())
        stream = gateway.chat(stream=True)
        places.add(f"stream for {status}", stream.body + str(stream.headers).encode())
    places.add("/metrics", gateway.ops("/metrics").body)
    look_at_commands(places, gateway)
    gateway.stop()
    look_at_files(places, gateway, ("credentials",))
    places.assert_free_of({"access token": TOKEN_CANARY, "credentials": CREDENTIALS})


def test_credentials_in_the_environment_are_masked(make_gateway):
    gateway = make_gateway(start=False, provider={"credentials": "env:XR_TEST_CREDENTIALS"})
    gateway.env["XR_TEST_CREDENTIALS"] = CREDENTIALS
    gateway.start()
    assert gateway.chat().status == 200
    places = Places()
    look_at_commands(places, gateway)
    gateway.stop()
    look_at_files(places, gateway, ("credentials",))
    places.assert_free_of({"credentials": CREDENTIALS})
