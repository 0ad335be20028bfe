"""Processes die, stop or cannot be started: nothing is lost, nothing counts twice."""

import contextlib
import os
import random
import resource
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import threading
import time
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest

from harness import (
    SLOW,
    Gateway,
    Load,
    Sim,
    alive,
    private_directory,
    read_rest,
    remove_directory,
    wait_until,
)
from ledger import ROUNDS, assert_exact, assert_ledger_clean, rounds

# A stream of 20 tokens that takes 100 ms: most requests are in flight when something dies.
TEXT = "[[words:20]] [[chunk_ms:5]] [[first_ms:5]]"
# The machine's noise, on top of what is promised.
NOISE = 3


def ready_pids(gateway, role):
    return {p["pid"] for p in gateway.processes(role) if p["state"] == "ready"}


def wait_replaced(gateway, role, old_pid, count=1, seconds=10):
    """Waits until as many as before are ready, none of them the dead one."""

    def replaced():
        pids = ready_pids(gateway, role)
        return old_pid not in pids and len(pids) == count

    wait_until(replaced, seconds, f"another {role}")


def wait_progress(load, more=20):
    seen = len(load.delivered)
    wait_until(lambda: len(load.delivered) >= seen + more, 20, "progress of the load")


def accepted(pid, port):
    """Connections to our port that a process has accepted: what its death may cost."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    with open("/proc/net/tcp", encoding="ascii") as f:
        lines = [line.split() for line in f][1:]
    return sum(
        1
        for line in lines
        if line[9] in inodes and int(line[1].split(":")[1], 16) == port and line[3] != "0A"
    )


def wait_quiet(gateway):
    """Nothing in flight and no client connected, as everything that asks the gateway sees it."""

    def quiet():
        counters = gateway.stat()["counters"]
        return counters["requests_in_flight"] == 0 and counters["connections_open"] == 0

    wait_until(quiet, 5, "gauges at zero")
    assert all(p["in_flight"] == 0 for p in gateway.stat()["providers"])
    assert gateway.ctl_json("requests")["requests"] == []


def test_killed_workers_cost_only_what_they_had_accepted(make_gateway, sim):
    """Scenario 1."""
    gateway = make_gateway()
    at_risk, times = 0, []
    count = 2 * rounds(3)
    with Load(gateway, clients=12, stream_share=0.7, text=TEXT) as load:
        wait_progress(load)
        started = [time.monotonic()] * 2
        for number in range(count):
            slot = number % 2
            # One that has lived for a second is replaced at once, however often that happens.
            wait_until(lambda s=slot: time.monotonic() - started[s] > 1.05, what="a second's life")
            pid = next(p["pid"] for p in gateway.processes("worker") if p["slot"] == slot)
            # Stopped first, so that what it has accepted stands still while we count.
            os.kill(pid, signal.SIGSTOP)
            at_risk += accepted(pid, gateway.ports["http"])
            killed = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            wait_replaced(gateway, "worker", pid, 2)
            started[slot] = time.monotonic()
            times.append(started[slot] - killed)
            wait_progress(load)
        deaths = gateway.counter("worker_deaths_total")
    assert deaths == count
    assert len(load.failed) <= at_risk, f"{at_risk} were accepted, failed: {load.failed}"
    print(f"ready again: {[round(t * 1000) for t in times]} ms")
    assert statistics.median(times) < 0.2 * SLOW
    wait_quiet(gateway)
    asked = len(load.delivered) + len(load.failed)
    assert gateway.stop() == 0
    assert_exact(gateway, sim, load.delivered, asked)
    # Each request of a dead worker that had got a part of its answer says so.
    for row in gateway.rows():
        if row["outcome"] == 3:
            assert row["source"] in (0, 3) and (row["source"] == 0) == (row["cost"] == 0)


def test_a_dead_worker_is_back_within_200_ms(make_gateway, record_property):
    gateway = make_gateway(workers=1)
    times = []
    for _ in range(3):
        pid = gateway.pid("worker")
        os.kill(pid, signal.SIGKILL)
        begun = time.monotonic()
        # The listening socket is the master's: the connection waits for the next worker.
        assert gateway.request("GET", "/v1/models").status == 200
        times.append(time.monotonic() - begun)
    record_property("respawn_ms", [round(t * 1000, 1) for t in times])
    print(f"kill to answer: {[round(t * 1000, 1) for t in times]} ms")
    # The third death within a second waits 100 ms on purpose.
    assert statistics.median(times) < 0.2 * SLOW * NOISE
    assert min(times) < 0.2 * SLOW


def test_stopped_worker_is_replaced(make_gateway, sim):
    """Scenario 4."""
    gateway = make_gateway(options={"timeouts": {"watchdog_ms": int(400 * SLOW)}})
    with Load(gateway, clients=8, stream_share=0.7, text=TEXT) as load:
        wait_progress(load)
        pid = next(p["pid"] for p in gateway.processes("worker"))
        os.kill(pid, signal.SIGSTOP)
        at_risk = accepted(pid, gateway.ports["http"])
        begun = time.monotonic()
        wait_progress(load, 5)  # the other one takes what is new
        wait_replaced(gateway, "worker", pid, 2)
        replaced = time.monotonic() - begun
        wait_progress(load)
        stat = gateway.stat()["counters"]
    assert stat["watchdog_kills_total"] == 1 and stat["worker_deaths_total"] == 1
    assert replaced < 3.5 * SLOW
    assert max(load.latencies) < 3.5 * SLOW
    assert len(load.failed) <= at_risk
    wait_quiet(gateway)
    assert gateway.stop() == 0
    assert any(line["event"] == "worker_silent" for line in gateway.error_log())
    assert_exact(gateway, sim, load.delivered, len(load.delivered) + len(load.failed))


def test_watchdog_is_one_at_a_time_and_can_be_off(make_gateway):
    gateway = make_gateway(options={"timeouts": {"watchdog_ms": 0}})
    pids = ready_pids(gateway, "worker")
    stopped = min(pids)
    os.kill(stopped, signal.SIGSTOP)
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() - begun > 0.5, what="half a second")
    assert ready_pids(gateway, "worker") == pids
    assert gateway.chat().status == 200
    os.kill(stopped, signal.SIGCONT)
    assert gateway.stop() == 0


def fix_ports(gateway):
    """The next start gets the ports of this one."""
    for name, port in gateway.ports.items():
        gateway.config["listen"][name] = f"127.0.0.1:{port}"
    gateway.write_config()


def test_workers_outlive_the_master_to_drain(make_gateway, sim):
    """Scenario 5: no orphan after the deadline; the next start binds at first try."""
    deadline = 1.0 * SLOW
    gateway = make_gateway(options={"timeouts": {"stop_timeout_ms": int(deadline * 1000)}})
    fix_ports(gateway)
    load = Load(gateway, clients=4, stream_share=0.5, text=TEXT)
    with load:
        wait_progress(load)
        short = gateway.stream("[[words:10]] [[chunk_ms:30]]")
        long = gateway.stream("[[words:1000]] [[chunk_ms:100]]")
        next(long.events())
        pids = [p["pid"] for p in gateway.processes() if p["role"] != "master"]
        gateway.process.kill()
        gateway.process.wait()
        killed = time.monotonic()
        load.stop_event.set()
        events = list(short.events())
        assert events[-1] == "[DONE]"
        last = read_rest(long.events())[-1]
        assert last != "[DONE]" and "draining" in last
    wait_until(lambda: not any(alive(pid) for pid in pids), 5, "the end of the orphans")
    assert time.monotonic() - killed < deadline + 1 * SLOW + NOISE
    delivered = load.delivered + [short.headers["x-request-id"]]
    gateway.start()
    assert gateway.chat().status == 200
    assert gateway.stop() == 0
    assert_exact(gateway, sim, [i for i in delivered if i])


def test_restart_waits_for_the_workers_of_a_killed_master(make_gateway, sim):
    gateway = make_gateway(options={"timeouts": {"stop_timeout_ms": int(5000 * SLOW)}})
    fix_ports(gateway)
    stream = gateway.stream("[[words:20]] [[chunk_ms:30]]")
    events = stream.events()
    next(events)
    gateway.process.kill()
    gateway.process.wait()
    # Started while the old workers still drain, in a thread: they must be allowed to finish.
    starter = threading.Thread(target=gateway.start)
    starter.start()
    assert list(events)[-1] == "[DONE]"
    starter.join()
    assert gateway.chat().status == 200
    assert gateway.stop() == 0
    assert_exact(gateway, sim, [stream.headers["x-request-id"]])


def test_killed_writer_is_not_noticed(make_gateway, sim):
    """Scenario 7."""
    gateway = make_gateway()
    count = rounds(6)
    with Load(gateway, clients=8, stream_share=0.7, text=TEXT) as load:
        wait_progress(load)
        for _ in range(count):
            pid = gateway.pid("usage-writer")
            os.kill(pid, signal.SIGKILL)
            wait_replaced(gateway, "usage-writer", pid)
            wait_progress(load, 5)
    assert load.failed == []
    begun = time.monotonic()
    wait_until(lambda: committed(gateway) >= len(load.delivered), 5, "every answer in the ledger")
    print(f"exact after {time.monotonic() - begun:.2f} s")
    assert gateway.ctl_json("usage", "--by", "model")["total"]["requests"] == len(load.delivered)
    wait_quiet(gateway)
    assert gateway.stop() == 0
    assert len(gateway.rows()) == len(load.delivered)
    assert_exact(gateway, sim, load.delivered)


def test_events_of_living_workers_reach_the_writer_once(make_gateway, sim):
    """Their rings are the writer's only when they are dead."""
    gateway = make_gateway()
    with Load(gateway, clients=8, stream_share=0.0, text="[[words:2]]") as load:
        wait_progress(load, 300)
    wait_quiet(gateway)
    wait_until(lambda: committed(gateway) >= len(load.delivered), 5, "every answer in the ledger")
    assert gateway.counter("events_duplicate_total") == 0
    # A dead one's ring is drained without its worker; its successor sends again.
    pid = gateway.pid("worker")
    os.kill(pid, signal.SIGKILL)
    wait_replaced(gateway, "worker", pid, 2)
    answers = [gateway.chat() for _ in range(8)]
    assert gateway.stop() == 0
    assert_exact(gateway, sim, load.delivered + [a.headers["x-request-id"] for a in answers])


