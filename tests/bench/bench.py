"""The same load on the simulator directly, on nginx proxy_pass and on xrouter, in one run.

Prints one table with ratios to nginx. CPU is /proc/PID/schedstat (nanoseconds on a core), memory is
PSS. Each figure is the median of several rounds in which the three targets take turns, so that a
noisy machine disturbs all of them alike.
"""

import base64
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import time
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))
os.environ["XROUTER_BUILD"] = sys.argv[1]

from harness import Gateway, Sim, private_directory, remove_directory, wait_until  # noqa: E402

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SECONDS = int(os.environ.get("BENCH_SECONDS", "5"))
MODEL = "GigaChat-2"
COMPATIBLE_MODEL = "compatible"  # the same model by the adapter for OpenAI-compatible APIs
FILLER = "The quick brown fox jumps over the lazy dog and runs along the river bank. " * 11
STREAM_CHUNKS = 100
STREAM_GAP_MS = 20
STREAMS = 64

NGINX_CONFIG = """
worker_processes 1;
daemon off;
pid {dir}/nginx.pid;
error_log {dir}/nginx.error.log;
events {{ worker_connections 4096; }}
http {{
  access_log {dir}/nginx.access.log;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
  client_body_buffer_size 64k;
  keepalive_requests 1000000;
  tcp_nodelay on;
  upstream sim {{ server 127.0.0.1:{sim}; keepalive 256; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://sim;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""

# One request over and over; wrk calls request() per connection.
WRK_SCRIPT = """
wrk.method = "POST"
wrk.path = "/v1/chat/completions"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["User-Agent"] = "bench"
wrk.headers["Authorization"] = "Bearer {token}"
wrk.body = [==[{body}]==]
done = function(summary, latency, requests)
  io.write(string.format("RESULT %d %d %d %f %f %d\\n", summary.requests, summary.duration,
    summary.bytes, latency:percentile(50), latency:percentile(99),
    summary.errors.connect + summary.errors.read + summary.errors.write +
    summary.errors.status + summary.errors.timeout))
end
"""


def free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def cpu_ns(pids):
    total = 0
    for pid in pids:
        total += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    return total


def pss_kb(pids):
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


def chat_body(text, stream=False, model=MODEL):
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    if stream:
        body["stream"] = True
    return json.dumps(body)


class Nginx:
    def __init__(self, directory, sim_port):
        self.port = free_port()
        config = directory / "nginx.conf"
        config.write_text(NGINX_CONFIG.format(dir=directory, sim=sim_port, port=self.port))
        self.process = subprocess.Popen(["/usr/sbin/nginx", "-p", directory, "-c", config],
                                        stderr=subprocess.DEVNULL)  # fmt: skip
        wait_until(lambda: self.worker_pids(), what="nginx")

    def worker_pids(self):
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(p) for p in path.read_text().split()] if path.exists() else []

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Target:
    """One of the three: where it listens, with which token, and whose CPU counts."""

    def __init__(self, name, port, token, workers, writer=()):
        self.name, self.port, self.token = name, port, token
        self.workers, self.writer = workers, writer


class Run:
    def __init__(self, directory):
        self.directory = directory

    def load(self, target, body, connections, seconds, threads=1):
        """Returns requests, errors, requests/s, p50 and p99 in us, CPU us per request."""
        script = self.directory / "wrk.lua"
        script.write_text(WRK_SCRIPT.format(token=target.token, body=body))
        workers, writer = cpu_ns(target.workers), cpu_ns(target.writer)
        output = subprocess.run(
            ["wrk", "-t", str(threads), "-c", str(connections), "-d", f"{seconds}s", "--timeout",
             "60s", "-s", script, f"http://127.0.0.1:{target.port}"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        found = re.search(r"RESULT (\d+) (\d+) (\d+) ([\d.]+) ([\d.]+) (\d+)", output)
        assert found, output
        requests, duration_us = int(found[1]), int(found[2])
        assert requests > 0 and int(found[6]) == 0, f"{target.name}: {output}"
        time.sleep(0.2)  # the last events reach the ledger: their CPU belongs to this load
        return {
            "requests": requests,
            "rps": requests / (duration_us / 1e6),
            "p50": float(found[4]),
            "p99": float(found[5]),
            "worker_us": (cpu_ns(target.workers) - workers) / 1000 / requests,
            "writer_us": (cpu_ns(target.writer) - writer) / 1000 / requests,
        }

    def rounds(self, targets, body, connections, seconds):
        results = {t.name: [] for t in targets}
        for _ in range(ROUNDS):
            for target in targets:
                results[target.name].append(self.load(target, body, connections, seconds))
        return {
            name: {field: statistics.median(r[field] for r in rows) for field in rows[0]}
            for name, rows in results.items()
        }


def sim_token(sim):
    connection = http.client.HTTPConnection("127.0.0.1", sim.port)
    credentials = base64.b64encode(b"demo-client:demo-secret").decode()
    connection.request(
        "POST", "/api/v2/oauth", "scope=GIGACHAT_API_PERS",
        {"Authorization": "Basic " + credentials, "RqUID": str(uuid.uuid4()),
         "Content-Type": "application/x-www-form-urlencoded", "User-Agent": "bench"},
    )  # fmt: skip
    return json.loads(connection.getresponse().read())["access_token"]


def row(label, values, limit=None):
    """values: sim, nginx, xrouter; the ratio is xrouter to nginx."""
    cells = ["-" if v is None else f"{v:.1f}" for v in values]
    ratio = values[2] / values[1] if values[1] else None
    verdict = ""
    if limit is not None and ratio is not None:
        verdict = f"{'pass' if ratio <= limit else 'MISS'} (at most {limit})"
    print(
        f"{label:<44} {cells[0]:>9} {cells[1]:>9} {cells[2]:>9} "
        f"{'-' if ratio is None else f'{ratio:.2f}':>7}  {verdict}"
    )
    return verdict.startswith("MISS")


def memory_with_streams(run, sim, target, streams=1000):
    """PSS in MB of the target's workers with that many streams open."""
    script = run.directory / "wrk.lua"
    script.write_text(
        WRK_SCRIPT.format(
            token=target.token,
            body=chat_body("[[words:200]] [[chunk_ms:100]] " + "x" * 200, stream=True),
        )
    )
    wrk = subprocess.Popen(
        ["wrk", "-t", "1", "-c", str(streams), "-d", "12s", "--timeout", "60s", "-s", script,
         f"http://127.0.0.1:{target.port}"],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: sim.stats()["in_flight"] >= streams, 20, f"{streams} streams")
        time.sleep(3)  # let every stream carry chunks for a while
        return pss_kb(target.workers) / 1024
    finally:
        wrk.wait()
        wait_until(lambda: sim.stats()["in_flight"] == 0, 20, "the end of the streams")


