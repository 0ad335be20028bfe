"""Starts the real binaries on free ports in a private directory and talks to them.

Nothing sleeps for a fixed time: wait_until() looks until a condition holds or a deadline passes.
"""

import base64
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("XROUTER_BUILD", ROOT / "build")).resolve()
# Sanitizers slow everything down; deadlines stretch, assertions stay.
SLOW = float(os.environ.get("XROUTER_SLOW", "1"))
CREDENTIALS = base64.b64encode(b"demo-client:demo-secret").decode()


def wait_until(condition, seconds=10.0, what="the condition"):
    """Returns the condition's first true value; fails after the deadline."""
    deadline = time.monotonic() + seconds * SLOW
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {seconds * SLOW:.0f} s")
        time.sleep(0.005)


def alive(pid):
    """Whether a process runs (a zombie does not)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Sim:
    """A private llm-sim."""

    def __init__(self, directory, **config):
        self.directory = Path(directory)
        self.config = {
            "seed": 1,
            "clients": [
                {
                    "id": "demo-client",
                    "secret": "demo-secret",
                    "scopes": ["GIGACHAT_API_PERS"],
                    "max_concurrent": 10000,
                }
            ],
            "models": [
                {"id": name, "type": "chat", "context": 131072}
                for name in ("GigaChat-2", "GigaChat-2-Pro", "GigaChat-2-Max")
            ],
        }
        self.config.update(config)
        self.process = None
        self.port = 0

    def start(self):
        path = self.directory / "sim.json"
        path.write_text(json.dumps(dict(self.config, listen=f"127.0.0.1:{self.port}")))
        self.process = subprocess.Popen(
            [BUILD / "llm-sim", "-c", path],
            stdout=subprocess.PIPE,
            stderr=open(self.directory / "sim.log", "ab"),
            text=True,
        )
        line = self.process.stdout.readline()
        assert line.startswith("listening "), f"llm-sim did not start: {line!r}"
        self.port = int(line.rsplit(":", 1)[1])
        return self

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def call(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            return connection.getresponse().read()
        finally:
            connection.close()

    def stats(self):
        return json.loads(self.call("GET", "/__sim/stats"))

    def log(self):
        return [json.loads(line) for line in self.call("GET", "/__sim/log").splitlines() if line]

    def script(self, *steps):
        """Queues scenarios for the next requests: see tests/sim/README.md."""
        for step in steps:
            self.call("POST", "/__sim/script", step)

    def reset(self):
        self.call("POST", "/__sim/reset")

    def expire_tokens(self):
        self.call("POST", "/__sim/expire")


class Answer:
    """A whole HTTP answer."""

    def __init__(self, response):
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json["error"]


class Stream:
    """A streamed answer being read; events are the data of `data:` lines."""

    def __init__(self, connection, response):
        self.connection = connection
        self.response = response
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.comments = 0

    def events(self):
        for line in self.response:
            if line.startswith(b"data: "):
                yield line[6:].strip().decode()
            elif line.startswith(b":"):
                self.comments += 1

    def chunks(self):
        """JSON of each event but [DONE]."""
        return [json.loads(e) for e in self.events() if e != "[DONE]"]

    def close(self):
        # An HTTPResponse holds the socket too: shut it down, so that the peer sees it at once.
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.response.close()
        self.connection.close()

    @property
    def sock(self):
        return self.connection.sock_kept


class Gateway:
    """A private xrouter. Options are config sections merged over the defaults."""

    def __init__(self, directory, sim, options=None, provider=None, tls=False, workers=2):
        self.directory = Path(directory)
        self.sim = sim
        self.file = self.directory / "xrouter.json"
        self.process = None
        self.key = None
        self.ports = {}
        self.tls = tls
        self.env = dict(os.environ)
        self.binary = BUILD / "xrouter"
        self.prefix = []  # put before the command, as in ["setpriv", ...]
        self.own_session = False  # a process group of its own, for Ctrl-C
        listen = {"http": "127.0.0.1:0", "ops": "127.0.0.1:0"}
        if tls:
            self.make_certificate()
            listen["https"] = "127.0.0.1:0"
            listen["tls"] = {"cert": "tls/cert.pem", "key": "tls/key.pem"}
        self.config = {
            "state_dir": "state",
            "runtime_dir": "run",
            "workers": workers,
            "listen": listen,
            "log": {"error_file": "error.log", "access_file": "access.log"},
            "providers": [
                dict(
                    {
                        "name": "gigachat",
                        "type": "gigachat",
                        "base_url": sim.url,
                        "auth_url": sim.url + "/api/v2/oauth",
                        "credentials": "file:credentials",
                        "scope": "GIGACHAT_API_PERS",
                        "max_concurrent": 10000,
                        "facts_ms": 0,
                        "connect_ms": int(5000 * SLOW),
                    },
                    **(provider or {}),
                )
            ],
            "models": [
                {
                    "id": f"gigachat/{name}",
                    "aliases": [name],
                    "tokenizer": "chars3",
                    "candidates": [{"provider": "gigachat", "model": name}],
                    "prices": [{"input": "500", "cached_input": "0", "output": "1000.5"}],
                }
                for name in ("GigaChat-2", "GigaChat-2-Pro", "GigaChat-2-Max")
            ]
            + [
                {
                    # Any scenario by its model id: sim-<scenario>.
                    "id": f"sim/{name}",
                    "candidates": [{"provider": "gigachat", "model": f"sim-{name}"}],
                }
                for name in ("auth_always",)
            ],
        }
        for section, value in (options or {}).items():
            if isinstance(value, dict) and isinstance(self.config.get(section), dict):
                self.config[section].update(value)
            else:
                self.config[section] = value
        (self.directory / "credentials").write_text(CREDENTIALS)
        self.write_config()

    def make_certificate(self):
        tls = self.directory / "tls"
        tls.mkdir(exist_ok=True)
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
             "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
             "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", tls / "key.pem",
             "-out", tls / "cert.pem"],
            check=True, capture_output=True,
        )  # fmt: skip

    def write_config(self):
        self.file.write_text(json.dumps(self.config))

    # --- life

    def start(self, wait=True):
        self.process = subprocess.Popen(
            [*self.prefix, self.binary, "-c", self.file],
            stdout=open(self.directory / "stdout.log", "ab"),
            stderr=open(self.directory / "stderr.log", "ab"),
            env=self.env,
            cwd=self.directory,
            start_new_session=self.own_session,
        )
        if wait:
            self.wait_ready()
            if self.key is None:
                self.key = self.make_key("test")
        return self

    def wait_ready(self):
        def ready():
            assert self.process.poll() is None, "xrouter ended: " + self.logs()[-3000:]
            stat = self.stat(check=False)
            if not stat or not stat.get("running"):
                return False
            if stat["processes"][-1]["pid"] != self.process.pid:
                return False
            self.ports = {
                name: int(address.rsplit(":", 1)[1])
                for name, address in stat["listeners"].items()
                if address
            }
            if "ops" not in self.ports:
                return False
            try:
                return self.ops("/ready").status == 200
            except OSError:
                return False

        wait_until(ready, 20, "readiness")

    def send_signal(self, number):
        self.process.send_signal(number)

    def stop(self, number=signal.SIGTERM, seconds=20):
        """Ends it in the ordinary way; returns the exit status."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds * SLOW)
        finally:
            if self.process.poll() is None:
                self.kill_all()
            self.process = None

    def kill_all(self):
        """kill -9 of the master and everything below it."""
        pids = {self.process.pid, *self.living(), *(p["pid"] for p in self.processes())}
        # All at the same moment: none is to see that another one has gone, and end in good order.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        self.process.wait()
        # One that had just been forked is not in any list yet.
        wait_until(lambda: not self.kill_living(), 10, "the end of all processes")
        wait_until(lambda: not any(alive(p) for p in pids), 10, "the end of all processes")

    def kill_living(self):
        pids = self.living()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return pids

    def living(self):
        """Pids of this instance's processes, known by the locks they hold: children of a master
        that is gone are among them."""
        inodes = set()
        for path in ("run/xrouter.lock", "run/xrouter.pid", "state"):
            with contextlib.suppress(FileNotFoundError):
                inodes.add(os.stat(self.directory / path).st_ino)
        with open("/proc/locks", encoding="ascii") as f:
            fields = [line.split() for line in f]
        held = {
            int(lock[4])
            for lock in fields
            if lock[1] == "FLOCK" and int(lock[5].rsplit(":", 1)[1]) in inodes
        }
        return sorted(pid for pid in held if alive(pid))

    def leftovers(self):
        """What an instance that has stopped must not leave, as text."""
        run = self.directory / "run"
        files = [] if not run.exists() else [n for n in os.listdir(run) if n != "xrouter.lock"]
        return (
            [f"process {pid}" for pid in self.living()]
            + [f"shared memory {name}" for name in self.shm_objects()]
            + [f"file {name}" for name in files]
        )

    def clear(self):
        """Removes what a failed test, or one that killed the master, has left."""
        wait_until(lambda: not self.kill_living(), 10, "the end of all processes")
        for name in self.shm_objects():
            path = Path("/dev/shm") / name
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()

    def logs(self):
        text = ""
        for name in ("stderr.log", "error.log"):
            path = self.directory / name
            if path.exists():
                text += path.read_text(errors="replace")
        return text

    def error_log(self):
        path = self.directory / "error.log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def access_log(self):
        path = self.directory / "access.log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    # --- command line

    def ctl(self, *args, check=True):
        result = subprocess.run(
            [BUILD / "xrouterctl", "-c", self.file, *map(str, args)],
            capture_output=True, text=True, timeout=60 * SLOW, env=self.env,
        )  # fmt: skip
        if check:
            assert result.returncode == 0, f"xrouterctl {args}: {result.stderr}{result.stdout}"
        return result

    def ctl_json(self, *args):
        return json.loads(self.ctl(*args, "--json").stdout)

    def stat(self, check=True):
        result = self.ctl("stat", "--json", check=check)
        return json.loads(result.stdout) if result.returncode == 0 else None

    def counter(self, name):
        return self.stat()["counters"][name]

    def processes(self, role=None):
        stat = self.stat(check=False) or {"processes": []}
        return [p for p in stat["processes"] if p["pid"] and (role is None or p["role"] == role)]

    def pid(self, role):
        return self.processes(role)[0]["pid"]

    def make_key(self, name, *options):
        return self.ctl_json("key", "create", "--name", name, *options)["key"]

    # --- requests

    def connect(self, listener="http", timeout=60):
        if listener == "https":
            context = ssl.create_default_context(cafile=self.directory / "tls" / "cert.pem")
            return http.client.HTTPSConnection(
                "127.0.0.1", self.ports["https"], timeout=timeout * SLOW, context=context
            )
        return http.client.HTTPConnection(
            "127.0.0.1", self.ports[listener], timeout=timeout * SLOW
        )

    def request(self, method, path, body=None, key=True, headers=None, listener="http"):
        connection = self.connect(listener)
        try:
            self.send(connection, method, path, body, key, headers)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def send(self, connection, method, path, body=None, key=True, headers=None):
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode()
        headers = dict(headers or {})
        if key:
            headers["Authorization"] = f"Bearer {self.key if key is True else key}"
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        connection.request(method, path, body, headers)

    def chat(self, text="Hello", model="GigaChat-2", listener="http", key=True, headers=None,
             **fields):  # fmt: skip
        body = dict({"model": model, "messages": [{"role": "user", "content": text}]}, **fields)
        return self.request("POST", "/v1/chat/completions", body, key, headers, listener)

    def stream(self, text="Hello", model="GigaChat-2", listener="http", timeout=60, key=True,
               **fields):  # fmt: skip
        """Starts a stream and returns once its headers are there."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": True}
        connection = self.connect(listener, timeout)
        self.send(connection, "POST", "/v1/chat/completions", dict(body, **fields), key)
        connection.sock_kept = connection.sock
        return Stream(connection, connection.getresponse())

    def ops(self, path):
        return self.request("GET", path, key=False, listener="ops")

    def raw(self, data, listener="http", seconds=10):
        """Sends bytes as they are and returns everything until the peer closes (or the deadline:
        then b'' stands for a hang)."""
        with socket.create_connection(("127.0.0.1", self.ports[listener]), timeout=seconds * SLOW) as s:
            s.sendall(data)
            received = b""
            try:
                while True:
                    piece = s.recv(65536)
                    if not piece:
                        return received
                    received += piece
            except (TimeoutError, ConnectionResetError):
                return received

    # --- the ledger

    def usage(self, **filters):
        args = []
        for name, value in filters.items():
            args += [f"--{name}", value]
        return self.ctl_json("usage", *args)

    def wait_usage(self, requests, seconds=10):
        """Waits until the ledger holds that many requests in all; returns the totals."""
        def reached():
            total = self.usage(by="model")["total"]
            return total if total["requests"] >= requests else None

        return wait_until(reached, seconds, f"{requests} rows in the ledger")

    def rows(self, table="usage"):
        """All rows of a table; only for a stopped gateway."""
        import sqlite3

        assert self.process is None, "the database belongs to the usage-writer while it runs"
        connection = sqlite3.connect(self.directory / "state" / "xrouter.db")
        connection.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]
        finally:
            connection.close()

    def shm_name(self):
        """Of the instance's public object, as a file in /dev/shm."""
        import hashlib

        real = os.path.realpath(self.directory / "run")
        return "xrouter-" + hashlib.sha256(real.encode()).hexdigest()[:12]

    def shm_objects(self):
        """Names in /dev/shm that belong to this instance."""
        return [name for name in os.listdir("/dev/shm") if name.startswith(self.shm_name())]


