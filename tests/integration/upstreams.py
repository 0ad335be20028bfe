"""Providers of a gateway's configuration, for tests with more than one."""

from harness import SLOW


def provider(sim, name, **fields):
    return dict({
        "name": name, "type": "gigachat", "base_url": sim.url, "auth_url": sim.url + "/api/v2/oauth",
        "credentials": "file:credentials", "max_concurrent": 10000, "facts_ms": 0, "connect_ms": int(5000 * SLOW)},
        **fields)  # fmt: skip