def committed(gateway):
    return gateway.ctl_json("usage", "--by", "model")["total"]["requests"]


def percentile(values, share):
    return sorted(values)[int(share * (len(values) - 1))]


def test_stopped_writer_is_bridged_by_the_spool(make_gateway, sim):
    """Scenario 8."""
    seconds = float(os.environ.get("XROUTER_WRITER_STOP_S", "2"))
    # Half of it is full after a second or two; the other half is room for a slow disk.
    gateway = make_gateway(workers=1, options={"limits": {"outbox_bytes": 262144}})
    spool = gateway.directory / "state" / "spool"

    def load():
        # Paced by the provider, so that the machine is not the bottleneck.
        return Load(gateway, clients=8, stream_share=0.5, text="[[words:5]] [[first_ms:10]]")

    with load() as before:
        begun = time.monotonic()
        wait_until(lambda: time.monotonic() - begun > seconds, seconds + 5)
    pid = gateway.pid("usage-writer")
    with load() as during:
        wait_progress(during)
        os.kill(pid, signal.SIGSTOP)
        begun = time.monotonic()
        wait_until(lambda: time.monotonic() - begun > seconds, seconds + 5)
        wait_until(lambda: spool.exists() and list(spool.glob("*[0-9]")), 20, "use of the spool")
        os.kill(pid, signal.SIGCONT)
        back = time.monotonic()
    assert before.failed == [] and during.failed == []
    total = len(before.delivered) + len(during.delivered)
    wait_until(lambda: committed(gateway) >= total, 10, "the spool in the ledger")
    print(
        f"p99 {percentile(before.latencies, 0.99) * 1000:.1f} -> "
        f"{percentile(during.latencies, 0.99) * 1000:.1f} ms, drained after "
        f"{time.monotonic() - back:.2f} s, {total} requests"
    )
    assert percentile(during.latencies, 0.99) <= 3 * percentile(before.latencies, 0.99) + 0.02 * SLOW
    assert ready_pids(gateway, "usage-writer") == {pid}, "a silent writer is never killed"
    wait_until(lambda: not list(spool.iterdir()), 5, "an empty spool")
    assert gateway.stop() == 0
    assert_exact(gateway, sim, before.delivered + during.delivered)


