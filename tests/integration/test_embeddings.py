"""POST /v1/embeddings through the gateway: OpenAI's answer, whoever made the vectors."""

import base64
import struct

import pytest

PATHS = {"gigachat": None, "openai": "/openai/v1"}


@pytest.fixture(params=PATHS)
def gateway(request, make_gateway, sim, directory):
    gateway = make_gateway(start=False)
    path = PATHS[request.param]
    if path is not None:
        (directory / "api.key").write_text("sk-sim")
        (directory / "api.key").chmod(0o600)
        gateway.config["providers"] = [
            {"name": "gigachat", "type": "openai", "base_url": sim.url + path, "credentials": "file:api.key"}
        ]
    gateway.config["models"].append({
        "id": "vectors", "kind": "embeddings", "tokenizer": "o200k_base",
        "candidates": [{"provider": "gigachat", "model": "Embeddings"}],
        "prices": [{"input": "14"}]})  # fmt: skip
    gateway.write_config()
    gateway.dialect = request.param
    return gateway.start()


def ask(gateway, text, **fields):
    return gateway.request("POST", "/v1/embeddings", dict({"model": "vectors", "input": text}, **fields))


def test_vectors_come_in_order_and_are_billed(gateway):
    answer = ask(gateway, ["one", "two", "one"])
    assert answer.status == 200, answer.body
    body = answer.json
    assert (body["object"], body["model"]) == ("list", "vectors")
    assert [item["index"] for item in body["data"]] == [0, 1, 2]
    first, second, third = (item["embedding"] for item in body["data"])
    assert first == third != second and all(isinstance(x, float | int) for x in first)
    assert set(body["data"][0]) == {"object", "index", "embedding"}
    tokens = body["usage"]["prompt_tokens"]
    assert body["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens} and tokens > 0
    assert answer.headers["x-xrouter-provider"] == "gigachat"
    total = gateway.wait_usage(1)
    assert (total["tokens_input"], total["tokens_output"]) == (tokens, 0)
    assert total["cost"] == f"{tokens * 14 / 1e6:.9f}".rstrip("0")


def test_base64_is_what_the_numbers_are(gateway):
    numbers = ask(gateway, "one").json["data"][0]["embedding"]
    packed = ask(gateway, "one", encoding_format="base64").json["data"][0]["embedding"]
    assert struct.unpack(f"<{len(numbers)}f", base64.b64decode(packed)) == pytest.approx(numbers, rel=1e-6)


def test_token_ids_reach_who_takes_them(gateway):
    answer = ask(gateway, [[1, 2, 3], [4]])
    if gateway.dialect == "openai":
        assert answer.status == 200 and len(answer.json["data"]) == 2
    else:
        assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "unsupported_parameter", "input")


def test_the_wrong_endpoint_is_named(gateway):
    answer = gateway.request("POST", "/v1/embeddings", {"model": "GigaChat-2", "input": "x"})
    assert (answer.status, answer.error["param"]) == (400, "model")
    assert "/v1/chat/completions" in answer.error["message"]
    answer = gateway.chat(model="vectors")
    assert (answer.status, answer.error["param"]) == (400, "model")
    assert "/v1/embeddings" in answer.error["message"]


def test_a_limited_key_reserves_the_input_alone(gateway):
    key = gateway.make_key("poor", "--credits", "0.0001")
    assert gateway.request("POST", "/v1/embeddings", {"model": "vectors", "input": "one"}, key=key).status == 200
    answer = gateway.request("POST", "/v1/embeddings", {"model": "vectors", "input": "word " * 20000}, key=key)
    assert (answer.status, answer.error["code"]) == (402, "insufficient_credits")


def test_the_list_tells_what_a_model_makes(gateway):
    model = gateway.request("GET", "/v1/models/vectors").json
    assert model["architecture"]["output_modalities"] == ["embeddings"]
    assert model["architecture"]["input_modalities"] == ["text"]
    assert model["supported_parameters"] == []


def test_a_failing_provider_is_asked_again(gateway, sim):
    path = (PATHS[gateway.dialect] or "/v1") + "/embeddings"
    sim.script({"scenario": "status:503", "path": path}, {"scenario": "malformed", "path": path})
    answer = ask(gateway, "one")
    assert (answer.status, answer.headers["x-xrouter-attempts"]) == (200, "3"), answer.body
    logged = [line for line in sim.log() if line["model"] == "Embeddings"]
    assert logged[-1]["dialect"] == gateway.dialect and logged[-1]["status"] == 200


def test_a_provider_without_embeddings_says_so(make_gateway, sim, directory):
    gateway = make_gateway(start=False)
    (directory / "api.key").write_text("sk-sim")
    (directory / "api.key").chmod(0o600)
    gateway.config["providers"].append(
        {"name": "claude", "type": "anthropic", "base_url": sim.url + "/anthropic", "credentials": "file:api.key"}
    )
    gateway.config["models"].append(
        {"id": "vectors", "kind": "embeddings", "candidates": [{"provider": "claude", "model": "claude-sim"}]}
    )
    gateway.write_config()
    answer = ask(gateway.start(), "one")
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "unsupported_parameter", "model")
