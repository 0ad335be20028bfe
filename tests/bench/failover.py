"""`make failover`: the first of two providers fails in fourteen ways and by two timeouts, ten thousand times; then
clients that read a kilobyte a second of a stream of 100 MB. Prints a line a figure, exits with 1 if one is missed.
FAILOVER_REQUESTS and FAILOVER_SECONDS shorten or lengthen it."""

import os
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))
os.environ["XROUTER_BUILD"] = sys.argv[1]

from harness import Gateway, Load, Sim, private_directory, remove_directory, wait_until  # noqa: E402
from upstreams import provider  # noqa: E402

REQUESTS = int(os.environ.get("FAILOVER_REQUESTS", "10000"))
SECONDS = int(os.environ.get("FAILOVER_SECONDS", "60"))
CLIENTS = 8
PART = min(REQUESTS // 10, 500)  # of the requests, between two successes of the first provider
NEXT_MS = 50  # from a failure to the next provider's request
STREAMS = 8
STREAM_KB = 512
# Those of the last list end by a timeout: how long the next one waits is the timeout's.
WAYS = ["status:500", "status:503:html", "status:429", "status:408", "status:401", "reset:0", "refuse:300",
        "bad_chunk:1", "big_header:80", "auth_always", "status:502", "cut:0", "malformed:0", "status:200:html"]  # fmt: skip
TIMEOUTS = ["slow_headers:2000", "slow_first:2000"]

missed = []


def tell(what, value, limit, unit, is_met):
    print(f"failover: {what:44} {value:>8} {unit} (limit {limit}){'' if is_met else '  MISSED'}", flush=True)
    if not is_met:
        missed.append(what)


def has_reset(sim):
    try:
        sim.reset()
    except ConnectionError:
        return False  # it plays "refuse"
    return True


def with_two(directory, sim, second):
    # Each request is to meet the failure: a breaker would spare all but the first.
    gateway = Gateway(directory, sim, options={"breaker": {"failures": 1000, "requests": 100000}})
    gateway.config["providers"] = [provider(sim, "one", first_byte_ms=300), provider(second, "two")]
    for model in gateway.config["models"]:
        name = model["candidates"][0]["model"]
        model["candidates"] = [{"provider": "one", "model": name}, {"provider": "two", "model": name, "priority": 1}]
    gateway.write_config()
    return gateway.start()


def gaps_ms(gateway, slow):
    """From a provider's failure to the next request, of all that two were asked for: those behind a 401, where a fresh
    token is asked for first, and all others."""
    requests = {}
    for line in gateway.rows("usage_attempts"):
        requests.setdefault(line["usage_id"], {})[line["number"]] = line
    others, behind_401 = [], []
    for lines in requests.values():
        numbers = sorted(lines)
        for one, two in zip(numbers, numbers[1:]):
            if lines[one]["duration_ms"] < slow:
                gaps = behind_401 if lines[one]["status"] == 401 else others
                gaps.append(lines[two]["started_at"] - lines[one]["started_at"] - lines[one]["duration_ms"])
    return sorted(behind_401), sorted(others)


def fail_over(directory, sim, second):
    gateway = with_two(directory, sim, second)
    failed, served = [], 0
    try:
        for way, count in [(way, PART) for way in WAYS for _ in range(-(-REQUESTS // len(WAYS) // PART))] + [
            (way, CLIENTS) for way in TIMEOUTS]:  # fmt: skip
            sim.script({"scenario": way, "times": -1})
            with Load(gateway, clients=CLIENTS, count=count, text="[[words:3]]") as load:
                load.join()
            served += len(load.delivered)
            failed += [(way, *fault) for fault in load.failed]
            wait_until(lambda: has_reset(sim), 5, "the simulator to listen again")
            # A success, so that the failures in a row stay below the breaker's.
            wait_until(lambda: gateway.chat().headers["x-xrouter-provider"] == "one", 10, "the first provider")
        gateway.wait_usage(served, 30)
    finally:
        gateway.stop()
    for fault in failed[:10]:
        print("failover:", fault)
    tell(f"errors of {served + len(failed)} requests that a client saw", len(failed), 0, "", not failed)
    behind_401, gaps = gaps_ms(gateway, 250)
    asked = len(gaps) + len(behind_401)
    late = gaps[int(len(gaps) * 0.999)]
    tell("requests that two providers were asked for", asked, REQUESTS, "", asked >= REQUESTS)
    tell("the second begins after the failure, p50", gaps[len(gaps) // 2], NEXT_MS, "ms", True)
    tell("  after a 401 and a fresh token, p50", behind_401[len(behind_401) // 2], "none", "ms", True)
    tell("the second begins after the failure, p99.9", late, NEXT_MS, "ms", late <= NEXT_MS)


def pss_kb(gateway):
    total = 0
    for worker in gateway.processes("worker"):
        for line in Path(f"/proc/{worker['pid']}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


def open_slowly(gateway):
    """A stream whose client has small buffers and has read nothing but the head so far."""
    body = b'{"model":"GigaChat-2","stream":true,"messages":[{"role":"user","content":"Hello"}]}'
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(10)
    client.connect(("127.0.0.1", gateway.ports["http"]))
    client.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        + f"Authorization: Bearer {gateway.key}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)  # fmt: skip
    assert client.recv(12) == b"HTTP/1.1 200"
    return client


def read_slowly(directory, sim):
    gateway = Gateway(directory, sim)
    gateway.start()
    try:
        for _ in range(20):
            gateway.chat()
        before = pss_kb(gateway)
        sim.reset()
        sim.script({"scenario": "burst:100", "times": -1})
        clients = [open_slowly(gateway) for _ in range(STREAMS)]
        most, received, end = 0, 0, time.monotonic() + SECONDS
        while time.monotonic() < end:
            for client in clients:
                received += len(client.recv(1024))
            most = max(most, pss_kb(gateway) - before)
            time.sleep(1)
        for client in clients:
            client.close()
        kept = most // STREAMS
        tell(f"memory of a stream read slowly for {SECONDS} s", kept, STREAM_KB, "KB", kept < STREAM_KB)
        tell("  read by each client in that time", received // STREAMS // 1024, SECONDS // 2, "KB",
             received // STREAMS // 1024 >= SECONDS // 2)  # fmt: skip
        wait_until(lambda: gateway.counter("requests_in_flight") == 0, 10, "the streams to end")
    finally:
        gateway.stop()


def main():
    directory = private_directory()
    (directory / "two").mkdir()
    (directory / "slow").mkdir()
    sim, second = Sim(directory), Sim(directory / "two")
    sim.start()
    second.start()
    try:
        fail_over(directory, sim, second)
        sim.reset()
        read_slowly(directory / "slow", sim)
    finally:
        sim.stop()
        second.stop()
        remove_directory(directory)
    return 1 if missed else 0


sys.exit(main())
