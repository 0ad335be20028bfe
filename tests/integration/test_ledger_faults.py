"""The ledger's disk, database and log fail: requests go on, nothing is lost, nothing is billed twice,
and nobody has to restart anything."""

import contextlib
import os
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import pytest

import faults
from faults import (
    committed,
    database,
    events_of,
    is_failing,
    lasting,
    let_pass,
    memory_kb,
    somebody_at,
    wait_committed,
    wait_progress,
)
from harness import ROOT, SLOW, Load, wait_until
from ledger import assert_exact

# Half of a ring is full after a second or so: the spool is used, too.
SMALL_RINGS = {"limits": {"outbox_bytes": 131072}}
DRAINED_S = 10
MEMORY_KB = 32 * 1024


def pids(gateway):
    return {p["role"] + str(p["slot"]): p["pid"] for p in gateway.processes()}


def memory(gateway):
    return {pid: memory_kb(pid) for pid in pids(gateway).values()}


def spool_files(gateway):
    return [p for p in (gateway.directory / "state" / "spool").glob("*") if p.suffix != ".part"]


def paced_load(gateway, clients=8):
    """Paced by the provider, so that the machine is not the bottleneck."""
    return Load(gateway, clients=clients, stream_share=0.5, text="[[words:5]] [[first_ms:10]]")


def finish(gateway, sim, load):
    """Stops the gateway and compares its ledger with the provider's."""
    assert gateway.stop() == 0
    assert_exact(gateway, sim, load.delivered)
    connection = sqlite3.connect(database(gateway))
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


# --- while it runs: bridged, then recovered


@contextlib.contextmanager
def writer_stopped(gateway):
    pid = gateway.pid("usage-writer")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def database_locked(gateway):
    with somebody_at(gateway, "BEGIN EXCLUSIVE"):
        yield


@contextlib.contextmanager
def database_moved_away(gateway):
    path = database(gateway)
    path.rename(path.with_suffix(".away"))
    yield
    assert not path.exists(), "a database was made in the place of the lost one"
    path.with_suffix(".away").rename(path)


def copy_whole(path, to):
    source, copy = sqlite3.connect(path), sqlite3.connect(to)
    source.backup(copy)
    source.close()
    copy.close()


BRIDGED = {
    "stopped writer": (60, writer_stopped),
    "locked": (30, database_locked),
    "moved away": (30, database_moved_away),
}


@pytest.mark.parametrize("fault", BRIDGED)
def test_fault_is_bridged_without_a_failed_request(make_gateway, sim, fault):
    """Scenarios 8, 26 and 27: ring, then spool, then the ledger, each event once."""
    seconds, inflict = BRIDGED[fault]
    gateway = make_gateway(start=False, workers=1, options=SMALL_RINGS)
    faults.tell_sanitizers(gateway, "quarantine_size_mb=4")  # freed memory that they keep
    gateway.start()
    before_pids = pids(gateway)
    with paced_load(gateway) as load:
        wait_progress(load)
        before = memory(gateway)
        with inflict(gateway):
            let_pass(lasting(seconds, 1.5))
            wait_until(lambda: spool_files(gateway), 20, "use of the spool")
            if fault != "stopped writer":
                assert is_failing(gateway)
            wait_progress(load)
        back = time.monotonic()
        grown = {pid: memory_kb(pid) - before[pid] for pid in before}
        wait_progress(load)
    assert load.failed == []
    wait_committed(gateway, load, seconds=DRAINED_S)
    wait_until(lambda: not spool_files(gateway), 5, "an empty spool")
    print(f"drained after {time.monotonic() - back:.2f} s, {len(load.delivered)} requests, {grown}")
    assert max(grown.values()) < MEMORY_KB
    assert not is_failing(gateway)
    assert pids(gateway) == before_pids
    finish(gateway, sim, load)
    if fault != "stopped writer":
        assert len(events_of(gateway, "ledger_failing")) == 1
        assert len(events_of(gateway, "ledger_recovered")) == 1


def test_emptied_database_waits_for_its_backup(make_gateway, sim):
    """Scenario 27: nothing is written into what is left, and the copy that comes is checked."""
    gateway = make_gateway(options=SMALL_RINGS)
    path = database(gateway)
    with paced_load(gateway) as before:
        wait_progress(before)
    wait_committed(gateway, before)
    copy_whole(path, path.with_suffix(".copy"))
    os.truncate(path, 0)
    with paced_load(gateway) as load:
        wait_until(lambda: is_failing(gateway), 5, "a failing ledger")
        wait_progress(load)
        assert path.stat().st_size == 0
        path.with_suffix(".copy").rename(path)
        wait_progress(load)
    assert before.failed == load.failed == []
    load.delivered += before.delivered
    wait_committed(gateway, load)
    finish(gateway, sim, load)


