"""What is GigaChat's own: the prompt cache's sessions, the ways to authenticate, JSON by a schema."""

import base64
import contextlib
import http.client
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from harness import CREDENTIALS, Sim, wait_until

SYSTEM = {"role": "system", "content": "You know everything about rivers."}
QUESTION = {"role": "user", "content": "Which one is the longest?"}
UUID = "0b6e3d0c-51d4-4c0f-9a53-0c1c2f6f7f11"


def talk(gateway, messages, **options):
    """One turn: its cached tokens, and the history with its answer."""
    answer = gateway.chat(messages=messages, **options)
    assert answer.status == 200
    body = answer.json
    cached = body["usage"]["prompt_tokens_details"]["cached_tokens"]
    return cached, [*messages, body["choices"][0]["message"]]


def chat_headers(sim):
    return [r["headers"] for r in sim.stats()["last_requests"] if "/chat/completions" in r["line"]]


def issue_token(sim):
    """An access token, as whoever has the authorization key gets one."""
    connection = http.client.HTTPConnection("127.0.0.1", sim.port, timeout=30)
    connection.request(
        "POST",
        "/api/v2/oauth",
        "scope=GIGACHAT_API_PERS",
        {
            "Authorization": "Basic " + CREDENTIALS,
            "RqUID": UUID,
            "User-Agent": "test",
            "Content-Type": "application/x-www-form-urlencoded",
        },
    )
    with contextlib.closing(connection):
        return json.loads(connection.getresponse().read())


# --- X-Session-ID


def test_later_turns_of_a_conversation_have_cached_tokens(gateway, sim):
    cached, history = talk(gateway, [SYSTEM, QUESTION])
    assert cached == 0
    cached, history = talk(gateway, [*history, {"role": "user", "content": "And the second?"}])
    first_turn = cached
    assert first_turn > 0
    cached, _ = talk(gateway, [*history, {"role": "user", "content": "And the third?"}])
    assert cached > first_turn
    assert len({h["x-session-id"] for h in chat_headers(sim)}) == 1


def test_no_two_keys_share_a_session(gateway, sim):
    other = gateway.make_key("other")
    _, history = talk(gateway, [SYSTEM, QUESTION])
    cached, _ = talk(gateway, history + [QUESTION], key=other)
    assert cached == 0
    cached, _ = talk(gateway, history + [QUESTION])
    assert cached > 0
    sessions = [h["x-session-id"] for h in chat_headers(sim)]
    assert sessions[0] == sessions[2] != sessions[1]


def test_other_conversations_and_models_have_their_own_sessions(gateway, sim):
    talk(gateway, [SYSTEM, QUESTION])
    cached, _ = talk(gateway, [SYSTEM, {"role": "user", "content": "Something else"}])
    assert cached == 0
    cached, _ = talk(gateway, [SYSTEM, QUESTION], model="GigaChat-2-Pro")
    assert cached == 0
    assert len({h["x-session-id"] for h in chat_headers(sim)}) == 3


# --- auth


def test_ready_token_is_sent_as_it_is(make_gateway, sim):
    token = issue_token(sim)["access_token"]
    issued = sim.stats()["tokens_issued"]
    gateway = make_gateway(start=False, provider={"auth": "token", "credentials": "file:token"})
    (gateway.directory / "token").write_text(token)
    gateway.start()
    assert gateway.chat("Hello").status == 200
    assert list(gateway.stream("Hello").events())[-1] == "[DONE]"
    assert chat_headers(sim)[-1]["authorization"] == "Bearer " + token
    # A refused one is the operator's to replace: no other can be asked for.
    sim.expire_tokens()
    answer = gateway.chat("Hello")
    assert answer.status == 502
    assert answer.error["code"] == "upstream_auth_failed"
    assert sim.stats()["tokens_issued"] == issued