class Load:
    """Clients in threads that ask until told to stop, or a number of times; keeps what they saw."""

    def __init__(self, gateway, clients=8, stream_share=0.5, text="[[words:20]]", count=None,
                 key=True):  # fmt: skip
        self.gateway = gateway
        self.key = key
        self.stop_event = threading.Event()
        self.lock = threading.Lock()
        self.delivered = []  # request ids of answers whose last byte came
        self.failed = []  # (what, request id or None)
        self.latencies = []
        self.remaining = count
        self.text = text
        self.threads = [
            threading.Thread(target=self.run, args=(i, i < clients * stream_share), daemon=True)
            for i in range(clients)
        ]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.stop_event.set()
        self.join()

    def join(self):
        for thread in self.threads:
            thread.join(60 * SLOW)
            assert not thread.is_alive(), "a client hangs"

    def more(self):
        with self.lock:
            if self.remaining is None:
                return not self.stop_event.is_set()
            self.remaining -= 1
            return self.remaining >= 0

    def run(self, number, streams):
        while self.more():
            begun = time.monotonic()
            request_id, fault = None, None
            try:
                if streams:
                    request_id, fault = self.one_stream(number)
                else:
                    answer = self.gateway.chat(f"client {number} {self.text}", key=self.key)
                    request_id = answer.headers.get("x-request-id")
                    fault = None if answer.status == 200 else f"status {answer.status}"
            except (OSError, http.client.HTTPException) as e:
                fault = type(e).__name__
            with self.lock:
                self.latencies.append(time.monotonic() - begun)
                if fault is None:
                    self.delivered.append(request_id)
                else:
                    self.failed.append((fault, request_id))

    def one_stream(self, number):
        stream = self.gateway.stream(f"client {number} {self.text}", key=self.key)
        request_id = stream.headers.get("x-request-id")
        try:
            if stream.status != 200:
                return request_id, f"status {stream.status}"
            last = None
            for last in stream.events():
                pass
            return request_id, None if last == "[DONE]" else "cut"
        finally:
            stream.close()


def read_rest(events):
    """The events of a stream that may be cut."""
    got = []
    try:
        for event in events:
            got.append(event)
    except (http.client.IncompleteRead, ConnectionResetError):
        pass
    return got


def private_directory():
    """Short, because a Unix socket's path holds 107 bytes."""
    return Path(tempfile.mkdtemp(prefix="xr-"))


def remove_directory(path):
    shutil.rmtree(path, ignore_errors=True)