def gateway_with_both_dialects(directory, sim):
    gateway = Gateway(directory, sim, workers=1)
    (directory / "api-key").write_text("sk-sim")
    gateway.config["providers"].append({
        "name": "compatible", "type": "openai", "base_url": sim.url + "/openai/v1",
        "credentials": "file:api-key", "max_concurrent": 10000, "facts_ms": 0})  # fmt: skip
    gateway.config["models"].append({
        "id": COMPATIBLE_MODEL, "tokenizer": "chars3",
        "candidates": [{"provider": "compatible", "model": MODEL}]})  # fmt: skip
    gateway.write_config()
    return gateway


def main():
    directory = private_directory()
    sim = Sim(directory, chunk_words=1).start()
    nginx = Nginx(directory, sim.port)
    gateway = gateway_with_both_dialects(directory, sim).start()
    token = sim_token(sim)
    run = Run(directory)
    targets = [
        Target("sim", sim.port, token, [sim.process.pid]),
        Target("nginx", nginx.port, token, nginx.worker_pids()),
        Target("xrouter", gateway.ports["http"], gateway.key,
               [p["pid"] for p in gateway.processes("worker")], [gateway.pid("usage-writer")]),
    ]  # fmt: skip
    names = [t.name for t in targets]
    idle = pss_kb([p["pid"] for p in gateway.processes()]) / 1024
    missed = 0
    try:
        print(f"rounds {ROUNDS}, {SECONDS} s each; one nginx worker, one xrouter worker\n")
        print(f"{'':<44} {'sim':>9} {'nginx':>9} {'xrouter':>9} {'ratio':>7}")
        plain = run.rounds(targets, chat_body(FILLER + "[[words:20]]"), 32, SECONDS)
        missed += row("worker CPU per 1 KB request, us",
                      [plain[n]["worker_us"] for n in names], 2.2)  # fmt: skip
        missed += row("usage-writer CPU per request, us",
                      [None, plain["nginx"]["worker_us"], plain["xrouter"]["writer_us"]], 0.7)  # fmt: skip
        body = chat_body(FILLER + "[[words:20]]", model=COMPATIBLE_MODEL)
        compatible = run.rounds(targets[2:], body, 32, SECONDS)
        missed += row("  the same by an OpenAI-compatible API, us",
                      [plain["sim"]["worker_us"], plain["nginx"]["worker_us"],
                       compatible["xrouter"]["worker_us"]], 2.2)  # fmt: skip
        row("requests/s, 32 connections", [plain[n]["rps"] for n in names])
        single = run.rounds(targets, chat_body(FILLER + "[[words:20]]"), 1, SECONDS)
        added = {f: [None] + [single[n][f] - single["sim"][f] for n in names[1:]]
                 for f in ("p50", "p99")}  # fmt: skip
        missed += row("added p50, 1 connection, us", added["p50"], 2.0)
        row("added p99, 1 connection, us", added["p99"])
        body = chat_body(f"[[words:{STREAM_CHUNKS}]] [[chunk_ms:{STREAM_GAP_MS}]]", stream=True)
        seconds = max(6, SECONDS)
        stream = run.rounds(targets, body, STREAMS, seconds)
        per_chunk = [stream[n]["worker_us"] / STREAM_CHUNKS for n in names]
        missed += row(f"CPU per relayed chunk, {STREAMS} streams, us", per_chunk, 1.4)
        memory = [None] + [memory_with_streams(run, sim, t) for t in targets[1:]]
        row("PSS of one worker, 1,000 streams, MB", memory)
        verdict = "pass" if memory[2] <= 60 else "MISS"
        missed += verdict == "MISS"
        print(f"\n1,000 streams on one worker: {memory[2]:.1f} MB, {verdict} (at most 60)")
        print(f"all processes at the start, idle: {idle:.1f} MB PSS")
    finally:
        gateway.stop()
        nginx.stop()
        sim.stop()
        remove_directory(directory)
    print("\nall figures reached" if not missed else f"\n{missed} figures missed")
    return 0


sys.exit(main())