def test_removed_log_is_still_written_into_the_database(make_gateway, sim):
    """Scenario 27: the open connection is the last that has it."""
    gateway = make_gateway()
    with paced_load(gateway) as load:
        wait_progress(load)
        Path(str(database(gateway)) + "-wal").unlink()
        wait_until(lambda: events_of(gateway, "ledger_recovered"), 10, "a new log")
        wait_progress(load)
    assert load.failed == []
    wait_committed(gateway, load)
    gateway.kill_all()  # nothing is tidied
    gateway.start()
    finish(gateway, sim, load)


def test_restored_backup_is_taken_without_a_restart(make_gateway, sim):
    """A file put into the place of another: its log must not be read into it, nor a key be served
    that it does not have."""
    gateway = make_gateway()
    path = database(gateway)
    with paced_load(gateway) as load:
        wait_progress(load)
    wait_committed(gateway, load)
    copy_whole(path, path.with_suffix(".copy"))
    with paced_load(gateway) as later:  # these go with the old file
        wait_progress(later)
    wait_committed(gateway, load, later)
    lost = gateway.make_key("made after the copy")
    assert gateway.request("GET", "/v1/key", key=lost).status == 200
    path.with_suffix(".copy").rename(path)
    wait_until(lambda: events_of(gateway, "database_replaced"), 10, "the other database")
    wait_until(lambda: events_of(gateway, "keys_revoked"), 5, "a comparison of the keys")
    assert events_of(gateway, "keys_revoked")[0]["message"].startswith("1 keys ")
    assert gateway.chat(key=lost).status == 401
    with paced_load(gateway) as last:
        wait_progress(last)
    wait_until(lambda: not is_failing(gateway), 5, "a working ledger")
    assert load.failed == later.failed == last.failed == []
    assert gateway.stop() == 0
    rows = {"req_" + row["id"].hex() for row in gateway.rows()}
    assert rows == set(load.delivered) | set(last.delivered)
    assert len(list(path.parent.glob("xrouter.db-wal.old-*"))) == 1


def as_other_user(gateway):
    """Root may write what is read-only."""
    if os.geteuid() != 0:
        return
    uid = 200000 + os.getpid()
    gateway.binary = shutil.copy(gateway.binary, gateway.directory / "xrouter")
    gateway.prefix = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    for path in [gateway.directory, *gateway.directory.rglob("*")]:
        os.chown(path, uid, uid)


@pytest.mark.parametrize("what", ["file", "directory"])
def test_read_only_database_is_a_busy_one(make_gateway, sim, what):
    """Scenario 27: a writer that starts finds it so; the workers do not notice."""
    gateway = make_gateway(start=False, options=SMALL_RINGS)
    as_other_user(gateway)
    gateway.start()
    path = database(gateway) if what == "file" else database(gateway).parent
    with paced_load(gateway) as load:
        wait_progress(load)
        mode = path.stat().st_mode
        path.chmod(0o400 if what == "file" else 0o500)
        pid = gateway.pid("usage-writer")
        os.kill(pid, signal.SIGKILL)
        if what == "file":
            wait_until(lambda: events_of(gateway, "writer_refused"), 10, "the reason in the log")
            assert "Permission denied" in events_of(gateway, "writer_refused")[0]["message"]
        wait_progress(load)
        path.chmod(mode)
        wait_progress(load)
    assert load.failed == []
    wait_until(lambda: gateway.processes("usage-writer"), 10, "a writer")
    wait_until(
        lambda: gateway.ctl_json("usage", "--by", "model")["total"]["requests"] == len(load.delivered),
        DRAINED_S, "an exact ledger",
    )  # fmt: skip
    finish(gateway, sim, load)


def refused_answer(gateway):
    """An event that is smaller than the room kept for it makes room for another one: ask again."""

    def ask():
        answer = gateway.chat()
        return answer if answer.status != 200 else None

    answer = wait_until(ask, 10, "a refused request")
    assert answer.status == 503 and answer.error["code"] == "accounting_unavailable"


def test_without_disk_and_spool_requests_are_refused_not_lost(make_gateway, sim):
    """The spool cannot be written and the database is locked: the ring holds what was promised."""
    gateway = make_gateway(workers=1, options={"limits": {"outbox_bytes": 65536}})
    spool = gateway.directory / "state" / "spool"
    if spool.exists():
        spool.rmdir()
    spool.write_text("not a directory")
    with paced_load(gateway) as load:
        wait_progress(load)
        with somebody_at(gateway, "BEGIN IMMEDIATE"):
            wait_until(lambda: load.failed and events_of(gateway, "spool_failed"), 20, "a full ring")
            refused_answer(gateway)
            assert gateway.ops("/health").status == 200
            load.stop()
        wait_until(lambda: gateway.chat().status == 200, 10, "an accepted request")
    wait_committed(gateway, load)
    assert {what for what, _ in load.failed} == {"status 503"}
    assert len(events_of(gateway, "spool_failed")) == 1
    spool.unlink()
    finish(gateway, sim, load)


