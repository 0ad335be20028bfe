"""Router + provider: nobody but the provider is asked, whatever it answers and whatever a client writes into a request.
Scenario 41."""

import http.server
import socket
import threading

import pytest

from test_dialects import DIALECTS, ask, speak


class Listener:
    """A port that must never be connected to; knows who came."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]

    def came(self):
        self.socket.settimeout(0)
        try:
            self.socket.accept()
            return True
        except BlockingIOError:
            return False


@pytest.fixture
def bystander():
    listener = Listener()
    yield listener
    listener.socket.close()


@pytest.fixture
def redirector(bystander):
    """A provider whose only answer is another address."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            seen.append(self.path)
            status, location = server.answer
            self.send_response(status)
            self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.seen = seen
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_failure_and_not_followed(make_gateway, directory, bystander, redirector, status, stream):
    (directory / "api.key").write_text("sk-secret-of-the-provider")
    (directory / "api.key").chmod(0o600)
    gateway = make_gateway(start=False, options={"retry": {"attempts": 1}})
    gateway.config["providers"] = [{
        "name": "gigachat", "type": "openai", "base_url": f"http://127.0.0.1:{redirector.server_port}/v1",
        "credentials": "file:api.key"}]  # fmt: skip
    gateway.write_config()
    gateway.start()
    for location in (f"http://127.0.0.1:{bystander.port}/v1/chat/completions", "http://169.254.169.254/latest/meta-data"):
        redirector.answer = (status, location)
        answer = ask(gateway, "Hello", stream=stream)
        assert (answer.status, answer.error["code"]) == (502, "upstream_failed"), answer.body
        assert location not in answer.body.decode()
    assert redirector.seen == ["/v1/chat/completions"] * 2
    assert not bystander.came()


SPELLINGS = [
    "http://127.0.0.1:{port}/a.png", "HTTP://127.0.0.1:{port}/a.png", "http://localhost:{port}/a.png",
    "http://2130706433:{port}/a.png", "http://0x7f000001:{port}/a.png", "http://0x7f.0.0.1:{port}/a.png",
    "http://0177.0.0.1:{port}/a.png", "http://127.1:{port}/a.png", "http://[::ffff:127.0.0.1]:{port}/a.png",
    "http://[::ffff:7f00:1]:{port}/a.png", "http://example.org@127.0.0.1:{port}/a.png", "http://127.0.0.1.:{port}/a.png",
    "http://%31%32%37.0.0.1:{port}/a.png", "//127.0.0.1:{port}/a.png", "http:\\\\127.0.0.1:{port}\\a.png",
    "gopher://127.0.0.1:{port}/_x", "file:///etc/passwd", "ftp://127.0.0.1:{port}/a.png",
]  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_address_in_a_request_is_never_fetched(make_gateway, bystander, dialect):
    gateway = speak(make_gateway(start=False), dialect)
    for spelling in SPELLINGS:
        image = {"type": "image_url", "image_url": {"url": spelling.format(port=bystander.port)}}
        parts = [{"type": "text", "text": "What is it?"}, image]
        answer = ask(gateway, [{"role": "user", "content": parts}])
        assert answer.status in (200, 400), (spelling, answer.body)
        assert b"root:" not in answer.body
    assert not bystander.came()
