"""Faults that are made to order: a failing disk, a clock that jumps, somebody at the database."""

import contextlib
import errno
import json
import mmap
import os
import sqlite3
import struct
import subprocess
import time

from harness import BUILD, SLOW, wait_until

# Faults last this part of the time their scenario names: 1 in `make soak`.
SCALE = float(os.environ.get("XROUTER_FAULT_SCALE", str(1 / 30)))


def lasting(seconds, least=1.0, most=2.0):
    """How long a fault of so many seconds lasts in this run; least and most are those of a short
    one."""
    return seconds * SCALE if SCALE >= 1 else min(max(seconds * SCALE, least), most) * SLOW


def let_pass(seconds):
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() - begun > seconds, seconds + 5, "the time")


def tell_sanitizers(gateway, option):
    """For a build with the address sanitizer; others do not read it."""
    options = [gateway.env.get("ASAN_OPTIONS"), option]
    gateway.env["ASAN_OPTIONS"] = ":".join(o for o in options if o)


def preload(gateway, name, variable, path):
    """The gateway's processes will load tests/faults/NAME.c, which reads the file at path."""
    library = BUILD / "tests" / "faults" / f"{name}.so"
    assert library.exists(), f"{library} is missing: make faults"
    gateway.env["LD_PRELOAD"] = str(library)
    gateway.env[variable] = str(path)
    tell_sanitizers(gateway, "verify_asan_link_order=0")  # the library comes before theirs


class Shared:
    """A file of 8-byte words that the gateway's processes have mapped as well."""

    def __init__(self, path, words):
        path.write_bytes(bytes(8 * words))
        with open(path, "r+b") as f:
            self.memory = mmap.mmap(f.fileno(), 8 * words)

    def get(self, word):
        return struct.unpack_from("=Q", self.memory, 8 * word)[0]

    def set(self, word, value):
        struct.pack_into("=q", self.memory, 8 * word, value)


class Disk:
    """What the usage-writer's database and log do: struct control of tests/faults/io_shim.c."""

    OPS = ("write", "sync", "truncate")
    FILES = ("other", "database", "log")
    PERMILLE, DONE, FAILED, RANDOM = 1, 10, 19, 28

    def __init__(self, gateway, seed=1):
        path = gateway.directory / "disk.control"
        self.shared = Shared(path, self.RANDOM + 1)
        self.shared.set(self.RANDOM, seed)
        preload(gateway, "io_shim", "XROUTER_FAULT_FILE", path)

    def word(self, table, op, file):
        return table + self.OPS.index(op) * len(self.FILES) + self.FILES.index(file)

    def fail(self, permille, ops=OPS, files=("database", "log"), error=errno.EIO):
        self.shared.set(0, error)
        for op in ops:
            for file in files:
                self.shared.set(self.word(self.PERMILLE, op, file), permille)

    def heal(self):
        self.fail(0)

    def done(self, op, file):
        return self.shared.get(self.word(self.DONE, op, file))

    def failed(self):
        return sum(
            self.shared.get(self.word(self.FAILED, op, file)) for op in self.OPS for file in self.FILES
        )

    def syncs(self):
        return self.done("sync", "log") + self.done("sync", "database")


class Clock:
    """The wall clock of the gateway's processes."""

    def __init__(self, gateway):
        path = gateway.directory / "clock.offset"
        self.shared = Shared(path, 1)
        preload(gateway, "clock_shim", "XROUTER_CLOCK_FILE", path)

    def shift(self, seconds):
        self.shared.set(0, int(seconds * 1000))


class Names:
    """Look-ups by the gateway's processes: NAME.test is this machine, and NAME.hole.test has a server that never
    answers while the hole is open."""

    def __init__(self, gateway, is_open):
        path = gateway.directory / "dns.hole"
        self.shared = Shared(path, 1)
        self.shared.set(0, int(is_open))
        preload(gateway, "dns_shim", "XROUTER_DNS_FILE", path)

    def close_hole(self):
        self.shared.set(0, 0)


def database(gateway):
    return gateway.directory / "state" / "xrouter.db"


@contextlib.contextmanager
def somebody_at(gateway, *statements):
    """Another program has the database open and has run the statements; it leaves at the end."""
    connection = sqlite3.connect(database(gateway), isolation_level=None, timeout=10 * SLOW)
    try:
        for statement in statements:
            connection.execute(statement).fetchall()
        yield connection
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.close()


@contextlib.contextmanager
def small_disk(path, kilobytes):
    """A file system of that size at path."""
    import pytest

    path.mkdir(mode=0o700, exist_ok=True)
    result = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,mode=700", "tmpfs", path],
        capture_output=True, text=True,
    )  # fmt: skip
    if result.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {result.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def fill(path, leave=0):
    """A file that takes all the space there is, but leave bytes."""
    with open(path, "wb") as f:
        with contextlib.suppress(OSError):
            while True:
                os.write(f.fileno(), bytes(4096))
        if leave:
            f.truncate(max(0, os.fstat(f.fileno()).st_size - leave))


def memory_kb(pid):
    """A process' own memory: what it shares (the rings) is bounded by design."""
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("RssAnon:"))


def events_of(gateway, name):
    """Lines of the error log about one thing."""
    return [line for line in gateway.error_log() if line["event"] == name]


def is_failing(gateway):
    return gateway.counter("ledger_failing") == 1


def committed(gateway):
    """Rows (the counter knows only commits that were seen to succeed), 0 if nobody can tell."""
    result = gateway.ctl("usage", "--by", "model", "--json", check=False)
    return json.loads(result.stdout)["total"]["requests"] if result.returncode == 0 else 0


def wait_progress(load, more=20):
    seen = len(load.delivered)
    wait_until(lambda: len(load.delivered) >= seen + more, 20, "progress of the load")


def wait_committed(gateway, *loads, seconds=10):
    """Every answer that was delivered, of all loads so far, has its row."""
    count = sum(len(load.delivered) for load in loads)
    wait_until(lambda: committed(gateway) >= count, seconds, "an exact ledger")