def test_full_disk_is_waited_for(make_gateway, sim):
    """Scenario 24: outbox, spool, then 503; exact again once there is space."""
    gateway = make_gateway(start=False, workers=1, options={"limits": {"outbox_bytes": 65536}})
    with faults.small_disk(gateway.directory / "state", 4096) as disk:
        gateway.start()
        before = pids(gateway)
        with paced_load(gateway) as load:
            wait_progress(load)
            faults.fill(disk / "filler", leave=64 * 1024)
            wait_until(lambda: load.failed, 30, "a refused request")
            refused_answer(gateway)
            assert is_failing(gateway)
            let_pass(lasting(60))
            (disk / "filler").unlink()
            wait_progress(load)
        assert {what for what, _ in load.failed} == {"status 503"}
        wait_committed(gateway, load)
        wait_until(lambda: not spool_files(gateway), 5, "an empty spool")
        assert pids(gateway) == before
        print(f"{len(load.delivered)} delivered, {len(load.failed)} refused")
        finish(gateway, sim, load)
        assert "full" in events_of(gateway, "ledger_failing")[0]["message"]


def test_nothing_is_acked_that_was_not_synced(make_gateway, sim):
    """Scenario 25: each commit has a sync of its own, and one that failed is not forgotten."""
    gateway = make_gateway(start=False)
    disk = faults.Disk(gateway, seed=7)
    gateway.start()
    with paced_load(gateway) as load:
        wait_progress(load)
        disk.fail(300)
        begun = time.monotonic()
        while time.monotonic() - begun < lasting(60, 2):
            commits = gateway.counter("ledger_commits_total")
            # Read in this order: what was acked by then had been synced before.
            assert commits <= disk.syncs()
        disk.heal()
        wait_progress(load)
        # The log takes what is written, but never says that it is on the disk.
        disk.fail(1000, ops=["sync"], files=["log"])
        wait_until(lambda: is_failing(gateway), 5, "a failing ledger")
        commits, failed = gateway.counter("ledger_commits_total"), disk.failed()
        wait_until(lambda: disk.failed() > failed + 3, 10, "more tries")
        assert gateway.counter("ledger_commits_total") == commits
        disk.heal()
        wait_progress(load)
    assert load.failed == []
    wait_committed(gateway, load)
    print(f"{disk.failed()} calls failed, {gateway.counter('ledger_failures_total')} commits")
    assert disk.failed() > 10
    finish(gateway, sim, load)


def test_reader_does_not_make_the_log_grow_without_end(make_gateway, sim):
    """Scenario 28."""
    limit = 16 * 1024 * 1024
    gateway = make_gateway(options={"ledger": {"wal_bytes": limit, "commit_ms": 1}})
    log = Path(str(database(gateway)) + "-wal")
    sizes = []
    with Load(gateway, clients=12, stream_share=0.0, text="[[words:1]]") as load:
        wait_progress(load)
        with somebody_at(gateway, "BEGIN", "SELECT count(*) FROM usage"):

            def full():
                sizes.append(log.stat().st_size)
                return is_failing(gateway)

            wait_until(full, 60, "a log that may not grow")
            begun = time.monotonic()
            wait_until(lambda: full() and time.monotonic() - begun > lasting(600, 1), 660)
            assert gateway.counter("ledger_wal_bytes") == sizes[-1] > limit / 2
            assert "ledger.wal_bytes" in events_of(gateway, "ledger_failing")[-1]["message"]
        wait_until(lambda: not is_failing(gateway), 5, "an emptied log")
        wait_progress(load)
    assert load.failed == []
    assert max(sizes) <= limit
    print(f"log {max(sizes)} bytes, {len(load.delivered)} requests")
    wait_committed(gateway, load)
    finish(gateway, sim, load)


# --- at a start: refused, never replaced


def prepared(make_gateway, crash=False):
    """A stopped gateway with some rows, and their request ids."""
    gateway = make_gateway(options={"limits": {"outbox_bytes": 65536, "in_flight": 32, "keys": 64}})
    answers = [gateway.chat() for _ in range(5)]
    wait_until(lambda: committed(gateway) == 5, what="five rows")
    if crash:
        gateway.kill_all()
    else:
        assert gateway.stop() == 0
    return gateway, [a.headers["x-request-id"] for a in answers]


def refused(gateway):
    """Starts it in vain; returns what it said."""
    gateway.start(wait=False)
    assert gateway.process.wait(20 * SLOW) == 1
    gateway.process = None
    return gateway.logs()