def test_stop_with_a_stopped_writer_spools_the_rest(make_gateway, sim):
    """The writer cannot commit: the helper spools at the stop, the next start takes it over."""
    gateway = make_gateway()
    pid = gateway.pid("usage-writer")
    answers = [gateway.chat() for _ in range(3)]
    wait_until(lambda: committed(gateway) == 3, what="three rows")
    os.kill(pid, signal.SIGSTOP)
    answers += [gateway.chat() for _ in range(5)]
    # The second order is to stop now: the writer gets no ten seconds to come back.
    gateway.send_signal(signal.SIGTERM)
    wait_until(lambda: not gateway.processes("worker"), what="the end of the workers")
    begun = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - begun < 3 * SLOW
    assert len(list((gateway.directory / "state" / "spool").iterdir())) >= 1
    assert len(gateway.rows()) == 3
    gateway.start()
    wait_until(lambda: committed(gateway) == 8, what="the spooled rows")
    assert gateway.stop() == 0
    assert_exact(gateway, sim, [a.headers["x-request-id"] for a in answers])


def test_killed_helper_is_replaced_and_logs_go_on(make_gateway, sim):
    gateway = make_gateway()
    pid = gateway.pid("helper")
    os.kill(pid, signal.SIGKILL)
    wait_replaced(gateway, "helper", pid)
    answer = gateway.chat()
    wait_until(
        lambda: any(a["request_id"] == answer.headers["x-request-id"] for a in gateway.access_log()),
        what="its line in the access log",
    )
    assert gateway.stop() == 0


