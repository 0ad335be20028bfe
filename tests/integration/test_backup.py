"""Backups while the server works, restoring them, the ledger's check, migrations by hand."""

import json
import os
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import time

import pytest

from faults import small_disk
from harness import BUILD, ROOT, SLOW, Load, wait_until

NANO = 10**9


def database(gateway):
    return gateway.directory / "state" / "xrouter.db"


def alter(gateway, sql):
    """Changes the ledger of a stopped gateway behind its back; returns the number of rows."""
    assert gateway.process is None
    connection = sqlite3.connect(database(gateway))
    connection.create_function("aged", 1, lambda row_id: bytes(5) + row_id[5:])
    try:
        count = connection.execute(sql).rowcount
        connection.commit()
        return count
    finally:
        connection.close()


def read(path, sql):
    """Rows of a database file that nobody writes."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def restore(copy, into):
    """The steps of docs/operations.md."""
    state = into / "state"
    state.mkdir(mode=0o700)
    shutil.copyfile(copy, state / "xrouter.db")
    shutil.copyfile(f"{copy}.key.secret", state / "key.secret")
    for name in ("xrouter.db", "key.secret"):
        (state / name).chmod(0o600)


# --- backups


def test_backup_under_load_can_be_restored(gateway, make_gateway, directory):
    copy = directory / "copy.db"
    for _ in range(5):
        assert gateway.chat().status == 200
    with Load(gateway, clients=6) as load:
        committed = gateway.wait_usage(50, 30)["requests"]
        made = gateway.ctl_json("backup", copy)
        during = len(load.delivered)
        wait_until(lambda: len(load.delivered) > during + 20, 30, "traffic after the backup")
    assert load.failed == []
    gateway.ctl("ledger", "verify")

    assert made["file"] == str(copy) and made["key_secret"] == f"{copy}.key.secret"
    assert made["bytes"] == copy.stat().st_size
    for path in (copy, directory / "copy.db.key.secret"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not list(directory.glob("*.part"))
    kept = read(copy, "SELECT count(*), sum(cost) FROM usage")[0]
    assert kept[0] >= committed
    assert gateway.counter("backups_total") == 1
    assert gateway.counter("backup_timestamp_seconds") > time.time() - 600
    assert gateway.stop() == 0

    into = directory / "restored"
    into.mkdir()
    restore(copy, into)
    restored = make_gateway(start=False, directory=into)
    restored.key = gateway.key
    restored.start()
    total = restored.usage(by="model")["total"]
    assert total["requests"] == kept[0]
    assert total["cost"] == decimal(kept[1])
    assert restored.chat().status == 200  # the same key
    restored.wait_usage(kept[0] + 1)
    restored.ctl("ledger", "verify")


def decimal(nano):
    whole, rest = divmod(nano, NANO)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".")


def test_backup_file_that_exists(gateway, directory):
    copy = directory / "copy.db"
    copy.write_text("precious")
    refused = gateway.ctl("backup", copy, check=False)
    assert refused.returncode == 1 and "--force" in refused.stderr
    assert copy.read_text() == "precious"
    gateway.ctl("backup", copy, "--force")
    assert read(copy, "SELECT count(*) FROM api_keys") == [(1,)]


def test_backup_relative_to_the_caller(gateway, directory):
    where = directory / "elsewhere"
    where.mkdir()
    subprocess.run(
        [BUILD / "xrouterctl", "-c", gateway.file, "backup", "copy.db"],
        cwd=where, check=True, capture_output=True, timeout=60 * SLOW,
    )  # fmt: skip
    assert read(where / "copy.db", "SELECT count(*) FROM api_keys") == [(1,)]


@pytest.mark.parametrize("name", ["state/xrouter.db", "state/new.db", "no/such/place.db", "run"])
def test_backup_to_a_bad_place(gateway, directory, name):
    refused = gateway.ctl("backup", directory / name, "--force", check=False)
    assert refused.returncode == 1 and refused.stderr
    assert gateway.chat().status == 200
    assert gateway.counter("backup_failures_total") == 1


def test_backup_to_a_full_disk(gateway, directory):
    with small_disk(directory / "small", 4096) as small:
        refused = gateway.ctl("backup", small / "copy.db", check=False)
        assert refused.returncode == 1 and "MiB are free" in refused.stderr
        assert list(small.iterdir()) == []
    assert gateway.chat().status == 200
    assert "backup_failed" in [line["event"] for line in gateway.error_log()]


def test_backup_of_a_stopped_server(gateway, directory):
    gateway.stop()
    assert gateway.ctl("backup", directory / "copy.db", check=False).returncode == 3


def test_backup_script_keeps_the_newest(gateway, directory):
    where = directory / "backups"
    where.mkdir()
    aged = time.time() - 40 * 86400
    for day in range(1, 4):
        name = where / f"xrouter-2026010{day}T000000Z.db"
        name.write_text("old")
        (where / f"{name.name}.key.secret").write_text("old")
        os.utime(name, (aged, aged))
    (where / "xrouter-notes.db").write_text("mine")

    def run(*args):
        env = dict(os.environ, XROUTERCTL=str(BUILD / "xrouterctl"), XROUTER_CONFIG=str(gateway.file))
        return subprocess.run([ROOT / "etc" / "backup.sh", *args], env=env, capture_output=True,
                              text=True, timeout=60 * SLOW)  # fmt: skip

    assert run(where, "2", "30").returncode == 0
    names = sorted(p.name for p in where.iterdir())
    dated = [n for n in names if re.fullmatch(r"xrouter-\d{8}T\d{6}Z\.db", n)]
    assert len(dated) == 2 and dated[0] == "xrouter-20260103T000000Z.db"
    assert sorted(f"{n}.key.secret" for n in dated) == [n for n in names if n.endswith("secret")]
    assert "xrouter-notes.db" in names
    # What is too many but not old stays; nothing goes when the backup fails.
    os.utime(where / dated[0])
    time.sleep(1)  # names have seconds
    assert run(where, "1", "30").returncode == 0
    assert len(list(where.glob("xrouter-2*Z.db"))) == 3
    gateway.stop()
    os.utime(where / dated[0], (aged, aged))
    assert run(where, "1", "30").returncode == 3
    assert len(list(where.glob("xrouter-2*Z.db"))) == 3
    assert run(where, "0").returncode == 2 and run(where, "many").returncode == 2


# --- ledger verify and reprice


def test_verify_names_the_drift(gateway):
    for _ in range(3):
        assert gateway.chat().status == 200
    gateway.wait_usage(3)
    clean = gateway.ctl_json("ledger", "verify")
    assert clean["clean"] is True and clean["drifts"] == 0 and clean["requests"] == 3
    assert gateway.ctl("ledger", "verify").stdout.startswith("clean: 1 keys, 3 requests")

    gateway.stop()
    assert alter(gateway, "UPDATE usage SET cost = cost + 1 WHERE id = (SELECT max(id) FROM usage)") == 1
    assert alter(gateway, "UPDATE api_keys SET balance = 5000000000") == 1
    gateway.start()
    told = gateway.ctl("ledger", "verify", check=False)
    assert told.returncode == 1
    assert "usage_hourly" in told.stdout and "balance" in told.stdout
    drifts = json.loads(gateway.ctl("ledger", "verify", "--json", check=False).stdout)
    assert drifts["clean"] is False and drifts["drifts"] == 2
    balance, hour = drifts["named"]
    key = gateway.ctl_json("key", "show", "test")["id"]
    assert (balance["table"], balance["field"], balance["key"]) == ("api_keys", "balance", key)
    assert (balance["expected"], balance["found"], balance["at"]) == ("0", "5", None)
    assert (hour["table"], hour["field"], hour["key"]) == ("usage_hourly", "cost", key)
    assert hour["model"] == "gigachat/GigaChat-2" and hour["at"].endswith(":00:00.000Z")
    assert gateway.counter("ledger_drift") == 2


def test_verify_runs_by_itself(gateway):
    wait_until(lambda: gateway.counter("ledger_verified_timestamp_seconds"), 10, "the first check")
    assert gateway.counter("ledger_drift") == 0
    assert "xrouter_ledger_drift 0\n" in gateway.ops("/metrics").body.decode()


def test_verify_under_load(gateway):
    with Load(gateway, clients=6) as load:
        wait_until(lambda: len(load.delivered) > 20, 30, "traffic")
        for _ in range(20):
            gateway.ctl("ledger", "verify")
    assert load.failed == []


def test_reprice(gateway):
    assert gateway.chat().status == 200
    gateway.wait_usage(1)
    assert gateway.ctl("ledger", "reprice", check=False).returncode == 2
    same = gateway.ctl_json("ledger", "reprice", "--dry-run")
    assert same["rows"] == [] and same["total"]["requests"] == 1

    gateway.stop()
    gateway.config["models"][0]["prices"] = [{"input": "600", "output": "1000.5"}]
    gateway.write_config()
    gateway.start()
    changed = gateway.ctl_json("ledger", "reprice", "--dry-run")
    (row,) = changed["rows"]
    assert row["changed"] == 1 and row["miscounted"] == 0 and row["name"] == "test"
    assert row["config_price"] != row["cost"] == row["stored_price"]
    assert "BY CONFIG" in gateway.ctl("ledger", "reprice", "--dry-run").stdout
    # Nothing was changed.
    gateway.ctl("ledger", "verify")


# --- after an unclean stop


def test_unclean_stop_is_followed_by_a_check(gateway):
    assert gateway.chat().status == 200
    gateway.stop()
    gateway.start()
    assert gateway.counter("database_checked_timestamp_seconds") == 0
    gateway.kill_all()
    gateway.process = None
    gateway.start()
    wait_until(lambda: gateway.counter("database_checked_timestamp_seconds"), 20, "the check")
    assert gateway.counter("database_damaged") == 0
    assert [p.name for p in (gateway.directory / "state").glob("integrity-check*")] == []


# --- retention


def test_retention(make_gateway):
    gateway = make_gateway(options={"ledger": {"retention_days": 1, "hourly_retention_days": 2}})
    for _ in range(3):
        assert gateway.chat().status == 200
    gateway.wait_usage(3)
    gateway.stop()
    old = 3 * 86400000
    alter(gateway, f"UPDATE usage SET id = aged(id), created_at = created_at - {old}")
    alter(gateway, "UPDATE usage_attempts SET usage_id = aged(usage_id)")
    alter(gateway, f"UPDATE usage_hourly SET hour = hour - {old}")
    alter(gateway, f"UPDATE usage_daily SET day = day - {old}")
    gateway.start()
    wait_until(lambda: gateway.counter("retention_rows_total") >= 4, 10, "retention")
    assert gateway.chat().status == 200
    gateway.wait_usage(1)
    gateway.ctl("ledger", "verify")
    gateway.stop()
    assert len(gateway.rows("usage")) == len(gateway.rows("usage_hourly")) == 1
    assert sum(row["requests"] for row in gateway.rows("usage_daily")) == 4


# --- provider_status


def test_provider_status(make_gateway, sim):
    gateway = make_gateway(options={"ledger": {"status_ms": 100}})
    for _ in range(4):
        assert gateway.chat().status == 200
    wait_until(lambda: gateway.stat()["providers"][0]["finished_total"] == 4, 5, "the counters")
    gateway.wait_usage(4)
    time.sleep(0.3)  # two intervals
    gateway.stop()
    rows = {row["id"]: row for row in gateway.rows("provider_status")}
    row = rows["gigachat/GigaChat-2"]
    assert row["provider"] == "gigachat" and row["model"] == "GigaChat-2"
    assert row["status"] == "ok" and row["error_rate"] == 0 and row["latency"] >= 0


# --- migrate


def test_migrate_down_and_up_on_a_stopped_server(gateway):
    running = gateway.ctl("migrate", "--to", "1", check=False)
    assert running.returncode == 1 and "running" in running.stderr
    assert gateway.chat().status == 200
    gateway.wait_usage(1)
    newest = read(database(gateway), "SELECT max(number) FROM schema_migrations")[0][0]
    gateway.stop()

    assert gateway.ctl("migrate").stdout == f"migrated from {newest} to {newest}\n"
    assert gateway.ctl_json("migrate", "--to", "1") == {"from": newest, "to": 1}
    assert read(database(gateway), "SELECT max(number) FROM schema_migrations") == [(1,)]
    assert gateway.ctl("migrate", "--to", "0", check=False).returncode == 2
    assert gateway.ctl("migrate", "--to", newest + 1, check=False).returncode == 2
    assert gateway.ctl_json("migrate") == {"from": 1, "to": newest}
    assert os.listdir(gateway.directory / "run") == ["xrouter.lock"]

    gateway.start()
    assert gateway.usage()["total"]["requests"] == 1
    gateway.ctl("ledger", "verify")


def test_migrate_without_a_database(make_gateway):
    gateway = make_gateway(start=False)
    assert gateway.ctl("migrate", check=False).returncode == 1
    (gateway.directory / "state").mkdir()
    assert gateway.ctl("migrate", check=False).returncode == 1
    assert not database(gateway).exists()


def test_migrate_waits_for_no_orphan(gateway):
    """A master that was killed leaves children that may still write."""
    worker = gateway.pid("worker")
    os.kill(worker, signal.SIGSTOP)
    os.kill(gateway.process.pid, signal.SIGKILL)
    gateway.process.wait()
    try:
        assert gateway.ctl("migrate", check=False).returncode == 1
    finally:
        os.kill(worker, signal.SIGCONT)
        wait_until(lambda: not gateway.kill_living(), 10, "the end of all processes")
        gateway.process = None
        gateway.clear()
        for name in ("master.sock", "writer.sock", "usage.sock", "xrouter.pid"):
            (gateway.directory / "run" / name).unlink(missing_ok=True)
