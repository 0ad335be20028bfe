"""Bad input: the right status, a clear message, the parameter's name, and nothing lost."""

import json
import socket
import time

import pytest

from harness import SLOW

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def shared(request):
    """One gateway for all of this file's read-only abuse."""
    from harness import Gateway, Sim, private_directory, remove_directory

    directory = private_directory()
    sim = Sim(directory).start()
    gateway = Gateway(directory, sim).start()
    pids = {p["pid"] for p in gateway.processes()}
    yield gateway
    assert {p["pid"] for p in gateway.processes()} == pids, "a process died of bad input"
    gateway.stop()
    sim.stop()
    remove_directory(directory)


def body(**fields):
    return dict({"model": "GigaChat-2", "messages": [{"role": "user", "content": "x"}]}, **fields)


def refused(answer, status, code, param=None):
    assert (answer.status, answer.error["code"], answer.error["param"]) == (status, code, param)
    assert answer.error["message"] and answer.headers["x-request-id"].startswith("req_")


def test_no_key(shared):
    refused(shared.request("POST", CHAT, body(), key=False), 401, "invalid_api_key")


@pytest.mark.parametrize(
    "key", ["sk-xr-" + "A" * 43, "sk-xr-short", "nonsense", "sk-xr-" + "A" * 4000]
)
def test_wrong_key(shared, key):
    answer = shared.request("POST", CHAT, body(), key=key)
    refused(answer, 401, "invalid_api_key")
    assert key not in answer.body.decode()


def test_revoked_key_is_refused_at_once(shared):
    key = shared.make_key("revoke-me")
    assert shared.chat(key=key).status == 200
    shared.ctl("key", "revoke", "revoke-me")
    for _ in range(8):  # every worker
        refused(shared.chat(key=key), 401, "invalid_api_key")


def test_new_key_counts_at_once_in_every_worker(shared):
    key = shared.make_key("brand-new")
    assert [shared.chat(key=key).status for _ in range(8)] == [200] * 8


def test_expired_key(shared):
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1))
    key = shared.make_key("soon-over", "--expires", expires)
    deadline = time.monotonic() + 10
    while shared.chat(key=key).status == 200:
        assert time.monotonic() < deadline
    refused(shared.chat(key=key), 401, "expired_api_key")