def overwrite(path, at, data):
    with open(path, "r+b") as f:
        f.seek(at)
        f.write(data)


def page_of(path, table):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = ?", [table]
        ).fetchone()
    return 4096 * (page - 1)


def flip_a_key_page(path):
    overwrite(path, page_of(path, "api_keys"), b"\xa5" * 4096)


def make_newer(path):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(
            "INSERT INTO schema_migrations SELECT max(number) + 1, 'future', 'x', 0"
            " FROM schema_migrations"
        )


LOST = {
    "missing": (lambda path: path.unlink(), "is missing"),
    "zero length": (lambda path: os.truncate(path, 0), "is empty"),
    "zero header": (lambda path: overwrite(path, 0, bytes(100)), "not a database"),
    "flipped page": (flip_a_key_page, "damaged"),
    "newer schema": (make_newer, "newer than this xrouter"),
}


@pytest.mark.parametrize("fault", LOST)
def test_unusable_database_is_refused_at_a_start(make_gateway, sim, fault):
    """Scenario 27: never an empty ledger in place of a lost one."""
    spoil, reason = LOST[fault]
    gateway, delivered = prepared(make_gateway)
    path = database(gateway)
    kept = path.read_bytes()
    spoil(path)
    spoilt = path.read_bytes() if path.exists() else None
    for _ in range(2):
        assert reason in refused(gateway)
        assert (path.read_bytes() if path.exists() else None) == spoilt
    path.write_bytes(kept)
    gateway.start()
    answer = gateway.chat()
    assert gateway.stop() == 0
    assert_exact(gateway, sim, [*delivered, answer.headers["x-request-id"]])


def test_removed_marker_begins_an_empty_ledger(make_gateway):
    gateway, _ = prepared(make_gateway)
    path = database(gateway)
    path.unlink()
    assert "xrouter.db.created" in refused(gateway)
    Path(str(path) + ".created").unlink()
    gateway.key = None
    gateway.start()
    assert gateway.chat().status == 200
    assert gateway.stop() == 0
    assert len(gateway.rows()) == 1


def cut_log(log):
    os.truncate(log, 6000)  # its second page


def flip_in_log(log):
    overwrite(log, 6000, b"\xa5\x5a")


@pytest.mark.parametrize("spoil", [cut_log, flip_in_log, Path.unlink])
def test_spoilt_log_is_refused_after_a_crash(make_gateway, sim, spoil):
    """Scenario 27: SQLite would take what is left of it for the whole truth."""
    gateway, delivered = prepared(make_gateway, crash=True)
    log = Path(str(database(gateway)) + "-wal")
    kept = log.read_bytes()
    spoil(log)
    for _ in range(2):
        assert "write-ahead log is cut or damaged" in refused(gateway)
    log.write_bytes(kept)
    gateway.start()
    answer = gateway.chat()
    assert gateway.stop() == 0
    assert_exact(gateway, sim, [*delivered, answer.headers["x-request-id"]])


def test_older_database_is_migrated(make_gateway, sim):
    """Scenario 27: with its rows."""
    gateway, delivered = prepared(make_gateway)
    last = max(row["number"] for row in gateway.rows("schema_migrations"))
    if last == 1:
        pytest.skip("there is no older schema yet")
    down = next((ROOT / "sql").glob(f"{last:04}_*.down.sql")).read_text()
    with contextlib.closing(sqlite3.connect(database(gateway), isolation_level=None)) as connection:
        connection.executescript(down)
        connection.execute("DELETE FROM schema_migrations WHERE number = ?", [last])
    gateway.start()
    answer = gateway.chat()
    assert gateway.stop() == 0
    assert max(row["number"] for row in gateway.rows("schema_migrations")) == last
    assert_exact(gateway, sim, [*delivered, answer.headers["x-request-id"]])


def test_damaged_rows_stop_the_ledger_not_the_requests(make_gateway, sim):
    """Scenario 27: a page that only a commit finds out about."""
    gateway, delivered = prepared(make_gateway)
    path = database(gateway)
    page = page_of(path, "usage")
    with open(path, "rb") as f:
        f.seek(page)
        kept = f.read(4096)
    overwrite(path, page, b"\xff" * 4096)
    gateway.start()
    answers = [gateway.chat() for _ in range(3)]
    assert [a.status for a in answers] == [200] * 3
    wait_until(lambda: is_failing(gateway), 5, "a failing ledger")
    assert committed(gateway) == len(delivered)
    assert gateway.stop() == 0
    assert len(events_of(gateway, "ledger_failing")) == 1
    overwrite(path, page, kept)
    gateway.start()
    wait_until(lambda: committed(gateway) == 8, what="the kept events")
    assert gateway.stop() == 0
    assert_exact(gateway, sim, delivered + [a.headers["x-request-id"] for a in answers])
