"""The HTTP side, byte by byte: what ordinary client libraries never do, and what slow ones do."""

import contextlib
import json
import os
import re
import socket
import time

import pytest

from harness import SLOW, wait_until

CHAT = "/v1/chat/completions"


class Raw:
    """A connection whose bytes the test writes and reads itself."""

    def __init__(self, gateway, listener="http", receive_buffer=None):
        self.gateway = gateway
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(20 * SLOW)
        self.sock.connect(("127.0.0.1", gateway.ports[listener]))
        self.received = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, *pieces):
        self.sock.sendall(b"".join(p if isinstance(p, bytes) else p.encode() for p in pieces))

    def head(self, method, path, *headers, version="HTTP/1.1", key=True):
        lines = [f"{method} {path} {version}", "Host: x", *headers]
        if key:
            lines.append(f"Authorization: Bearer {self.gateway.key}")
        return "\r\n".join(lines) + "\r\n\r\n"

    def chat(self, text="Hello", *headers, version="HTTP/1.1", **fields):
        body = dict({"model": "GigaChat-2", "messages": [{"role": "user", "content": text}]}, **fields)
        body = json.dumps(body)
        return self.head("POST", CHAT, f"Content-Length: {len(body)}", *headers, version=version) + body

    def until(self, text):
        """Reads up to and with the text; returns what came."""
        text = text.encode() if isinstance(text, str) else text
        while text not in self.received:
            piece = self.sock.recv(65536)
            assert piece, f"closed before {text!r}: {self.received[-300:]!r}"
            self.received += piece
        end = self.received.index(text) + len(text)
        taken, self.received = self.received[:end], self.received[end:]
        return taken

    def answer(self):
        """One answer with a Content-Length: its status, headers in lower case, and body."""
        head = self.until("\r\n\r\n").decode()
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:-2])
        length = int(headers["content-length"])
        while len(self.received) < length:
            piece = self.sock.recv(65536)
            assert piece, "closed inside a body"
            self.received += piece
        body, self.received = self.received[:length], self.received[length:]
        return int(head.split(" ")[1]), headers, body

    def rest(self):
        """Everything up to the end of the connection."""
        with contextlib.suppress(ConnectionResetError):
            while piece := self.sock.recv(65536):
                self.received += piece
        return self.received


@pytest.fixture
def raw(gateway):
    with Raw(gateway) as connection:
        yield connection


# --- one connection, several requests


def test_stream_to_http_1_0_ends_with_the_connection(raw):
    raw.send(raw.chat("[[words:20]]", version="HTTP/1.0", stream=True))
    head = raw.until("\r\n\r\n").lower()
    assert head.startswith(b"http/1.")
    assert b"transfer-encoding" not in head and b"content-length" not in head
    assert raw.rest().endswith(b"data: [DONE]\n\n")


def test_plain_answer_to_http_1_0(raw):
    raw.send(raw.chat(version="HTTP/1.0"))
    status, _, body = raw.answer()
    assert status == 200 and json.loads(body)["choices"]
    assert raw.rest() == b""


def test_failing_stream_to_http_1_0_has_no_done(raw):
    raw.send(raw.chat("[[words:20]] [[sim:cut:3]]", version="HTTP/1.0", stream=True))
    received = raw.rest()
    assert b'"error"' in received and b"[DONE]" not in received


def test_pipelined_requests_are_answered_in_order(raw):
    raw.send(
        raw.head("GET", "/v1/models"),
        raw.chat("[[first_ms:100]] slow one"),  # waits while the next ones lie in the buffer
        raw.chat("{"),
        raw.head("GET", "/v1/models/GigaChat-2"),
    )
    assert json.loads(raw.answer()[2])["object"] == "list"
    assert json.loads(raw.answer()[2])["object"] == "chat.completion"
    assert json.loads(raw.answer()[2])["object"] == "chat.completion"
    assert json.loads(raw.answer()[2])["id"] == "gigachat/GigaChat-2"


def test_request_behind_a_stream_on_the_same_connection(raw):
    raw.send(raw.chat("[[words:30]]", stream=True), raw.head("GET", "/v1/models"))
    raw.until("data: [DONE]\n\n")
    raw.until("0\r\n\r\n")
    status, _, body = raw.answer()
    assert status == 200 and json.loads(body)["object"] == "list"


