"""GET /v1/models, /v1/models/{id}, /v1/parameters/{id}: what a client needs to choose a model."""

import pytest

MODEL = "gigachat/GigaChat-2-Pro"
ESCAPED = MODEL.replace("/", "%2F")


def test_a_model_tells_context_price_and_what_it_can_do(make_gateway):
    gateway = make_gateway(start=False)
    gateway.config["models"][1].update({"context_tokens": 32768, "max_output_tokens": 4096})
    gateway.config["models"][1]["prices"][0]["request"] = "0.25"
    gateway.write_config()
    gateway.start()
    model = gateway.request("GET", f"/v1/models/{ESCAPED}").json
    assert (model["id"], model["object"], model["owned_by"]) == (MODEL, "model", "gigachat")
    assert model["name"] == MODEL and isinstance(model["created"], int)
    assert (model["context_length"], model["max_output_tokens"]) == (32768, 4096)
    assert model["top_provider"] == {"context_length": 32768, "max_completion_tokens": 4096}
    assert model["pricing"] == {
        "unit": "credits per 1M tokens; request: credits each", "currency": "RUB",
        "prompt": "500", "completion": "1000.5", "request": "0.25", "input_cache_read": "0"}  # fmt: skip
    assert model["architecture"]["output_modalities"] == ["text"]
    assert "text" in model["architecture"]["input_modalities"]
    assert model["architecture"]["tokenizer"] == "chars3"
    listed = gateway.request("GET", "/v1/models").json["data"]
    assert model in listed


def test_a_parameter_is_listed_if_one_candidate_knows_it(make_gateway, sim):
    gateway = make_gateway(start=False)
    gateway.config["providers"].append({
        "name": "other", "type": "openai", "flavor": "groq", "base_url": sim.url, "credentials": "file:credentials"})  # fmt: skip
    both = gateway.config["models"][0]
    both["candidates"].append({"provider": "other", "model": "x", "priority": 1, "context_tokens": 200000})
    gateway.write_config()
    gateway.start()
    gigachat = gateway.request("GET", f"/v1/models/{ESCAPED}").json
    assert {"temperature", "tools", "response_format"} <= set(gigachat["supported_parameters"])
    assert not {"seed", "logprobs", "n"} & set(gigachat["supported_parameters"])
    united = gateway.request("GET", "/v1/models/GigaChat-2").json  # an alias does, too
    assert united["id"] == "gigachat/GigaChat-2"
    assert set(united["supported_parameters"]) >= {*gigachat["supported_parameters"], "seed"}
    assert "logprobs" not in united["supported_parameters"]  # neither of them
    assert united["architecture"]["input_modalities"] == ["text", "image"]
    assert (united["context_length"], united["top_provider"]["context_length"]) == (200000, 131072)


def test_what_a_candidates_configuration_takes_away_is_not_listed(make_gateway):
    gateway = make_gateway(start=False)
    everything = {"tools", "tool_choice", "functions", "response_format", "structured_outputs"}
    gateway.config["models"][0]["candidates"][0].update({"tools": False, "json_schema": False})
    gateway.write_config()
    gateway.start()
    listed = gateway.request("GET", "/v1/parameters/GigaChat-2").json["data"]["supported_parameters"]
    assert everything & set(listed) == {"response_format"}
    other = gateway.request("GET", "/v1/parameters/GigaChat-2-Pro").json["data"]["supported_parameters"]
    assert everything <= set(other)


@pytest.mark.parametrize("path", [MODEL, ESCAPED, "GigaChat-2-Pro"])
def test_parameters_of_one_model(gateway, path):
    answer = gateway.request("GET", f"/v1/parameters/{path}").json
    assert set(answer) == {"data"} and answer["data"]["model"] == MODEL
    model = gateway.request("GET", f"/v1/models/{ESCAPED}").json
    assert answer["data"]["supported_parameters"] == model["supported_parameters"]


@pytest.mark.parametrize("path", ["/v1/models/", "/v1/parameters/"])
def test_what_a_key_may_not_use_does_not_exist_for_it(gateway, path):
    key = gateway.make_key("narrow", "--models", "GigaChat-2")
    assert gateway.request("GET", path + "GigaChat-2", key=key).status == 200
    for name in (ESCAPED, "nothing", "%zz"):
        answer = gateway.request("GET", path + name, key=key)
        assert (answer.status, answer.error["code"]) == (404, "model_not_found")
    listed = gateway.request("GET", "/v1/models", key=key).json["data"]
    assert [m["id"] for m in listed] == ["gigachat/GigaChat-2"]
    assert gateway.request("GET", path + ESCAPED, key=False).status == 401
