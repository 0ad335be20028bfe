"""Gateway + router: the order of the candidates, what a request needs of them, and what it wishes."""

import threading

from harness import SLOW, wait_until
from upstreams import provider


def candidate(name, model="GigaChat-2", **fields):
    return dict({"provider": name, "model": model}, **fields)


PRICES = [{"input": "500", "output": "1000"}]


def with_models(make_gateway, sim, second, models, limit=10000, **options):
    gateway = make_gateway(start=False, options=options or None)
    gateway.config["providers"] = [provider(sim, "one", max_concurrent=limit), provider(second, "two")]
    gateway.config["models"] = [
        dict({"id": name, "tokenizer": "chars3", "prices": PRICES}, **model) for name, model in models.items()
    ]
    gateway.write_config()
    return gateway.start()


def both(**model):
    return dict({"candidates": [candidate("one"), candidate("two")]}, **model)


def who(gateway, model="m", **fields):
    answer = gateway.chat(model=model, **fields)
    assert answer.status == 200, answer.body
    return answer.headers["x-xrouter-provider"]


def test_weighted_shares(make_gateway, sim, second):
    gateway = with_models(make_gateway, sim, second, {
        "m": {"strategy": "weighted", "candidates": [candidate("one", weight=1), candidate("two", weight=3)]},
        "last": {"strategy": "weighted", "candidates": [candidate("one", weight=0), candidate("two")]},
    })  # fmt: skip
    seen = [who(gateway) for _ in range(200)]
    assert 25 <= seen.count("one") <= 80
    assert {who(gateway, "last") for _ in range(20)} == {"two"}
    second.script({"scenario": "status:500", "times": 1})
    assert who(gateway, "last") == "one"


def test_latency(make_gateway, sim, second):
    gateway = with_models(make_gateway, sim, second, {"m": both(strategy="latency")})
    sim.script({"scenario": f"slow_headers:{int(200 * SLOW)}", "times": 1})
    assert who(gateway) == "one" and who(gateway) == "two", "each is measured first"
    assert {who(gateway) for _ in range(5)} == {"two"}


def test_busy(make_gateway, sim, second):
    gateway = with_models(make_gateway, sim, second, {"m": both(strategy="busy")}, limit=4)
    running = gateway.stream("[[words:300]] [[chunk_ms:20]]", model="m")
    next(running.events())
    assert running.headers["x-xrouter-provider"] == "one"
    assert who(gateway) == "two"
    running.close()
    wait_until(lambda: who(gateway) == "one", 5, "a free slot")


def test_cost_and_the_candidates_own_price(make_gateway, sim, second):
    cheap = [{"input": "100", "output": "100"}]
    gateway = with_models(make_gateway, sim, second, {
        "m": {"strategy": "cost", "candidates": [candidate("one"), candidate("two", prices=cheap)]}})  # fmt: skip
    answer = gateway.chat(model="m")
    assert answer.headers["x-xrouter-provider"] == "two"
    cheap_usage = answer.json["usage"]
    answer = gateway.chat(model="m", provider={"ignore": ["two"]})
    assert answer.headers["x-xrouter-provider"] == "one"
    usage = answer.json["usage"]
    gateway.wait_usage(2)
    told = gateway.ctl_json("ledger", "reprice", "--dry-run")
    assert told["total"]["requests"] == 2 and told["rows"] == []
    assert gateway.stop() == 0
    rows = {row["provider"]: row for row in gateway.rows()}
    assert rows["two"]["cost"] == 100_000 * cheap_usage["total_tokens"]
    assert rows["two"]["price_input"] == 100 * 10**9
    cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
    assert rows["one"]["cost"] == 500_000 * (usage["prompt_tokens"] - cached) + 10**6 * usage["completion_tokens"]