def test_connection_lives_on_after_a_refused_body(raw):
    for _ in range(3):
        raw.send(raw.head("POST", CHAT, "Content-Length: 1"), "{")
        status, headers, body = raw.answer()
        assert status == 400 and json.loads(body)["error"]["code"] == "invalid_request"
        assert headers.get("connection") != "close"
    raw.send(raw.chat())
    assert raw.answer()[0] == 200


def test_connection_lives_on_after_a_provider_failure(raw):
    raw.send(raw.chat("[[sim:status:500]]", stream=True))
    assert raw.answer()[0] == 502
    raw.send(raw.chat())
    assert raw.answer()[0] == 200


def test_refused_head_says_that_it_closes(raw):
    raw.send(raw.head("GET", "/v1/models", key=False))
    status, headers, _ = raw.answer()
    assert status == 401 and headers["connection"] == "close"
    assert raw.rest() == b""


def test_connection_close_is_obeyed(raw):
    raw.send(raw.chat("Hello", "Connection: close"))
    status, headers, _ = raw.answer()
    assert status == 200 and headers["connection"] == "close"
    assert raw.rest() == b""


def test_expect_100_is_answered_before_the_body(raw):
    whole = raw.chat("Hello", "Expect: 100-continue")
    head, body = whole.split("\r\n\r\n", 1)
    raw.send(head, "\r\n\r\n")
    assert raw.until("\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    raw.send(body)
    assert raw.answer()[0] == 200


def test_expect_100_without_a_key_is_refused_at_once(raw):
    raw.send(raw.head("POST", CHAT, "Content-Length: 1000", "Expect: 100-continue", key=False))
    status, headers, _ = raw.answer()
    assert status == 401 and headers["connection"] == "close"


def test_body_byte_by_byte_and_in_chunks(raw):
    whole = raw.chat("ю" * 20).encode()
    for i in range(len(whole)):
        raw.send(whole[i : i + 1])
    assert raw.answer()[0] == 200
    body = whole.split(b"\r\n\r\n", 1)[1]
    raw.send(raw.head("POST", CHAT, "Transfer-Encoding: chunked"))
    for i in range(0, len(body), 7):
        piece = body[i : i + 7]
        raw.send(b"%x\r\n%s\r\n" % (len(piece), piece))
    raw.send("0\r\n\r\n")
    assert raw.answer()[0] == 200


def test_head_is_get_without_a_body(raw):
    raw.send(raw.head("HEAD", "/v1/models"))
    head = raw.until("\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    length = int(re.search(rb"(?i)content-length: (\d+)", head).group(1))
    raw.send(raw.head("GET", "/v1/models"))  # no byte of a body may lie before its answer
    status, _, body = raw.answer()
    assert status == 200 and len(body) == length


def test_head_of_a_large_answer(gateway):
    with Raw(gateway, "ops") as raw:
        raw.send(raw.head("HEAD", "/metrics", key=False))
        assert raw.until("\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        raw.send(raw.head("GET", "/metrics", key=False))
        assert raw.answer()[0] == 200


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "BREW"])
def test_other_methods_are_told_what_is_allowed(raw, method):
    raw.send(raw.head(method, CHAT))
    head = raw.until("\r\n\r\n").decode()
    assert head.startswith("HTTP/1.1 405 ") and "Allow: POST\r\n" in head


# --- deadlines and departures


def closed_after(raw):
    begun = time.monotonic()
    raw.rest()
    return time.monotonic() - begun


SHORT = {"timeouts": {"header_ms": 300, "body_ms": 300, "keepalive_ms": 300}}


@pytest.mark.parametrize("sent", [b"", b"P", b"POST /v1", b"GET / HTTP/1.1\r\nHost: x\r\n"])
def test_half_a_head_is_cut(make_gateway, sent):
    gateway = make_gateway(options=SHORT)
    with Raw(gateway) as raw:
        raw.send(sent)
        assert 0.2 < closed_after(raw) < 3 * SLOW
    with Raw(gateway) as raw:  # dripping does not buy time
        begun = time.monotonic()
        with contextlib.suppress(OSError):
            raw.send("GET / HTTP/1.1\r\n")
            while time.monotonic() - begun < 10 * SLOW:
                raw.send("X: y\r\n")
                time.sleep(0.02)
        assert time.monotonic() - begun < 5 * SLOW


def test_half_a_body_is_cut_and_logged(make_gateway):
    gateway = make_gateway(options=SHORT)
    with Raw(gateway) as raw:
        raw.send(raw.head("POST", CHAT, "Content-Length: 100"), '{"model":')
        assert 0.2 < closed_after(raw) < 3 * SLOW
        assert raw.received == b""
    (line,) = wait_until(gateway.access_log, what="the log line")
    assert (line["error"], line["status"], line["delivered"]) == ("request_timeout", 0, False)
    assert gateway.counter("requests_in_flight") == 0
    gateway.stop()
    assert gateway.rows() == []


def test_idle_connection_is_closed(make_gateway):
    gateway = make_gateway(options=SHORT)
    with Raw(gateway) as raw:
        raw.send(raw.head("GET", "/v1/models"))
        assert raw.answer()[0] == 200
        assert 0.2 < closed_after(raw) < 3 * SLOW


def test_client_that_leaves_inside_its_body_leaves_no_trace(gateway):
    with Raw(gateway) as raw:
        raw.send(raw.head("POST", CHAT, "Content-Length: 100"), '{"model":')
    (line,) = wait_until(gateway.access_log, what="the log line")
    assert line["status"] == 0 and not line["delivered"]
    wait_until(lambda: gateway.counter("connections_open") == 0, what="the end of the connection")
    assert gateway.counter("clients_gone_total") == 1
    gateway.stop()
    assert gateway.rows() == []


def test_connection_whose_end_came_with_its_request_is_closed(gateway):
    with Raw(gateway) as raw:
        raw.send(raw.head("GET", "/v1/models"))
        raw.sock.shutdown(socket.SHUT_WR)
        assert raw.answer()[0] == 200
        assert closed_after(raw) < 5 * SLOW


def test_client_that_sent_all_and_left_at_once(gateway, sim):
    for _ in range(20):
        with Raw(gateway) as raw:
            raw.send(raw.chat("[[first_ms:5000]]", stream=True))
    wait_until(lambda: gateway.counter("requests_in_flight") == 0, what="the end of the requests")
    wait_until(lambda: gateway.usage()["total"]["requests"] == 20, what="the rows")
    stat = gateway.stat()
    assert [p["in_flight"] for p in stat["providers"]] == [0]
    assert stat["counters"]["upstream_failures_total"] == 0, "the provider has done nothing wrong"
    assert gateway.chat().status == 200
    gateway.stop()
    assert {r["outcome"] for r in gateway.rows()} == {0, 2}
    assert all(a["error"] is None for a in gateway.rows("usage_attempts"))


def worker_pss(gateway):
    total = 0
    for process in gateway.processes("worker"):
        with open(f"/proc/{process['pid']}/smaps_rollup", encoding="ascii") as f:
            total += int(re.search(r"(?m)^Pss:\s+(\d+) kB", f.read()).group(1))
    return total / 1024


def test_slow_reader_of_a_burst_holds_the_provider_back(make_gateway, sim):
    """50 MB at full speed for a client that reads 1 MB: the rest stays at the provider."""
    gateway = make_gateway(workers=1)
    assert gateway.chat().status == 200
    before = worker_pss(gateway)
    with Raw(gateway, receive_buffer=16384) as raw:
        raw.send(raw.chat("[[sim:burst:50]]", stream=True))
        raw.until("\r\n\r\n")
        most = 0
        read = 0
        while read < 1 << 20:
            read += len(raw.sock.recv(16384))
            most = max(most, worker_pss(gateway))
        assert most - before < 4 * SLOW, f"{most - before:.1f} MB for one stream"
        assert sim.stats()["in_flight"] == 1, "the provider could send everything"
    wait_until(lambda: sim.stats()["aborted_by_client"] == 1, what="the cancel")
    wait_until(lambda: gateway.counter("requests_in_flight") == 0, what="the end")
    gateway.wait_usage(2)


def test_reader_that_stops_is_cut(make_gateway, sim):
    gateway = make_gateway(options={"timeouts": {"write_stall_ms": 400}}, workers=1)
    with Raw(gateway, receive_buffer=16384) as raw:
        raw.send(raw.chat("[[sim:burst:50]]", stream=True))
        raw.until("\r\n\r\n")
        begun = time.monotonic()
        wait_until(lambda: sim.stats()["aborted_by_client"] == 1, what="the cancel")
        assert 0.2 < time.monotonic() - begun < 5 * SLOW
        wait_until(lambda: gateway.counter("connections_open") == 0, what="the cut")
    gateway.wait_usage(1)
    gateway.stop()
    (row,) = gateway.rows()
    assert row["outcome"] == 2 and row["tokens_output"] > 0


def test_silent_provider_is_not_taken_for_a_stalled_client(make_gateway):
    """The client took everything; that nothing follows for longer than write_stall_ms is not its
    fault."""
    gateway = make_gateway(options={"timeouts": {"write_stall_ms": 200}})
    stream = gateway.stream("[[words:4]] [[chunk_ms:700]]")
    assert list(stream.events())[-1] == "[DONE]"


def test_drain_does_not_wait_for_a_client_that_does_not_read(make_gateway):
    gateway = make_gateway(options={"timeouts": {"stop_timeout_ms": 300}})
    with Raw(gateway, receive_buffer=16384) as raw:
        raw.send(raw.chat("[[sim:burst:50]]", stream=True))
        raw.until("\r\n\r\n")
        begun = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - begun < 2.5 * SLOW
    (row,) = gateway.rows()
    assert row["outcome"] == 3


def test_ops_listener_answers_at_the_connection_limit(make_gateway):
    gateway = make_gateway(options={"limits": {"connections": 16}}, workers=1)
    with contextlib.ExitStack() as stack:
        for _ in range(24):
            stack.enter_context(Raw(gateway))
        wait_until(lambda: gateway.counter("connections_open") >= 16, what="the limit")
        for _ in range(5):
            assert gateway.ops("/health").status == 200
            time.sleep(0.05)  # the accepting of clients is tried again every 100 ms
    assert gateway.chat().status == 200


# --- what is written down


def test_plain_answer_has_a_first_byte_time(gateway):
    assert gateway.chat().status == 200
    gateway.wait_usage(1)
    gateway.stop()
    (row,) = gateway.rows()
    assert row["first_byte_ms"] > 0


def test_ignored_parameters_are_named_even_if_a_ping_came_first(make_gateway):
    gateway = make_gateway(options={"timeouts": {"stream_ping_ms": 100}})
    assert gateway.chat().status == 200  # so that the token is there
    stream = gateway.stream("[[first_ms:400]]", seed=7)
    assert stream.headers["x-xrouter-ignored"] == "seed"
    assert list(stream.events())[-1] == "[DONE]" and stream.comments >= 1


def test_failure_after_a_ping_is_an_error_event(make_gateway):
    gateway = make_gateway(
        options={"timeouts": {"stream_ping_ms": 100}}, provider={"first_byte_ms": 500}
    )
    stream = gateway.stream("[[first_ms:20000]]")
    events = []
    with contextlib.suppress(Exception):
        for event in stream.events():
            events.append(event)
    assert stream.status == 200 and stream.comments >= 1
    assert [json.loads(e)["error"]["code"] for e in events] == ["upstream_timeout"]


def test_body_over_the_limit_in_chunks_is_logged(make_gateway):
    gateway = make_gateway(options={"limits": {"body_bytes": 4096}})
    with Raw(gateway) as raw:
        raw.send(raw.head("POST", CHAT, "Transfer-Encoding: chunked"), "2000\r\n", "a" * 0x2000)
        raw.rest()
    (line,) = wait_until(gateway.access_log, what="the log line")
    assert line["error"] == "request_too_large"


# --- the provider's token


def test_requests_do_not_wait_for_ever_for_a_token(gateway, sim):
    sim.script({"path": "/api/v2/oauth", "scenario": "oauth_down", "times": -1})
    begun = time.monotonic()
    answer = gateway.chat()
    assert (answer.status, answer.error["code"]) == (502, "upstream_failed")
    assert time.monotonic() - begun < 6 * SLOW
    sim.reset()
    assert gateway.chat().status == 200


def test_one_failed_token_fetch_is_not_the_clients_business(gateway, sim):
    sim.script({"path": "/api/v2/oauth", "scenario": "oauth_down"})
    assert gateway.chat().status == 200


def test_refused_credentials_fail_at_once(gateway, sim):
    sim.script({"path": "/api/v2/oauth", "scenario": "status:401"})
    begun = time.monotonic()
    for _ in range(3):
        answer = gateway.chat()
        assert (answer.status, answer.error["code"]) == (502, "upstream_auth_failed")
    assert time.monotonic() - begun < 3 * SLOW
