"""/metrics, /health and /ready, read the way Prometheus reads them."""

import math
import re
import time

from harness import wait_until

SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)\Z")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|\Z)')
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}


def read_labels(text):
    labels, at = [], 0
    while text is not None and at < len(text):
        match = LABEL.match(text, at)
        assert match, f"bad labels: {text}"
        labels.append((match[1], match[2]))
        at = match.end()
    assert len({name for name, _ in labels}) == len(labels)
    return tuple(sorted(labels))


def parse(text):
    """The text format, strictly: {(name, labels): value} and {family: type}."""
    samples, types, helped, family = {}, {}, set(), None
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            family, words = line[7:].split(" ", 1)
            assert family not in helped and words.strip(), line
            helped.add(family)
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            assert name == family and name not in types and kind in SUFFIXES, line
            types[name] = kind
        else:
            match = SAMPLE.match(line)
            assert match, f"bad line: {line}"
            name, labels, value = match[1], read_labels(match[2]), float(match[3])
            assert name in [family + s for s in SUFFIXES[types[family]]], f"{line} in {family}"
            assert (name, labels) not in samples, f"twice: {line}"
            assert math.isfinite(value) and value >= 0, line
            samples[name, labels] = value
    assert helped == set(types)
    return samples, types


def scrape(gateway):
    answer = gateway.ops("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse(answer.body.decode())


def histograms(samples, types):
    """{(family, labels without le): [(bound, cumulative count)]}, with sum and count checked."""
    for family in [name for name, kind in types.items() if kind == "histogram"]:
        series = {}
        for (name, labels), value in samples.items():
            if name == family + "_bucket":
                rest = tuple(pair for pair in labels if pair[0] != "le")
                bound = dict(labels)["le"]
                series.setdefault(rest, []).append((float(bound.replace("+Inf", "inf")), value))
        assert series, family
        for rest, buckets in series.items():
            yield family, rest, buckets


def test_metrics_are_well_formed(gateway):
    gateway.chat()
    samples, types = scrape(gateway)
    assert len(types) > 40
    assert all(name.startswith("xrouter_") for name in types)
    for name, kind in types.items():
        # A counter says so by its name; units are seconds, bytes and credits.
        assert (kind == "counter") == name.endswith("_total"), name
        assert not re.search(r"_(ms|us|ns|nano|kb)(_|$)", name), name
    assert types["xrouter_requests_total"] == "counter"
    assert types["xrouter_requests_in_flight"] == "gauge"


def test_histograms_are_cumulative(gateway):
    for words in (1, 20):
        gateway.chat(f"[[words:{words}]] [[first_ms:{words}]]")
    # Observed when the answer has left, which is a moment after the client has it.
    wait_until(
        lambda: scrape(gateway)[0]["xrouter_request_duration_seconds_count", ()] == 2,
        what="two observations",
    )
    samples, types = scrape(gateway)
    count = 0
    for family, rest, buckets in histograms(samples, types):
        bounds = [bound for bound, _ in buckets]
        counts = [value for _, value in buckets]
        assert bounds == sorted(bounds) and bounds[-1] == math.inf, family
        assert counts == sorted(counts), family
        assert counts[-1] == samples[family + "_count", rest]
        if counts[-1] > 0:
            assert samples[family + "_sum", rest] <= counts[-1] * 60
        count += 1
    assert count >= 3
    assert 0.02 < samples["xrouter_request_duration_seconds_sum", ()] < 30


def test_counters_go_up_by_what_happened(make_gateway, sim):
    gateway = make_gateway(options={"retry": {"attempts": 1}})
    before, _ = scrape(gateway)
    usage = gateway.chat().json["usage"]
    list(gateway.stream("[[words:5]]").events())
    gateway.chat(key="sk-xr-" + "x" * 43)
    gateway.chat("[[sim:status:500]]")
    gateway.wait_usage(3)
    wait_until(
        lambda: sum(scrape(gateway)[0][f"xrouter_responses_{n}xx_total", ()] for n in (2, 4, 5)) == 4,
        what="four answers",
    )

    def grown(name, **labels):
        key = ("xrouter_" + name, tuple(sorted(labels.items())))
        return after[key] - before.get(key, 0)

    after, _ = scrape(gateway)
    assert grown("requests_total") == 4
    assert grown("responses_2xx_total") == 2
    assert grown("responses_4xx_total") == 1 and grown("auth_failures_total") == 1
    assert grown("responses_5xx_total") == 1 and grown("errors_provider_total") == 1
    assert grown("streams_total") == 1 and grown("stream_chunks_total") >= 5
    assert grown("tokens_output_total") > usage["completion_tokens"]
    assert grown("events_queued_total") == grown("events_committed_total") == 3
    assert after["xrouter_requests_in_flight", ()] == 0
    assert round(grown("cost_credits_total"), 9) == float(gateway.usage(by="model")["total"]["cost"])
    labelled = {
        (name, dict(labels).get("model")): value
        for (name, labels), value in after.items()
        if "model" in dict(labels)
    }
    assert labelled["xrouter_model_requests_total", "gigachat/GigaChat-2"] == 3
    provider = {
        name: value for (name, labels), value in after.items() if ("provider", "gigachat") in labels
    }
    assert provider["xrouter_provider_requests_total"] == 3
    assert provider["xrouter_provider_failures_total"] == 1
    assert provider["xrouter_provider_in_flight"] == 0
    # Never down, whatever is asked in between.
    again, types = scrape(gateway)
    for key, value in after.items():
        if key[0].endswith(("_total", "_bucket", "_count")):
            assert again[key] >= value, key


def test_gauges_show_what_runs(gateway, sim):
    stream = gateway.stream("[[words:200]] [[chunk_ms:20]]")
    next(stream.events())
    samples, _ = scrape(gateway)
    assert samples["xrouter_requests_in_flight", ()] == 1
    assert samples["xrouter_upstream_connections_open", ()] >= 1
    stream.close()
    wait_until(
        lambda: scrape(gateway)[0]["xrouter_requests_in_flight", ()] == 0, what="an empty gauge"
    )
    assert scrape(gateway)[0]["xrouter_clients_gone_total", ()] == 1


def test_stat_prom_says_the_same(gateway):
    gateway.chat()
    gateway.wait_usage(1)
    told, types = parse(gateway.ctl("stat", "--prom").stdout)
    served, served_types = scrape(gateway)
    assert types == served_types and set(told) == set(served)
    moving = ("connections", "log_lines")
    for key, value in told.items():
        if not any(word in key[0] for word in moving):
            assert served[key] == value, key


def test_odd_names_are_escaped(make_gateway):
    gateway = make_gateway(start=False)
    name = 'odd "name" \\ with all'
    gateway.config["models"][0]["id"] = name
    gateway.write_config()
    gateway.start()
    gateway.chat()
    samples, _ = scrape(gateway)
    shown = name.replace("\\", "\\\\").replace('"', '\\"')
    assert any(("model", shown) in labels for _, labels in samples)


def test_health_and_ready(gateway):
    assert gateway.ops("/health").json == {"status": "ok"}
    assert gateway.ops("/ready").json == {"status": "ready"}
    assert gateway.ops("/v1/models").status == 404
    assert gateway.request("GET", "/metrics").status in (401, 404)
    assert gateway.request("POST", "/metrics", b"", key=False, listener="ops").status == 405


def test_a_scrape_is_quick(gateway):
    begun = time.monotonic()
    for _ in range(20):
        scrape(gateway)
    assert time.monotonic() - begun < 5