def test_reservation_is_for_the_dearest(make_gateway, sim, second):
    dear = [{"input": "500", "output": "1000000"}]
    gateway = with_models(make_gateway, sim, second, {
        "m": {"candidates": [candidate("one"), candidate("two", prices=dear)]}})  # fmt: skip
    key = gateway.make_key("poor", "--credits", "5")
    assert gateway.chat(model="m", key=key, max_tokens=10).status == 402
    assert gateway.chat(model="m", key=key, max_tokens=10, provider={"only": ["one"]}).status == 200


def test_needs(make_gateway, sim, second):
    gateway = with_models(make_gateway, sim, second, {
        "m": {"candidates": [candidate("one", tools=False), candidate("two")]},
        "none": {"candidates": [candidate("one", tools=False, images=False, json_schema=False)]},
    })  # fmt: skip
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    assert who(gateway) == "one"
    assert who(gateway, tools=tools) == "two"
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}]
    for param, fields in {
        "tools": {"tools": tools},
        "response_format": {"response_format": schema},
        "messages": {"messages": image},
    }.items():
        refused = gateway.chat(model="none", **fields)
        assert refused.status == 400 and refused.error["code"] == "unsupported_parameter"
        assert refused.error["param"] == param


def test_wishes(make_gateway, sim, second):
    gateway = with_models(make_gateway, sim, second, {"m": both()})
    assert who(gateway, provider={"order": ["two"]}) == "two"
    assert who(gateway, provider={"only": ["two"]}) == "two"
    assert who(gateway, provider={"ignore": ["one"]}) == "two"
    sim.script({"scenario": "status:500", "times": -1})
    assert who(gateway) == "two"
    alone = gateway.chat(model="m", provider={"allow_fallbacks": False})
    assert alone.status == 502
    for wishes, param in (
        ({"order": ["two", "three"]}, "provider.order[1]"),
        ({"max_price": {"prompt": 499.999999999}}, "provider.max_price"),
        ({"sort": "fastest"}, "provider.sort"),
    ):
        refused = gateway.chat(model="m", provider=wishes)
        assert refused.status == 400 and refused.error["param"] == param, refused.body


def test_further_models(make_gateway, sim, second):
    gateway = with_models(make_gateway, sim, second, {
        "first": {"candidates": [candidate("one")], "aliases": ["nick"]},
        "next": {"candidates": [candidate("two", "GigaChat-2-Pro")], "prices": [{"output": "7"}]},
    })  # fmt: skip
    answer = gateway.chat(model="nick", models=["next"])
    assert answer.json["model"] == "nick"
    sim.script({"scenario": "status:500", "times": -1})
    answer = gateway.chat(model="nick", models=["next"])
    assert answer.status == 200 and answer.json["model"] == "next"
    chunks = gateway.stream(model="nick", models=["next"]).chunks()
    assert {chunk["model"] for chunk in chunks} == {"next"}
    body = {"messages": [{"role": "user", "content": "x"}], "models": ["next", "first"]}
    assert gateway.request("POST", "/v1/chat/completions", body).json["model"] == "next"
    refused = gateway.chat(model="first", models=["next", "gone"])
    assert refused.status == 404 and refused.error["param"] == "models[1]"
    gateway.wait_usage(4)
    assert gateway.stop() == 0
    rows = gateway.rows()
    assert sorted(row["model"] for row in rows) == ["first", "next", "next", "next"]
    assert all(row["cost"] == 7000 * row["tokens_output"] for row in rows if row["model"] == "next")


def test_default_model(make_gateway, sim, second):
    gateway = with_models(make_gateway, sim, second, {"m": both(aliases=["usual"])}, default_model="usual")
    messages = [{"role": "user", "content": "x"}]
    answer = gateway.request("POST", "/v1/chat/completions", {"messages": messages})
    assert answer.status == 200 and answer.json["model"] == "m"
    assert gateway.request("POST", "/v1/tokens/count", {"input": "x"}).json["model"] == "m"


def test_many_at_once_share_two_narrow_providers(make_gateway, sim, second):
    gateway = with_models(make_gateway, sim, second, {"m": both(strategy="busy")}, limit=2)
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(who(gateway))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 20
