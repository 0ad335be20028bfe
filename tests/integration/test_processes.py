"""The life of an instance: start, stop, drain, signals, and what it leaves behind."""

import contextlib
import http.client
import json
import os
import signal
import socket
import threading
import time

from harness import SLOW, Load, alive, read_rest, wait_until
from ledger import assert_exact

# The machine's noise, on top of what is promised.
NOISE = 2




def start_streams(gateway, count, text):
    """Streams that have got their first event each."""
    streams = []
    for _ in range(count):
        stream = gateway.stream(text)
        assert stream.status == 200
        events = stream.events()
        next(events)
        streams.append((stream, events))
    return streams


def test_nothing_is_left_after_a_stop(make_gateway):
    gateway = make_gateway(tls=True)
    pids = [p["pid"] for p in gateway.processes()]
    assert len(pids) == 5
    assert sorted(os.listdir(gateway.directory / "run")) == [
        "master.sock", "usage.sock", "writer.sock", "xrouter.lock", "xrouter.pid",
    ]  # fmt: skip
    assert (gateway.directory / "run" / "xrouter.pid").read_text() == f"{gateway.process.pid}\n"
    assert len(gateway.shm_objects()) == 2
    gateway.chat()
    assert gateway.stop() == 0
    assert gateway.leftovers() == []
    assert not any(alive(pid) for pid in pids)
    assert sorted(os.listdir(gateway.directory / "state")) == [
        "key.secret",
        "node",
        "xrouter.db",
        "xrouter.db.created",
    ]


def test_files_are_private(make_gateway):
    gateway = make_gateway()
    modes = {
        name: (gateway.directory / name).stat().st_mode & 0o777
        for name in ("state", "run", "state/key.secret", "state/xrouter.db", "run/master.sock",
                     "run/writer.sock", "run/usage.sock")
    }  # fmt: skip
    assert modes["state"] == 0o700 and modes["run"] == 0o750
    assert modes["run/master.sock"] & 0o007 == 0  # the group may give orders
    for name in ("state/key.secret", "state/xrouter.db", "run/writer.sock", "run/usage.sock"):
        assert modes[name] == 0o600, name
    shm = {n: os.stat(f"/dev/shm/{n}").st_mode & 0o777 for n in gateway.shm_objects()}
    assert sorted(shm.values()) == [0o600, 0o640]
    assert shm[gateway.shm_name()] == 0o640


def test_processes_have_titles(make_gateway):
    gateway = make_gateway()

    def title(pid):
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read().rstrip(b"\0").decode()

    titles = sorted(title(p["pid"]) for p in gateway.processes())
    assert titles == ["xrouter: helper", "xrouter: master", "xrouter: usage-writer",
                      "xrouter: worker 0", "xrouter: worker 1"]  # fmt: skip


def test_second_instance_is_refused_and_the_first_unharmed(make_gateway):
    first = make_gateway()
    pids = [p["pid"] for p in first.processes()]
    second = make_gateway(start=False)  # the same directory and config
    second.start(wait=False)
    assert second.process.wait(10 * SLOW) == 1
    text = (first.directory / "stderr.log").read_text()
    assert f"another instance is running (pid {first.process.pid})" in text
    second.process = None
    assert [p["pid"] for p in first.processes()] == pids
    assert first.chat().status == 200
    assert first.stop() == 0
    # And with another runtime directory, but the same database.
    third = make_gateway(start=False)
    third.key = first.key
    third.start()
    fourth = make_gateway(start=False, options={"runtime_dir": "run2"})
    fourth.start(wait=False)
    assert fourth.process.wait(10 * SLOW) == 1
    assert "another instance uses the state directory" in fourth.logs()
    fourth.process = None
    assert sorted(os.listdir(first.directory / "run2")) == []
    assert third.chat().status == 200


def ready_status(gateway):
    """The status of /ready; 0 = nobody answers."""
    try:
        return gateway.ops("/ready").status
    except (OSError, http.client.HTTPException):
        return 0


def is_refused(gateway):
    try:
        socket.create_connection(("127.0.0.1", gateway.ports["http"])).close()
        return False
    except ConnectionRefusedError:
        return True


def test_term_drains_and_every_stream_finishes(make_gateway, sim):
    """Scenario 13."""
    gateway = make_gateway()
    streams = start_streams(gateway, 20, "[[words:25]] [[chunk_ms:40]]")
    waiting = gateway.connect()
    gateway.send(waiting, "POST", "/v1/chat/completions", {
        "model": "GigaChat-2", "messages": [{"role": "user", "content": "[[first_ms:600]]"}],
    })  # fmt: skip
    wait_until(lambda: sim.stats()["in_flight"] == 21, what="21 requests at the provider")
    gateway.send_signal(signal.SIGTERM)
    told = time.monotonic()
    wait_until(lambda: ready_status(gateway) == 503, 5, "/ready 503")
    assert time.monotonic() - told < 0.1 * SLOW * NOISE
    assert gateway.ops("/ready").json == {"status": "draining"}
    assert gateway.ops("/health").status == 200
    # Nobody is let wait who will not be served, as soon as the last worker has heard of it.
    wait_until(lambda: is_refused(gateway), 0.1 * NOISE, "refused connections")
    answer = waiting.getresponse()
    assert answer.status == 200 and json.loads(answer.read())["choices"]
    delivered = [answer.headers["x-request-id"]]
    for stream, events in streams:
        assert read_rest(events)[-1] == "[DONE]"
        delivered.append(stream.headers["x-request-id"])
    last = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - last < 1 * SLOW * NOISE
    assert_exact(gateway, sim, delivered, 21)


