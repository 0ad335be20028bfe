"""A compatible API as the provider: bytes pass as they are, both ways, but for what is ours."""

import http.server
import json
import pathlib
import threading

import pytest

FIXTURES = pathlib.Path(__file__).parent.parent / "unit" / "fixtures" / "openai"


class Upstream:
    """Answers every call with the bytes it was given; keeps what it was asked."""

    def __init__(self):
        upstream = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                upstream.calls.append((self.path, dict(self.headers.items()), body))
                self.send_response(upstream.status)
                self.send_header("Content-Type", upstream.type)
                self.send_header("Content-Length", str(len(upstream.answer)))
                self.end_headers()
                self.wfile.write(upstream.answer)

            def log_message(self, *_):
                pass

        self.calls = []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.serve(200, "application/json", b"{}")

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def serve(self, status, kind, answer):
        self.status, self.type, self.answer = status, kind, answer

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def upstream():
    server = Upstream()
    yield server
    server.stop()


@pytest.fixture
def gateway(make_gateway, directory, upstream):
    def provider(name, flavor):
        return {"name": name, "type": "openai", "flavor": flavor, "base_url": upstream.url,
                "credentials": "file:credentials", "max_concurrent": 100}  # fmt: skip

    def model(name, there):
        return {"id": name, "candidates": [{"provider": name, "model": there}],
                "prices": [{"input": "100", "cached_input": "10", "output": "200"}]}  # fmt: skip

    return make_gateway(options={
        "providers": [provider(name, name) for name in ("openai", "mistral", "gemini")],
        "models": [model(name, "up/" + name) for name in ("openai", "mistral", "gemini")],
        "retry": {"attempts": 1},
    })  # fmt: skip


def ours(data, answer_id):
    """A fixture's twin has a fixed identity; the gateway's has its own."""
    return data.replace("chatcmpl-0123", answer_id).replace("our/model", "openai")


def test_plain_answer_passes_byte_for_byte_and_is_charged(gateway, upstream):
    upstream.serve(200, "application/json", (FIXTURES / "answer_openai.json").read_bytes())
    body = '{ "model":"openai", "seed":9007199254740993, "y":12345678901234567890, "x\\u0041":[1.0e+2],"messages":' \
        '[{"role":"user","content":"\\u041f"}] , "models":[]}'  # fmt: skip
    answer = gateway.request("POST", "/v1/chat/completions", body.encode())
    assert answer.status == 200, answer.body
    assert answer.body.decode() == (FIXTURES / "answer_openai.json").read_text().strip().replace(
        "chatcmpl-AbC", answer.json["id"]
    ).replace("gpt-4.1-2025-04-14", "openai")
    path, headers, sent = upstream.calls[0]
    assert path == "/v1/chat/completions"
    assert sent.decode() == body.replace('"openai"', '"up/openai"').replace(' , "models":[]', "")
    assert headers["Authorization"].startswith("Bearer ")
    assert headers["X-Request-ID"]
    gateway.wait_usage(1)
    gateway.stop()
    row = gateway.rows()[0]
    assert (row["tokens_input"], row["tokens_cached"], row["tokens_output"]) == (19, 4, 10)


@pytest.mark.parametrize("name", ["openai", "escapes", "tools"])
@pytest.mark.parametrize("asked", [False, True])
def test_stream_passes_byte_for_byte(gateway, upstream, name, asked):
    upstream.serve(200, "text/event-stream", (FIXTURES / f"stream_{name}.sse").read_bytes())
    body = {"model": "openai", "stream": True, "messages": [{"role": "user", "content": "x"}]}
    if asked:
        body["stream_options"] = {"include_usage": True}
    answer = gateway.request("POST", "/v1/chat/completions", body)
    assert answer.status == 200, answer.body
    text = answer.body.decode()
    answer_id = json.loads(text.split("\n")[0][6:])["id"]
    expected = (FIXTURES / f"stream_{name}.{'asked' if asked else 'out'}").read_text()
    if "1111" in expected:  # what the fixtures' meter counts is not what the gateway counts
        expected, text = (t[: t.index('"choices":[],"usage"')] for t in (expected, text))
    assert text == ours(expected, answer_id)
    assert json.loads(upstream.calls[0][2])["stream_options"] == {"include_usage": True}


def test_stream_that_breaks_off_never_ends_well(gateway, upstream):
    upstream.serve(200, "text/event-stream", (FIXTURES / "stream_no_finish.sse").read_bytes())
    stream = gateway.stream("x", model="openai")
    events = list(stream.events())
    stream.close()
    assert "error" in json.loads(events[-1])
    assert "[DONE]" not in events


@pytest.mark.parametrize(
    ("status", "error", "ours", "code"),
    [
        (400, {"message": "bad", "code": "context_length_exceeded"}, 400, "context_length_exceeded"),
        (401, {"message": "key sk-x"}, 502, "upstream_auth_failed"),
        (404, {"message": "none"}, 404, "model_not_found"),
        (429, {"message": "q", "code": "insufficient_quota"}, 502, "provider_quota_exhausted"),
        (500, {"message": "x"}, 502, "upstream_failed"),
    ],
)
def test_errors_are_the_gateways_own(gateway, upstream, status, error, ours, code):
    upstream.serve(status, "application/json", json.dumps({"error": error}).encode())
    answer = gateway.chat("x", model="openai")
    assert (answer.status, answer.error["code"]) == (ours, code)


def test_strict_api_gets_only_what_it_knows(gateway, upstream):
    upstream.serve(200, "application/json", (FIXTURES / "answer_mistral.json").read_bytes())
    answer = gateway.request("POST", "/v1/chat/completions", {
        "model": "mistral", "seed": 7, "user": "u", "max_completion_tokens": 5,
        "messages": [{"role": "user", "content": "x"}],
    })  # fmt: skip
    assert answer.status == 200, answer.body
    assert json.loads(upstream.calls[0][2]) == {
        "model": "up/mistral", "random_seed": 7, "max_tokens": 5,
        "messages": [{"role": "user", "content": "x"}],
    }  # fmt: skip
    assert answer.headers["x-xrouter-ignored"] == "user"
    message = answer.json["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Four", "2+\n2")