def test_wrong_path_and_method(shared):
    refused(shared.request("POST", "/v1/nothing", body()), 404, "not_found")
    answer = shared.request("GET", CHAT)
    refused(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    refused(shared.request("GET", "/health"), 404, "not_found")  # ops only


def test_no_body(shared):
    refused(shared.request("POST", CHAT), 400, "invalid_request")
    refused(shared.request("POST", CHAT, b""), 400, "invalid_request")


@pytest.mark.parametrize(
    "text",
    [
        b"{", b"[]", b"null", b"{'a':1}", b'{"model":"GigaChat-2",}', b'{"a":01}', b'{"a":1}x',
        b'{"model":"\xff\xfe"}', b'{"model":"a\x00b"}', b'{"model":"a\\u0000b"}',
        b'{"model":"\\ud800"}', b'{"a":"\n"}', b"[" * 2000 + b"]" * 2000, b'{"a":' * 1000000,
        b'{"messages":[' + b"{}," * 999999 + b"{}]}", b'{"a":1e}', b'{"a":tru}', b"\xef\xbb\xbf{}",
    ],
    ids=lambda text: repr(text[:20]),
)  # fmt: skip
def test_broken_json(shared, text):
    begun = time.monotonic()
    answer = shared.request("POST", CHAT, text)
    assert answer.status == 400 and answer.error["code"] == "invalid_request"
    assert time.monotonic() - begun < 5 * SLOW


def test_duplicate_keys_by_the_hundred_thousand(shared):
    text = b'{"model":"GigaChat-2","messages":[{"role":"user","content":"x"}]' + b',"k":1' * 100000
    answer = shared.request("POST", CHAT, text + b"}")
    assert answer.status in (200, 400)


def test_big_strings_pass(shared):
    text = "ю" * 100000
    answer = shared.chat(text)
    assert answer.status in (200, 400)
    if answer.status == 400:
        assert answer.error["code"] == "context_length_exceeded"


def test_body_over_the_limit_is_refused_before_it_is_read(shared):
    with socket.create_connection(("127.0.0.1", shared.ports["http"]), timeout=20) as s:
        s.sendall(
            f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {shared.key}\r\n"
            f"Content-Length: {20 * 1024 * 1024}\r\n\r\n".encode()
        )
        assert s.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_endless_chunked_body_is_cut(shared):
    piece = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", shared.ports["http"]), timeout=20) as s:
        s.sendall(
            f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {shared.key}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        sent = 0
        with pytest.raises(OSError):
            while sent < 64 * 1024 * 1024:
                s.sendall(piece)
                sent += len(piece)
    assert sent < 40 * 1024 * 1024


@pytest.mark.parametrize(
    "fields, param",
    [
        ({"model": None}, "model"),
        ({"model": 7}, "model"),
        ({"model": ""}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"stream": True, "stream_options": 1}, "stream_options"),
        ({"stop": 1}, "stop"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"n": 0}, "n"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tool_choice": 3}, "tool_choice"),
        ({"response_format": "json"}, "response_format"),
        ({"presence_penalty": "x"}, "presence_penalty"),
        ({"logit_bias": []}, "logit_bias"),
        ({"user": 1}, "user"),
        ({"seed": "x"}, "seed"),
    ],
    ids=lambda v: json.dumps(v)[:40] if isinstance(v, dict) else v,
)
def test_each_known_field_is_checked_by_name(shared, fields, param):
    answer = shared.request("POST", CHAT, body(**fields))
    refused(answer, 400, "invalid_request", param)


def test_missing_fields(shared):
    messages = body()["messages"]
    refused(shared.request("POST", CHAT, {"messages": messages}), 400, "invalid_request", "model")
    refused(shared.request("POST", CHAT, {"model": "GigaChat-2"}), 400, "invalid_request", "messages")


def test_unknown_model(shared):
    refused(shared.request("POST", CHAT, body(model="gpt-99")), 404, "model_not_found", "model")


@pytest.mark.parametrize("fields, param", [
    ({"n": 2}, "n"),
    ({"logprobs": True}, "logprobs"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
])  # fmt: skip
def test_what_the_provider_lacks_is_unsupported(shared, fields, param):
    refused(shared.request("POST", CHAT, body(**fields)), 400, "unsupported_parameter", param)


def request_bytes(*headers, target=CHAT, method="POST", version="HTTP/1.1", payload=b"{}"):
    head = f"{method} {target} {version}\r\n".encode()
    return head + b"".join(h + b"\r\n" for h in headers) + b"\r\n" + payload


HOST = b"Host: x"
AMBIGUOUS = {
    "two lengths": request_bytes(HOST, b"Content-Length: 2", b"Content-Length: 3"),
    "two equal lengths": request_bytes(HOST, b"Content-Length: 2", b"Content-Length: 2"),
    "length and chunked": request_bytes(HOST, b"Content-Length: 2", b"Transfer-Encoding: chunked"),
    "chunked and length": request_bytes(HOST, b"Transfer-Encoding: chunked", b"Content-Length: 2"),
    "two codings": request_bytes(HOST, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "coding list": request_bytes(HOST, b"Transfer-Encoding: gzip, chunked"),
    "unknown coding": request_bytes(HOST, b"Transfer-Encoding: xchunked"),
    "identity coding": request_bytes(HOST, b"Transfer-Encoding: identity"),
    "coding with parameter": request_bytes(HOST, b"Transfer-Encoding: chunked;q=1"),
    "empty coding": request_bytes(HOST, b"Transfer-Encoding:"),
    "coding in 1.0": request_bytes(HOST, b"Transfer-Encoding: chunked", version="HTTP/1.0"),
    "space before colon": request_bytes(HOST, b"Content-Length : 2"),
    "space before coding's colon": request_bytes(HOST, b"Transfer-Encoding : chunked"),
    "folded length": request_bytes(HOST, b"Content-Length:\r\n 2"),
    "folded coding": request_bytes(HOST, b"Transfer-Encoding:\r\n chunked"),
    "negative length": request_bytes(HOST, b"Content-Length: -2"),
    "signed length": request_bytes(HOST, b"Content-Length: +2"),
    "hex length": request_bytes(HOST, b"Content-Length: 0x2"),
    "length list": request_bytes(HOST, b"Content-Length: 2, 2"),
    "empty length": request_bytes(HOST, b"Content-Length:"),
    "length with text": request_bytes(HOST, b"Content-Length: 2a"),
    "length over 64 bits": request_bytes(HOST, b"Content-Length: 18446744073709551616"),
    "length at 64 bits": request_bytes(HOST, b"Content-Length: 18446744073709551615"),
    "fraction length": request_bytes(HOST, b"Content-Length: 2.0"),
    "name like a length": request_bytes(HOST, b"Content-Length2: 2", b"Content-Length: 2"),
    "no host": request_bytes(b"Content-Length: 2"),
    "two hosts": request_bytes(HOST, b"Host: y", b"Content-Length: 2"),
    "control in a name": request_bytes(HOST, b"X\x01Y: 1", b"Content-Length: 2"),
    "bracket in a name": request_bytes(HOST, b"X[Y]: 1", b"Content-Length: 2"),
    "at in a name": request_bytes(HOST, b"X@Y: 1", b"Content-Length: 2"),
    "space in a name": request_bytes(HOST, b"X Y: 1", b"Content-Length: 2"),
    "slash in a name": request_bytes(HOST, b"X/Y: 1", b"Content-Length: 2"),
    "quote in a name": request_bytes(HOST, b'X"Y: 1', b"Content-Length: 2"),
    "non-ascii name": request_bytes(HOST, b"X\xc3\xa9: 1", b"Content-Length: 2"),
    "bare CR in a value": request_bytes(HOST, b"X: a\rb", b"Content-Length: 2"),
    "bell in a value": request_bytes(HOST, b"X: a\x07b", b"Content-Length: 2"),
    "DEL in a value": request_bytes(HOST, b"X: a\x7fb", b"Content-Length: 2"),
    "two authorizations": request_bytes(
        HOST, b"Authorization: Bearer a", b"Authorization: Bearer b", b"Content-Length: 2"
    ),
    "absolute target": request_bytes(HOST, b"Content-Length: 2", target="http://evil/v1"),
    "asterisk target": request_bytes(HOST, target="*", method="OPTIONS", payload=b""),
    "relative target": request_bytes(HOST, b"Content-Length: 2", target="v1/chat/completions"),
    "control in the target": request_bytes(HOST, b"Content-Length: 2", target="/v1\x01"),
    "non-ascii target": request_bytes(HOST, b"Content-Length: 2", target="/v1/\u00e9"),
    "DEL in the target": request_bytes(HOST, b"Content-Length: 2", target="/v1/\x7f"),
    "bad method": request_bytes(HOST, b"Content-Length: 2", method="PO(ST"),
    "method with a colon": request_bytes(HOST, b"Content-Length: 2", method="PO:ST"),
    "HTTP/1.2": request_bytes(HOST, b"Content-Length: 2", version="HTTP/1.2"),
    "HTTP/2.0": request_bytes(HOST, b"Content-Length: 2", version="HTTP/2.0"),
    "HTTP/0.9 word": request_bytes(HOST, b"Content-Length: 2", version="HTTP/0.9"),
    "lower-case version": request_bytes(HOST, b"Content-Length: 2", version="http/1.1"),
    "no version": b"GET /v1/models\r\n\r\n",
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "smuggled second": request_bytes(
        HOST, b"Content-Length: 5", b"Transfer-Encoding: chunked",
        payload=b"0\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_ambiguous_framing_is_refused_and_closed(shared, name):
    """Scenario 44: 4xx (or no answer at all), the connection closed, never a second answer."""
    begun = time.monotonic()
    received = shared.raw(AMBIGUOUS[name], seconds=15)
    assert time.monotonic() - begun < 12 * SLOW, "it hangs"
    heads = received.count(b"HTTP/1.1 ") + received.count(b"HTTP/1.0 ")
    # libmicrohttpd's own refusals send their status line twice; that is one answer.
    assert heads <= 2
    if received:
        assert received.split(b" ")[1][:1] in (b"4", b"5")
        assert b" 200 " not in received


def test_header_injection_reaches_no_provider(shared):
    """Scenario 45: control bytes in headers, model and user add nothing upstream."""
    for value in ("a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\x00b", "caf\u00e9", "\x1b[2J"):
        for fields in ({"model": value}, {"user": value}, {"metadata": {"k": value}}):
            shared.request("POST", CHAT, body(**fields))
    assert shared.chat("the last of them").status == 200
    seen = shared.sim.stats()["last_requests"]
    assert seen
    for request in seen:
        assert "x-evil" not in json.dumps(request["headers"]).lower()


@pytest.mark.parametrize(
    "data, statuses",
    [
        (request_bytes(HOST, b"X: " + b"a" * 33 * 1024, b"Content-Length: 2"), (b"431",)),
        (request_bytes(HOST, target="/" + "a" * 40 * 1024, payload=b""), (b"414", b"431")),
        (request_bytes(HOST, *[b"X-%d: 1" % i for i in range(3000)], b"Content-Length: 2"), (b"431",)),
    ],
    ids=["33 KB header", "40 KB target", "3000 headers"],
)
def test_oversized_heads(shared, data, statuses):
    """Scenario 46."""
    received = shared.raw(data)
    assert received.split(b" ")[1] in statuses


def test_hostile_model_names_never_break_a_log_line(shared):
    """Scenario 53: every access-log line is one JSON object, as many as there were requests."""
    from harness import wait_until

    count = 100
    before = shared.counter("requests_total")
    wait_until(lambda: len(shared.access_log()) == before, what="the lines of earlier requests")
    lines_before = len(shared.access_log())
    for i in range(count):
        answer = shared.request(
            "POST", CHAT + f"?i={i}", body(model='a\n{"level":"error"}\x1b[2J"')
        )
        assert answer.status in (400, 404)
    assert shared.counter("requests_total") - before == count
    wait_until(lambda: len(shared.access_log()) - lines_before >= count, what="the log lines")
    assert len(shared.access_log()) - lines_before == count  # access_log() parses each line
    raw = (shared.directory / "access.log").read_bytes()
    assert b"\x1b" not in raw