def test_idle_connections_do_not_delay_a_stop(make_gateway):
    gateway = make_gateway()
    idle = [gateway.connect() for _ in range(5)]
    for connection in idle:
        gateway.send(connection, "GET", "/v1/models")
        connection.getresponse().read()
    silent = socket.create_connection(("127.0.0.1", gateway.ports["http"]))
    begun = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - begun < 1 * SLOW * NOISE
    assert all(connection.sock.recv(1) == b"" for connection in idle)
    silent.close()


def test_an_answer_during_the_drain_closes_its_connection(make_gateway, sim):
    gateway = make_gateway()
    connection = gateway.connect()
    gateway.send(connection, "POST", "/v1/chat/completions", {
        "model": "GigaChat-2", "messages": [{"role": "user", "content": "[[first_ms:400]]"}],
    })  # fmt: skip
    wait_until(lambda: sim.stats()["in_flight"] == 1, what="the request at the provider")
    gateway.send_signal(signal.SIGTERM)
    answer = connection.getresponse()
    assert answer.status == 200
    answer.read()
    assert connection.sock is None or connection.sock.recv(1) == b""
    assert gateway.stop() == 0


def test_streams_beyond_the_deadline_are_cut_honestly(make_gateway, sim):
    """Scenario 14."""
    deadline = 0.7 * SLOW
    gateway = make_gateway(options={"timeouts": {"stop_timeout_ms": int(deadline * 1000)}})
    streams = start_streams(gateway, 10, "[[words:3000]] [[chunk_ms:20]]")
    waiting = gateway.connect()
    gateway.send(waiting, "POST", "/v1/chat/completions", {
        "model": "GigaChat-2", "messages": [{"role": "user", "content": "[[first_ms:60000]]"}],
    })  # fmt: skip
    wait_until(lambda: sim.stats()["in_flight"] == 11, what="11 requests at the provider")
    gateway.send_signal(signal.SIGTERM)
    told = time.monotonic()
    for _, events in streams:
        got = read_rest(events)
        assert "[DONE]" not in got
        assert json.loads(got[-1])["error"]["code"] == "draining"
    answer = waiting.getresponse()
    assert answer.status == 503 and json.loads(answer.read())["error"]["code"] == "draining"
    assert gateway.process.wait(10 * SLOW) == 0
    assert deadline <= time.monotonic() - told < deadline + 1 * SLOW + NOISE
    gateway.stop()
    rows = {"req_" + row["id"].hex(): row for row in gateway.rows()}
    journal = {entry["request_id"]: entry for entry in sim.log()}
    for stream, _ in streams:
        row = rows[stream.headers["x-request-id"]]
        assert (row["outcome"], row["source"], row["error"]) == (3, 3, "draining")
        told_tokens = journal[stream.headers["x-request-id"]]["completion_tokens"]
        assert 0 < row["tokens_output"] <= told_tokens and row["cost"] > 0
    row = rows[answer.headers["x-request-id"]]
    assert (row["outcome"], row["cost"], row["http_status"]) == (3, 0, 503)
    assert_exact(gateway, sim, [], 11)


def test_second_term_stops_now(make_gateway):
    gateway = make_gateway()
    ((_, events),) = start_streams(gateway, 1, "[[words:3000]] [[chunk_ms:20]]")
    gateway.send_signal(signal.SIGTERM)
    wait_until(lambda: ready_status(gateway) == 503, 5, "/ready 503")
    for _ in range(3):
        next(events)  # it goes on
    gateway.send_signal(signal.SIGTERM)
    told = time.monotonic()
    assert json.loads(read_rest(events)[-1])["error"]["code"] == "draining"
    assert gateway.process.wait(10 * SLOW) == 0
    assert time.monotonic() - told < 1 * SLOW * NOISE
    assert gateway.stop() == 0