def test_everything_killed_at_once_loses_nothing(make_gateway, sim):
    gateway = make_gateway()
    fix_ports(gateway)
    delivered, asked = [], 0
    for _ in range(rounds(2)):
        load = Load(gateway, clients=10, stream_share=0.6, text=TEXT)
        with load:
            wait_progress(load, 40)
            load.stop_event.set()  # else refused clients would spin
            gateway.kill_all()
        delivered += load.delivered
        asked += len(load.delivered) + len(load.failed)
        stat = gateway.stat()
        assert stat["running"] is False
        assert stat["counters"]["requests_total"] >= len(load.delivered)
        gateway.start()
    assert gateway.chat().status == 200
    wait_quiet(gateway)
    assert gateway.stop() == 0
    assert gateway.leftovers() == []
    assert_exact(gateway, sim, delivered, asked + 1)


def test_a_worker_that_cannot_start_is_tried_with_growing_pauses(make_gateway):
    gateway = make_gateway()
    lock = gateway.directory / "run" / "xrouter.lock"
    kept = gateway.directory / "kept.lock"
    # Every child shares this lock when it starts: as a directory it cannot be opened.
    lock.rename(kept)
    lock.mkdir()
    pid = gateway.pid("worker")
    slot = next(p["slot"] for p in gateway.processes("worker") if p["pid"] == pid)
    os.kill(pid, signal.SIGKILL)

    def deaths():
        return [
            line["ts"]
            for line in gateway.error_log()
            if line["event"] == "process_died" and line.get("child_slot") == slot
        ]

    wait_until(lambda: len(deaths()) >= 5, 10, "five deaths in a row")
    times = [parse_ts(ts) for ts in deaths()][:5]
    gaps = [b - a for a, b in zip(times, times[1:])]
    # Twice at once, then after 100 and 200 ms; a death is noticed some milliseconds after it.
    assert gaps[2] >= 0.09 and gaps[3] >= 0.18, gaps
    assert gateway.chat().status == 200  # by the other one
    assert gateway.ops("/ready").status == 200
    lock.rmdir()
    kept.rename(lock)
    wait_replaced(gateway, "worker", pid, 2)
    assert gateway.stop() == 0


