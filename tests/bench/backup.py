"""A backup of a ledger with ten million requests while 1,000 events a second arrive: no request may be
slower for it, no event may be missing.

usage: backup.py BUILD DIRECTORY [ROWS]
"""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))
os.environ["XROUTER_BUILD"] = sys.argv[1]

from harness import BUILD, Gateway, Sim, wait_until  # noqa: E402

RATE = 1000
CLIENTS = 8
BASELINE_S = 8


class Clients:
    """RATE requests a second, each at its own moment; latencies by when they began."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.end = threading.Event()
        self.seen = []  # (begun, seconds)
        self.failed = 0
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def run(self, number):
        body = {
            "model": "GigaChat-2",
            "messages": [{"role": "user", "content": "[[words:4]] hello"}],
        }
        connection = self.gateway.connect()
        due = time.monotonic() + number / RATE
        while not self.end.is_set():
            time.sleep(max(0, due - time.monotonic()))
            begun = time.monotonic()
            self.gateway.send(connection, "POST", "/v1/chat/completions", body)
            answer = connection.getresponse()
            answer.read()
            self.seen.append((begun, time.monotonic() - begun))
            self.failed += answer.status != 200
            due += CLIENTS / RATE
        connection.close()

    def between(self, since, until):
        times = sorted(took for begun, took in self.seen if since <= begun < until)
        rate = len(times) / (until - since)
        return rate, times[len(times) // 2] * 1e3, times[len(times) * 99 // 100] * 1e3

    def stop(self):
        self.end.set()
        for thread in self.threads:
            thread.join()


def main():
    rows = int(sys.argv[3]) if len(sys.argv) > 3 else 10_000_000
    directory = Path(sys.argv[2]) / f"xr-backup-{os.getpid()}"
    state = directory / "state"
    state.mkdir(parents=True)
    subprocess.run([BUILD / "tests/bench/ledger", state, str(rows), "0"], check=True)
    sim = Sim(directory).start()
    gateway = Gateway(directory, sim)
    try:
        gateway.start()
        # The start's own verification first: it is not what is measured.
        wait_until(
            lambda: gateway.counter("ledger_verified_timestamp_seconds") > 0, 300, "verification"
        )
        clients = Clients(gateway)
        begun = time.monotonic()
        time.sleep(BASELINE_S)
        copied_from = time.monotonic()
        gateway.ctl("backup", directory / "copy.db")
        copied_until = time.monotonic()
        time.sleep(1)
        clients.stop()
        before = clients.between(begun + 1, copied_from)
        during = clients.between(copied_from, copied_until)
        size = (directory / "copy.db").stat().st_size
        print(f"backup of {size / 1e9:.1f} GB with its check: {copied_until - copied_from:.1f} s")
        for name, figures in (("before", before), ("during", during)):
            print("%-7s %5.0f requests/s, p50 %.2f ms, p99 %.2f ms" % (name, *figures))
        gateway.stop()  # which commits what is still on its way
        stored = sqlite3.connect(state / "xrouter.db").execute("SELECT count(*) FROM usage").fetchone()[0]
        print(f"requests: {len(clients.seen)} answered, {clients.failed} failed, {stored - rows} rows")
        return clients.failed != 0 or stored - rows != len(clients.seen)
    finally:
        gateway.stop()
        gateway.clear()
        sim.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