def test_a_cut_stream_has_no_tidy_end(make_gateway):
    """Clients take a clean end for a whole answer: there must be none on the wire."""
    gateway = make_gateway(options={"timeouts": {"stop_timeout_ms": 200}})
    body = json.dumps({
        "model": "GigaChat-2", "stream": True,
        "messages": [{"role": "user", "content": "[[words:3000]] [[chunk_ms:20]]"}],
    })  # fmt: skip
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    wires = []
    reader = threading.Thread(target=lambda: wires.append(gateway.raw((head + body).encode())))
    reader.start()
    wait_until(lambda: gateway.ctl_json("requests")["requests"], what="the stream")
    wait_until(lambda: gateway.counter("stream_chunks_total") > 3, what="some chunks")
    assert gateway.stop() == 0
    reader.join()
    assert b"draining" in wires[0] and b"[DONE]" not in wires[0]
    assert not wires[0].endswith(b"0\r\n\r\n")


def test_quit_drains_without_a_deadline(make_gateway):
    gateway = make_gateway(options={"timeouts": {"stop_timeout_ms": 100}})
    ((_, events),) = start_streams(gateway, 1, "[[words:30]] [[chunk_ms:25]]")
    gateway.send_signal(signal.SIGQUIT)
    assert read_rest(events)[-1] == "[DONE]"
    assert gateway.process.wait(10 * SLOW) == 0
    gateway.stop()


def test_ctrl_c_reaches_the_whole_group_and_drains(make_gateway):
    gateway = make_gateway(start=False)
    gateway.own_session = True
    gateway.start()
    ((_, events),) = start_streams(gateway, 1, "[[words:15]] [[chunk_ms:25]]")
    os.killpg(gateway.process.pid, signal.SIGINT)
    assert read_rest(events)[-1] == "[DONE]"
    assert gateway.process.wait(10 * SLOW) == 0
    gateway.stop()
    assert not any(line["event"] == "process_died" for line in gateway.error_log())


def test_signals_to_children_are_ignored(make_gateway):
    gateway = make_gateway()
    children = [p for p in gateway.processes() if p["role"] != "master"]
    for child in children:
        for number in ("TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "PIPE"):
            os.kill(child["pid"], getattr(signal, "SIG" + number))
    for _ in range(10):
        assert gateway.chat().status == 200
    assert [p["pid"] for p in gateway.processes() if p["role"] != "master"] == [
        c["pid"] for c in children
    ]
    gateway.wait_usage(10)
    assert gateway.counter("worker_deaths_total") == 0
    assert gateway.counter("reloads_total") == 0


def test_usr1_reopens_the_logs(make_gateway):
    gateway = make_gateway()
    log = gateway.directory / "access.log"
    first = gateway.chat().headers["x-request-id"]
    wait_until(lambda: first in log.read_text(), what="the first line")
    log.rename(gateway.directory / "access.log.1")
    gateway.send_signal(signal.SIGUSR1)
    wait_until(log.exists, what="a new access log")
    second = gateway.chat().headers["x-request-id"]
    wait_until(lambda: second in log.read_text(), what="the second line")
    assert second not in (gateway.directory / "access.log.1").read_text()


def test_start_without_a_provider_that_answers_serves_its_other_addresses(make_gateway, sim):
    sim.stop()
    gateway = make_gateway()
    assert gateway.ops("/ready").status == 200
    assert gateway.request("GET", "/v1/models").status == 200
    begun = time.monotonic()
    answer = gateway.chat()
    assert (answer.status, answer.error["code"]) == (502, "upstream_failed")
    assert time.monotonic() - begun < 5 * SLOW


def test_stop_during_the_start_leaves_nothing(make_gateway):
    gateway = make_gateway(start=False)
    for delay in (0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08):
        gateway.start(wait=False)
        begun = time.monotonic()
        wait_until(lambda b=begun, d=delay: time.monotonic() - b >= d)
        gateway.send_signal(signal.SIGTERM)
        # Before it has taken the signals over, TERM ends it in the default way.
        assert gateway.process.wait(10 * SLOW) in (0, -signal.SIGTERM)
        gateway.process = None
        assert gateway.living() == []
        assert gateway.leftovers() == [] or gateway.leftovers() == ["file xrouter.pid"]


def test_one_row_for_each_request_that_is_admitted(make_gateway, sim):
    """Good and bad ones together: what is refused before admission has no row."""
    gateway = make_gateway()
    refused = [gateway.chat(key=False), gateway.chat(model="nothing"), gateway.chat(temperature="x")]
    assert [a.status for a in refused] == [401, 404, 400]
    failed = [gateway.chat("[[sim:status:500]]"), gateway.chat("[[sim:status:429]]")]
    with Load(gateway, clients=4, count=30) as load:
        load.join()
    assert load.failed == []
    with contextlib.closing(gateway.stream("[[words:500]] [[chunk_ms:10]]")) as stream:
        next(stream.events())
    assert gateway.stop() == 0
    assert len(gateway.rows()) == len(failed) + 30 + 1
    assert_exact(gateway, sim, load.delivered, 33)
    access = {line["request_id"]: line for line in gateway.access_log() if line.get("request_id")}
    for answer in refused + failed:
        assert access[answer.headers["x-request-id"]]["status"] == answer.status
