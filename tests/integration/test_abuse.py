"""Those who only try: wrong keys in floods, more connections than anybody needs."""

import http.client

from harness import wait_until


def wrong(gateway, key="sk-xr-" + "x" * 43):
    return gateway.request("POST", "/v1/chat/completions", {}, key=key)


def test_a_flood_of_wrong_keys_is_refused_and_not_logged(make_gateway, sim):
    gateway = make_gateway(options={"limits": {"wrong_keys_per_minute": 5}}, workers=1)
    assert [wrong(gateway).status for _ in range(5)] == [401] * 5
    for _ in range(50):
        answer = wrong(gateway)
        assert answer.status == 429 and answer.error["code"] == "rate_limit_exceeded"
        assert "wrong API key" in answer.error["message"] and answer.headers["connection"] == "close"
        assert 0 < int(answer.headers["retry-after-ms"]) <= 60000
    assert gateway.request("GET", "/v1/models", key=False).status == 429  # none at all is no right one
    # Who has a right key does not notice, from the same address.
    assert gateway.chat().status == 200
    assert gateway.counter("wrong_key_refusals_total") == 51 and gateway.counter("auth_failures_total") == 56
    wait_until(lambda: any(line["status"] == 200 for line in gateway.access_log()), 5, "the access log")
    assert sum(line["status"] == 429 for line in gateway.access_log()) == 0
    assert sum(line["status"] == 401 for line in gateway.access_log()) == 5


def test_a_reload_changes_how_many_wrong_keys_are_borne(make_gateway):
    gateway = make_gateway(options={"limits": {"wrong_keys_per_minute": 1}}, workers=1)
    assert wrong(gateway).status == 401
    assert wrong(gateway).status == 429
    gateway.config["limits"]["wrong_keys_per_minute"] = 0
    gateway.write_config()
    gateway.ctl("reload")
    wait_until(lambda: wrong(gateway).status == 401, 5, "the new limit")


def test_connections_of_one_address_are_limited(make_gateway):
    gateway = make_gateway(options={"limits": {"connections_per_address": 3}}, workers=1)
    open_ones = []

    def is_served():
        connection = gateway.connect(timeout=5)
        try:
            connection.request("GET", "/v1/models", headers={"Authorization": "Bearer " + gateway.key})
            status = connection.getresponse().status
        except (ConnectionError, http.client.HTTPException):
            connection.close()
            return False
        open_ones.append(connection)
        return status == 200

    assert [wait_until(is_served, 5, "a connection") for _ in range(3)] == [True] * 3
    assert not is_served() and gateway.counter("address_refusals_total") > 0
    open_ones.pop().close()
    wait_until(is_served, 5, "the place of the one that left")
    # The ops listener has no such limit.
    assert gateway.ops("/health").status == 200
    for connection in open_ones:
        connection.close()