class TokenServer(HTTPServer):
    """POST .../token of the API for a user and a password; its tokens are the simulator's."""

    def __init__(self, sim):
        super().__init__(("127.0.0.1", 0), TokenHandler)
        self.sim = sim
        self.asked = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class TokenHandler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers["Authorization"]))
        issued = issue_token(self.server.sim)
        body = json.dumps({"tok": issued["access_token"], "exp": issued["expires_at"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def token_server(sim):
    server = TokenServer(sim)
    yield server
    server.shutdown()
    server.server_close()


def test_user_and_password_buy_a_token_of_the_api(make_gateway, sim, token_server):
    gateway = make_gateway(
        start=False,
        provider={
            "auth": "password",
            "auth_url": token_server.url,
            "credentials": "",
            "user": "me",
            "password": "file:password",
        },
    )
    (gateway.directory / "password").write_text("s3cret:word\n")
    gateway.start()
    assert gateway.chat("Hello").status == 200
    assert gateway.chat("Hello").status == 200
    basic = "Basic " + base64.b64encode(b"me:s3cret:word").decode()
    assert token_server.asked == [("/v1/token", basic)]
    # One that was refused is bought anew, once.
    sim.expire_tokens()
    assert gateway.chat("Hello").status == 200
    assert token_server.asked == 2 * [("/v1/token", basic)]
    assert "s3cret" not in gateway.logs()


class MutualServer(HTTPServer):
    """An API that knows its clients by their certificates alone."""

    def __init__(self, tls):
        super().__init__(("127.0.0.1", 0), MutualHandler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls / "cert.pem", tls / "key.pem")
        context.load_verify_locations(tls / "cert.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.asked = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class MutualHandler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        subject = dict(pair[0] for pair in self.connection.getpeercert()["subject"])
        self.server.asked.append((self.path, subject["commonName"], self.headers["Authorization"]))
        message = {"role": "assistant", "content": "I know you."}
        body = json.dumps(
            {
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
                "created": 1,
                "model": "GigaChat-2",
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def test_certificate_takes_the_place_of_a_token(make_gateway, sim):
    gateway = make_gateway(start=False)
    gateway.make_certificate()  # serves for both sides
    server = MutualServer(gateway.directory / "tls")
    provider = gateway.config["providers"][0]
    provider.update(
        auth="certificate",
        base_url=f"https://127.0.0.1:{server.server_port}",
        ca_bundle_file="tls/cert.pem",
        client_cert_file="tls/cert.pem",
        client_key_file="tls/key.pem",
    )
    del provider["auth_url"], provider["credentials"]
    gateway.write_config()
    gateway.start()
    try:
        answer = gateway.chat("Who am I?")
        assert answer.json["choices"][0]["message"]["content"] == "I know you."
        assert server.asked == [("/v1/chat/completions", "localhost", None)]
        assert sim.stats()["tokens_issued"] == 0
    finally:
        server.shutdown()
        server.server_close()


# --- structured output

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
}


def json_schema(schema, **fields):
    return {"type": "json_schema", "json_schema": {"name": "city", "schema": schema, **fields}}


def test_answer_follows_its_schema(gateway):
    answer = gateway.chat("A city?", response_format=json_schema(CITY, strict=True))
    choice = answer.json["choices"][0]
    city = json.loads(choice["message"]["content"])
    assert isinstance(city["city"], str) and isinstance(city["people"], int)
    assert choice["finish_reason"] == "stop"
    chunks = gateway.stream("A city?", response_format=json_schema(CITY)).chunks()
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
    assert json.loads(text) == city


@pytest.mark.parametrize(
    "response_format",
    [
        {"type": "json_object"},
        json_schema({}),
        json_schema({"type": "object", "properties": CITY["properties"]}, strict=True),
    ],
)
def test_format_it_cannot_keep_is_refused(gateway, sim, response_format):
    answer = gateway.chat("A city?", response_format=response_format)
    assert answer.status == 400
    assert answer.error["code"] == "unsupported_parameter"
    assert answer.error["param"] == "response_format"
    assert chat_headers(sim) == []


# --- a schema by a function that must be called


def test_models_without_schemas_answer_by_a_function(make_gateway, sim):
    gateway = make_gateway(provider={"structured_output": "function"})
    answer = gateway.chat("A city?", response_format=json_schema(CITY, strict=True))
    assert answer.status == 200
    (choice,) = answer.json["choices"]
    assert choice["finish_reason"] == "stop" and "tool_calls" not in choice["message"]
    assert set(json.loads(choice["message"]["content"])) == set(CITY["properties"])
    chunks = gateway.stream("A city?", response_format=json_schema(CITY)).chunks()
    deltas = [c["choices"][0] for c in chunks if c["choices"]]
    assert set(json.loads("".join(d["delta"].get("content") or "" for d in deltas))) == set(CITY["properties"])
    assert deltas[-1]["finish_reason"] == "stop"
    for request in sim.stats()["last_requests"]:
        if "/chat/completions" in request["line"]:
            body = json.loads(request["body"])
            assert "response_format" not in body and body["function_call"] == {"name": "city"}


def test_schema_behind_results_of_functions_is_a_function(gateway, sim):
    call = {"id": "call_1", "type": "function", "function": {"name": "get_city", "arguments": "{}"}}
    answer = gateway.chat(
        messages=[
            QUESTION,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "Tula"},
            {"role": "user", "content": "As JSON, please."},
        ],
        response_format=json_schema(CITY, strict=True),
    )
    assert answer.status == 200
    (choice,) = answer.json["choices"]
    assert set(json.loads(choice["message"]["content"])) == set(CITY["properties"])
    body = json.loads([r for r in sim.stats()["last_requests"] if "/chat/completions" in r["line"]][-1]["body"])
    assert body["function_call"] == {"name": "city"}


# --- tokens, counted by the provider


def count(gateway, **body):
    return gateway.request("POST", "/v1/tokens/count", {"model": "GigaChat-2", **body}, True)


def asked(sim):
    return sim.stats()["requests"]["/v1/tokens/count"]


def test_provider_counts_texts_when_asked_to(gateway, sim):
    assert count(gateway, input="Привет").json["method"] != "provider"
    assert asked(sim) == {}
    answer = count(gateway, input=["Привет, мир!", "abc"], method="provider")
    assert answer.json["method"] == "provider" and answer.json["tokens"] == 5
    assert count(gateway, input="abcd", method="provider").json["tokens"] == 2
    sim.expire_tokens()
    assert count(gateway, input="abcd", method="provider").json["method"] == "provider"
    assert asked(sim) == {"200": 3, "401": 1}
    refused = count(gateway, messages=[QUESTION], method="provider")
    assert refused.status == 400 and refused.error["param"] == "method"


@pytest.mark.parametrize("scenario", ["status:500", "status:403:html", "malformed:0", "reset:0"])
def test_provider_that_cannot_count_is_replaced_by_our_own_count(gateway, sim, scenario):
    # Twice: what a kept-alive connection loses is repeated on a new one.
    sim.script({"scenario": scenario, "path": "/v1/tokens/count", "times": 2})
    answer = count(gateway, input="abcd", method="provider")
    assert answer.status == 200 and answer.json["method"] != "provider" and answer.json["tokens"] > 0


def test_provider_at_its_limit_is_not_asked_to_count(make_gateway, sim):
    gateway = make_gateway(provider={"max_concurrent": 1})
    stream = gateway.stream("[[words:200]] [[chunk_ms:20]]")
    next(stream.events())
    assert count(gateway, input="abcd", method="provider").json["method"] != "provider"
    assert asked(sim) == {}
    stream.close()


# --- files: uploaded before the call, removed after it

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


def with_image(text, url=PIXEL):
    return {
        "role": "user",
        "content": [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}],
    }


def uploads(sim):
    """Answers to uploads, by status."""
    return sim.stats()["requests"]["/v1/files"]


def wait_until_removed(sim):
    wait_until(lambda: sim.stats()["files_held"] == 0 and "200" in sim.stats()["requests"]["/v1/files/{id}"])


def test_images_are_uploaded_named_and_removed(gateway, sim):
    answer = gateway.chat(messages=[with_image("What is it?"), with_image("And this?")])
    assert answer.status == 200
    wait_until_removed(sim)
    sent = [r for r in sim.stats()["last_requests"] if "/chat/completions" in r["line"]]
    messages = json.loads(sent[-1]["body"])["messages"]
    assert [m["content"] for m in messages] == ["What is it?", "And this?"]
    ids = [i for m in messages for i in m["attachments"]]
    assert len(set(ids)) == 2
    removed = [r["line"] for r in sim.stats()["last_requests"] if r["line"].split()[1].endswith("/delete")]
    assert len(removed) == 2 and all(any(i in line for line in removed) for i in ids)
    assert uploads(sim) == {"200": 2}


def test_images_of_a_stream_whose_client_leaves_are_removed(gateway, sim):
    stream = gateway.stream(messages=[with_image("[[words:500]] [[chunk_ms:20]]")])
    events = stream.events()
    next(events)
    stream.close()
    wait_until_removed(sim)


def test_failed_upload_is_tried_again(gateway, sim):
    sim.script({"scenario": "status:500", "path": "/v1/files"})
    assert gateway.chat(messages=[with_image("What is it?")]).status == 200
    assert uploads(sim) == {"200": 1, "500": 1}
    wait_until_removed(sim)


def test_upload_renews_a_token_that_has_expired(gateway, sim):
    assert gateway.chat("Hello").status == 200
    sim.expire_tokens()
    assert gateway.chat(messages=[with_image("What is it?")]).status == 200
    assert uploads(sim) == {"200": 1, "401": 1}
    wait_until_removed(sim)


@pytest.mark.parametrize("url", ["https://example.com/a.png", "data:image/webp;base64,AAEC", "data:image/png;base64,A"])
def test_images_that_cannot_be_uploaded_are_refused(gateway, sim, url):
    answer = gateway.chat(messages=[with_image("What is it?", url)])
    assert answer.status == 400
    assert answer.error["param"] == "messages[0].content[1].image_url.url"
    assert sim.stats()["requests"]["/v1/chat/completions"] == {}


def test_files_stay_within_the_providers_limit(make_gateway, directory):
    """One slot, ten clients with images: neither a file, nor its removal, nor a call is ever one too many."""
    path = directory / "narrow"
    path.mkdir()
    clients = Sim(path).config["clients"]
    clients[0]["max_concurrent"] = 1
    narrow = Sim(path, clients=clients).start()
    try:
        gateway = make_gateway(provider={"base_url": narrow.url, "auth_url": narrow.url + "/api/v2/oauth",
                                         "max_concurrent": 1})  # fmt: skip
        statuses = []

        def client():
            for _ in range(3):
                statuses.append(gateway.chat(messages=[with_image("[[words:3]] [[chunk_ms:2]]")]).status)

        threads = [threading.Thread(target=client) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 30
        wait_until(lambda: narrow.stats()["files_held"] == 0)
        requests = narrow.stats()["requests"]
        for path in ("/v1/files", "/v1/files/{id}", "/v1/chat/completions"):
            assert requests[path] == {"200": 30}
    finally:
        narrow.stop()