def parse_ts(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_failing_fork_is_retried_without_spinning(directory, sim, make_gateway):
    """Scenario 9: the limit of processes is per user, and root has none."""
    gateway = make_gateway(start=False)
    # The binary may lie where another user cannot go.
    gateway.binary = shutil.copy(gateway.binary, directory / "xrouter")
    change = []
    if os.geteuid() == 0:
        uid = 100000 + os.getpid()  # nobody else's: parallel tests do not share the limit
        change = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        for path in [directory, *directory.rglob("*")]:
            os.chown(path, uid, uid)
    gateway.prefix = change
    gateway.start()
    master = gateway.process.pid
    assert gateway.chat().status == 200

    def limit(soft):
        # The soft limit of a process of the same user needs no privilege.
        subprocess.run([*change, "prlimit", f"--pid={master}", f"--nproc={soft}:"], check=True)

    before = resource.getrlimit(resource.RLIMIT_NPROC)[0]  # the gateway has inherited it
    limit(1)
    pid = gateway.pid("worker")
    cpu, begun = cpu_seconds(master), time.monotonic()
    os.kill(pid, signal.SIGKILL)

    def refusals():
        return sum(line["event"] == "fork_failed" for line in gateway.error_log())

    wait_until(lambda: refusals() >= 2, 10, "two refused forks")
    spent = (cpu_seconds(master) - cpu) / (time.monotonic() - begun)
    assert spent < 0.05 + 0.05 * SLOW, f"the master spins: {spent:.0%}"
    assert refusals() <= 4
    assert gateway.chat().status == 200  # by the other one
    limit("unlimited" if before == resource.RLIM_INFINITY else before)
    raised = time.monotonic()
    wait_replaced(gateway, "worker", pid, 2)
    assert time.monotonic() - raised < 2 * SLOW + NOISE
    assert gateway.stop() == 0


# --- shared memory that is not ours

SHM = Path("/dev/shm")
SMALL = {"limits": {"outbox_bytes": 65536, "in_flight": 32, "keys": 64}}


@pytest.fixture(scope="module")
def old_segment():
    """The bytes of a crashed instance's segment, with requests in flight and events in its rings."""
    path = private_directory()
    simulator = Sim(path).start()
    gateway = Gateway(path, simulator, options=SMALL)
    try:
        gateway.start()
        os.kill(gateway.pid("usage-writer"), signal.SIGSTOP)
        for _ in range(5):
            gateway.chat()
        stream = gateway.stream("[[words:100]] [[chunk_ms:50]]")
        next(stream.events())
        gateway.kill_all()
        yield (SHM / gateway.shm_name()).read_bytes()
    finally:
        gateway.process = None
        gateway.clear()
        simulator.stop()
        remove_directory(path)


# The header: magic u64, version u32, region count u32, layout u64, size u64, start id 16, then
# entries of 24 bytes of name and offset, size and layout, each u64.
ENTRY = 48


def patched(data, offset, fmt, *values):
    data = bytearray(data)
    struct.pack_into(fmt, data, offset, *values)
    return bytes(data)


def region_bytes(data, name):
    for i in range(struct.unpack_from("<I", data, 12)[0]):
        at = ENTRY + i * ENTRY
        if data[at : at + 24].rstrip(b"\0") == name:
            return struct.unpack_from("<QQ", data, at + 24)
    raise AssertionError(f"no region {name}")


def garbled(data, name, pattern):
    offset, length = region_bytes(data, name)
    return data[:offset] + (pattern * (length // len(pattern) + 1))[:length] + data[offset + length :]


LAYOUTS = {
    "empty": lambda d: b"",
    "one byte": lambda d: b"x",
    "text": lambda d: b"this is not a segment\n" * 300,
    "zeros": lambda d: bytes(65536),
    "ones": lambda d: b"\xff" * 65536,
    "noise": lambda d: bytes((i * 7919 + (i >> 8)) & 255 for i in range(65536)),
    "wrong magic": lambda d: patched(d, 0, "<Q", 0x1122334455667788),
    "magic not stored yet": lambda d: patched(d, 0, "<Q", 0),
    "older version": lambda d: patched(d, 8, "<I", 0),
    "newer version": lambda d: patched(d, 8, "<I", 99),
    "other header": lambda d: patched(d, 16, "<Q", 1),
    "size too large": lambda d: patched(d, 24, "<Q", 1 << 62),
    "size too small": lambda d: patched(d, 24, "<Q", 4096),
    "many regions": lambda d: patched(d, 12, "<I", 0xFFFFFFFF),
    "no regions": lambda d: patched(d, 12, "<I", 0),
    "region at an odd place": lambda d: patched(d, ENTRY + 24, "<Q", 4097),
    "region beyond the end": lambda d: patched(d, ENTRY + 24, "<Q", 1 << 40),
    "region that wraps": lambda d: patched(d, ENTRY + 32, "<Q", (1 << 64) - 1),
    "region without an end of its name": lambda d: patched(d, ENTRY, "24s", b"x" * 24),
    "region of another layout": lambda d: patched(d, ENTRY + 40, "<Q", 1),
    "region table of noise": lambda d: patched(d, ENTRY, "480s", b"\xa5" * 480),
    "cut in the header": lambda d: d[:100],
    "cut after the header": lambda d: d[:4096],
    "cut in the middle": lambda d: d[: len(d) // 2],
    "cut by a byte": lambda d: d[:-1],
    "longer": lambda d: d + bytes(4096),
    "counters of noise": lambda d: garbled(d, b"counters", b"\xa5"),
    "processes of noise": lambda d: garbled(d, b"processes", b"\xa5"),
    "requests of noise": lambda d: garbled(d, b"inflight", b"\xa5"),
    "rings of noise": lambda d: garbled(d, b"outbox", b"\xa5"),
    "rings of zeros": lambda d: garbled(d, b"outbox", b"\0"),
    "requests of zeros": lambda d: garbled(d, b"inflight", b"\0"),
    "another instance's": lambda d: d,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_foreign_shared_memory_is_set_aside_or_refused(make_gateway, old_segment, layout):
    """Scenario 6: said so, never a crash, and the instance serves."""
    gateway = make_gateway(start=False, options=SMALL)
    (gateway.directory / "run").mkdir(mode=0o750)
    data = LAYOUTS[layout](old_segment)
    public = SHM / gateway.shm_name()
    public.write_bytes(data)
    (SHM / (gateway.shm_name() + ".secret")).write_bytes(data[:5000])
    gateway.start()
    assert gateway.chat().status == 200
    assert gateway.stop() == 0
    events = {line["event"] for line in gateway.error_log()} | {
        word for word in ("segment_set_aside", "recovery") if f'"{word}"' in gateway.logs()
    }
    kept = [name for name in gateway.shm_objects() if ".broken-" in name]
    if "segment_set_aside" in events:
        assert len(kept) == 1 and (SHM / kept[0]).read_bytes()[: len(data)] == data
        (SHM / kept[0]).unlink()
    else:
        assert "recovery" in events and kept == []


@pytest.mark.parametrize("kind", ["directory", "symlink"])
def test_what_is_no_object_at_all_is_refused(make_gateway, kind):
    gateway = make_gateway(start=False, options=SMALL)
    (gateway.directory / "run").mkdir(mode=0o750)
    public = SHM / gateway.shm_name()
    target = gateway.directory / "credentials"
    before = target.read_bytes()
    if kind == "directory":
        public.mkdir()
    else:
        public.symlink_to(target)
    gateway.start(wait=False)
    assert gateway.process.wait(10 * SLOW) == 1
    assert "shared memory" in gateway.logs()
    assert target.read_bytes() == before
    gateway.process = None
    gateway.clear()


def test_a_busy_port_is_a_clear_error(make_gateway):
    gateway = make_gateway(start=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = "127.0.0.1:%d" % taken.getsockname()[1]
        gateway.config["listen"]["http"] = address
        gateway.write_config()
        gateway.start(wait=False)
        assert gateway.process.wait(10 * SLOW) == 1
    assert address in gateway.logs() and "in use" in gateway.logs()
    gateway.process = None
    assert gateway.leftovers() == []


def test_anything_may_die_at_any_time(make_gateway, sim):
    """Workers, the writer, the helper, and now and then everything: the ledger and every balance
    stay exact to the nanocredit."""
    gateway = make_gateway()
    count = max(8, 10 * ROUNDS)  # 200 in `make crash`
    chance = random.Random(1)
    funded = {"first": 10**15, "second": 10**15}
    keys = {name: gateway.make_key(name, "--credits", str(nano // 10**9)) for name, nano in funded.items()}
    delivered, failed, everything = [], [], 0
    done = 0
    while done < count:
        loads = [Load(gateway, clients=4, stream_share=0.6, text=TEXT, key=key) for key in keys.values()]
        loads.append(Load(gateway, clients=4, stream_share=0.6, text=TEXT))
        with contextlib.ExitStack() as stack:
            for load in loads:
                stack.enter_context(load)
            while done < count:
                done += 1
                wait_progress(chance.choice(loads), chance.randrange(1, 12))
                role = chance.choice(["worker", "worker", "usage-writer", "helper", "everything"])
                if role == "everything":
                    everything += 1
                    gateway.kill_all()
                    break
                pid = chance.choice(gateway.processes(role))["pid"]
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                wait_until(lambda p=pid: p not in ready_pids(gateway, role), 10, f"{role} gone")
                wait_until(
                    lambda r=role: len(ready_pids(gateway, r)) == (2 if r == "worker" else 1),
                    20,
                    f"another {role}",
                )
        for load in loads:
            delivered += load.delivered
            failed += load.failed
        if gateway.process.poll() is not None:
            gateway.start()
    print(f"{count} kills, {everything} of everything; {len(delivered)} delivered, {len(failed)} not")
    for name, nano in funded.items():
        shown = wait_until(lambda n=name: settled(gateway, n), 20, "the settlement")
        used = Decimal(gateway.usage(key=name)["total"]["cost"])
        assert Decimal(shown["balance"]) == Decimal(nano) / 10**9 - used
    assert_ledger_clean(gateway)
    assert gateway.stop() == 0
    assert_exact(gateway, sim, delivered)


def settled(gateway, name):
    """The key's credits once nothing is reserved or on its way."""
    shown = gateway.ctl_json("credit", "show", name)
    return shown if shown["available"] == shown["balance"] else None
