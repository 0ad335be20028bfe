"""xrouterctl with a running, a stopped and a crashed instance: each verb, for people and --json."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
from datetime import datetime, timezone

import pytest

from harness import BUILD, read_rest, wait_until

KEY_FIELDS = {"id", "name", "state", "created_at", "expires_at", "last_used_at", "models", "tier",
              "limits"}  # fmt: skip
ROW_FIELDS = {"requests", "errors", "tokens_input", "tokens_cached", "tokens_output", "cost"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z")
VERBS = [["key", "create"], ["key", "list"], ["key", "show", "x"], ["key", "revoke", "x"],
         ["key", "update", "x", "--rpm", "1"], ["key", "rotate", "x"], ["credit", "add", "x", "1"],
         ["credit", "show", "x"], ["credit", "history", "x"], ["ledger", "verify"],
         ["ledger", "reprice", "--dry-run"], ["backup", "x.db"], ["usage"], ["stat"], ["requests"], ["kill", "req_" + "0" * 32], ["reload"], ["drain"],
         ["stop"], ["log-level", "info"], ["provider", "list"], ["provider", "enable", "x"],
         ["provider", "disable", "x"], ["provider", "drain", "x"]]  # fmt: skip


def run(*args, **options):
    return subprocess.run(
        [BUILD / "xrouterctl", *map(str, args)], capture_output=True, text=True, timeout=60, **options
    )


def wait_refused(gateway, key, code):
    """A revoked or expired key counts in every worker at once."""

    def refused():
        answers = [gateway.chat(key=key) for _ in range(6)]
        return all(a.status == 401 and a.error["code"] == code for a in answers)

    wait_until(refused, 2, f"{code} everywhere")


# --- keys


def test_key_lifecycle(gateway):
    begun = datetime.now(timezone.utc)
    made = gateway.ctl_json("key", "create", "--name", "app")
    assert KEY_FIELDS - {"state", "last_used_at"} <= set(made)
    assert re.fullmatch(r"key_[0-9a-f]{16}", made["id"])
    assert re.fullmatch(r"sk-xr-[A-Za-z0-9_-]{43}", made["key"])
    assert made["name"] == "app" and made["expires_at"] is None and made["tier"] is None
    assert made["models"] == [] and made["limits"] == {}
    created = datetime.fromisoformat(made["created_at"].replace("Z", "+00:00"))
    assert TIME.match(made["created_at"]) and abs((created - begun).total_seconds()) < 30

    shown = gateway.ctl_json("key", "show", "app")
    assert "key" not in shown and set(shown) >= KEY_FIELDS
    assert shown["state"] == "active" and shown["last_used_at"] is None
    assert gateway.ctl_json("key", "show", made["id"]) == shown
    # At once, in every worker.
    assert [gateway.chat(key=made["key"]).status for _ in range(6)] == [200] * 6
    used = wait_until(
        lambda: gateway.ctl_json("key", "show", "app")["last_used_at"], what="last_used_at"
    )
    assert TIME.match(used) and used >= made["created_at"]

    listed = gateway.ctl_json("key", "list")["keys"]
    assert [key["name"] for key in listed] == ["test", "app"]
    assert all("key" not in key for key in listed)
    revoked = gateway.ctl_json("key", "revoke", "app")
    assert revoked["state"] == "revoked"
    wait_refused(gateway, made["key"], "invalid_api_key")
    assert gateway.chat().status == 200  # the other one
    assert gateway.ctl_json("key", "show", made["id"])["state"] == "revoked"
    # The name is free again.
    again = gateway.ctl_json("key", "create", "--name", "app")
    assert again["id"] != made["id"] and gateway.chat(key=again["key"]).status == 200


def test_keys_outlive_a_restart(gateway):
    gateway.chat()
    wait_until(lambda: gateway.ctl_json("key", "show", "test")["last_used_at"], what="last_used_at")
    before = gateway.ctl_json("key", "list")
    gateway.make_key("gone")
    gateway.ctl("key", "revoke", "gone")
    assert gateway.stop() == 0
    gateway.start()
    assert gateway.chat().status == 200
    after = gateway.ctl_json("key", "list")["keys"]
    assert [k["state"] for k in after] == ["active", "revoked"]
    assert after[0]["id"] == before["keys"][0]["id"]
    assert after[0]["last_used_at"] >= before["keys"][0]["last_used_at"]


def test_keys_expire(gateway):
    made = gateway.ctl_json("key", "create", "--name", "brief", "--expires", "1s")
    assert TIME.match(made["expires_at"])
    wait_until(lambda: gateway.chat(key=made["key"]).status == 401, 5, "the end of the key")
    answer = gateway.chat(key=made["key"])
    assert (answer.status, answer.error["code"]) == (401, "expired_api_key")
    assert gateway.ctl_json("key", "show", "brief")["state"] == "expired"
    later = gateway.ctl_json("key", "create", "--name", "later", "--expires", "2099-01-01")
    assert later["expires_at"] == "2099-01-01T00:00:00.000Z"
    assert gateway.chat(key=later["key"]).status == 200


def test_a_key_may_be_for_some_models_only(gateway):
    made = gateway.ctl_json("key", "create", "--name", "one", "--models", "GigaChat-2-Pro")
    assert len(made["models"]) == 1
    assert gateway.chat(model="GigaChat-2-Pro", key=made["key"]).status == 200
    answer = gateway.chat(model="GigaChat-2", key=made["key"])
    assert (answer.status, answer.error["code"]) == (403, "model_not_allowed")


def test_key_output_for_people(gateway):
    made = gateway.ctl("key", "create", "--name", "people", "--rpm", "20", "--parallel", "2")
    key = made.stdout.strip()
    assert made.stdout == key + "\n" and key.startswith("sk-xr-")
    assert "shown this once" in made.stderr
    listing = gateway.ctl("key", "list").stdout
    assert listing.splitlines()[0].split()[:3] == ["ID", "NAME", "STATE"]
    (line,) = [line for line in listing.splitlines() if "people" in line]
    assert "active" in line and "rpm=20" in line and "parallel=2" in line
    shown = gateway.ctl("key", "show", "people").stdout
    assert dict(line.split(None, 1) for line in shown.splitlines())["limits"] == "rpm=20 parallel=2"
    assert gateway.ctl_json("key", "show", "people")["limits"] == {"rpm": 20, "parallel": 2}
    assert gateway.ctl("key", "revoke", "people").stdout.startswith("revoked key_")


@pytest.mark.parametrize(
    "args, what",
    [
        (["key", "show", "nobody"], "no such key"),
        (["key", "revoke", "key_0000000000000000"], "no such key"),
        (["key", "create", "--name", "test"], "this name"),
        (["key", "create", "--name", "x", "--tier", "platinum"], "tier"),
        (["kill", "req_" + "0" * 32], "no such request"),
        (["usage", "--key", "nobody"], "no such key"),
    ],
)
def test_refusals_exit_1_and_say_why(gateway, args, what):
    for more in ([], ["--json"]):
        result = gateway.ctl(*args, *more, check=False)
        assert result.returncode == 1 and result.stdout == ""
        assert result.stderr.startswith("xrouterctl: ") and what in result.stderr


@pytest.mark.parametrize(
    "args, what",
    [
        ([], "no command"),
        (["keys"], "unknown command"),
        (["key"], "key create"),
        (["key", "craete"], 'did you mean "key create"'),
        (["stats"], 'did you mean "stat"'),
        (["key", "create", "--nmae", "x"], "did you mean --name"),
        (["key", "create", "--rpm", "many"], "--rpm"),
        (["key", "create", "--expires", "soon"], "--expires"),
        (["key", "create", "--name"], "needs a value"),
        (["key", "show"], "NAME|ID"),
        (["stat", "extra"], "too many"),
        (["usage", "--by", "week"], "--by"),
        (["usage", "--since", "yore"], "--since"),
        (["usage", "--json", "--csv"], "exclude"),
        (["kill", "something"], "request id"),
        (["log-level", "loud"], "loud"),
    ],
)
def test_wrong_usage_exits_2(make_gateway, args, what):
    gateway = make_gateway(start=False)  # nothing has to run for that
    result = gateway.ctl(*args, check=False)
    assert result.returncode == 2 and result.stdout == ""
    assert what in result.stderr


def test_help_and_version():
    everything = run("--help")
    assert everything.returncode == 0
    for verb in VERBS:
        name = " ".join(verb[:2] if verb[0] in ("key", "credit", "ledger", "provider") else verb[:1])
        assert re.search(rf"^  {name}\b", everything.stdout, re.M), name
        one = run(*name.split(), "--help")
        assert one.returncode == 0 and one.stdout.startswith(f"Usage: xrouterctl {name}")
        assert "--json" in one.stdout
    assert run("--version").stdout.startswith("xrouterctl 0.")


def test_without_an_instance_every_verb_exits_3(make_gateway):
    gateway = make_gateway(start=False)
    # All at once: those that need the usage-writer wait 5 s for it, as after its death.
    running = {
        " ".join(verb): subprocess.Popen(
            [BUILD / "xrouterctl", "-c", gateway.file, *verb],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for verb in VERBS
    }  # fmt: skip
    for verb, process in running.items():
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (3, ""), verb
        assert "not running" in err, verb


def test_no_configuration_is_wrong_usage(directory):
    result = run("stat", cwd=directory, env={"PATH": "/usr/bin"})
    assert result.returncode == 2 and "no configuration" in result.stderr
    result = run("-c", directory / "nowhere.json", "stat")
    assert result.returncode == 1 and "nowhere.json" in result.stderr
    # The environment names one.
    (directory / "empty.json").write_text("{}")
    result = run("stat", env={"XROUTER_CONFIG": str(directory / "empty.json")})
    assert result.returncode == 3


# --- stat


def test_stat_shape(gateway):
    gateway.chat()
    stat = gateway.stat()
    assert {"running", "version", "instance", "uptime_s", "listeners", "processes", "counters",
            "providers", "models", "queues", "targets"} == set(stat)  # fmt: skip
    assert stat["running"] is True and re.fullmatch(r"[0-9a-f]{12}", stat["instance"])
    assert gateway.shm_name() == "xrouter-" + stat["instance"]
    assert stat["listeners"]["http"] == f"127.0.0.1:{gateway.ports['http']}"
    assert stat["listeners"]["https"] is None
    roles = [p["role"] for p in stat["processes"]]
    assert roles == ["worker", "worker", "usage-writer", "helper", "master"]
    for process in stat["processes"]:
        assert set(process) == {"role", "slot", "pid", "state", "heartbeat_age_ms"}
        assert process["state"] == "ready" and 0 <= process["heartbeat_age_ms"] < 5000
    assert stat["counters"]["requests_total"] == 1
    assert [p["name"] for p in stat["providers"]] == ["gigachat"]
    assert [m["name"] for m in stat["models"]][0] == "gigachat/GigaChat-2"
    assert stat["queues"] == [{"provider": "gigachat", "switch": "enabled", "slots_taken": 0, "waiting": 0}]
    target = stat["targets"][0]
    assert (target["provider"], target["model"]) == ("gigachat", "GigaChat-2")
    assert target["breaker"] == "closed" and target["breaker_opened_total"] == target["left_alone_ms"] == 0


def test_stat_for_people_and_filtered(gateway):
    gateway.chat()
    text = gateway.ctl("stat").stdout
    assert text.splitlines()[0].startswith("xrouter ") and "running for" in text
    assert re.search(r"^requests_total +1$", text, re.M)
    filtered = gateway.ctl("stat", "-f", "requests_*").stdout
    assert "requests_total" in filtered and "connections_open" not in filtered


def test_stat_watch_redraws(gateway):
    process = subprocess.Popen(
        [BUILD / "xrouterctl", "-c", gateway.file, "stat", "--watch", "-f", "requests_total"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        pictures = 0
        for line in process.stdout:
            pictures += "requests_total" in line
            if pictures == 2:
                break
        assert pictures == 2
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def test_stat_of_a_crashed_instance(gateway):
    gateway.chat()
    gateway.kill_all()
    stat = gateway.stat()  # exit status 0
    assert stat["running"] is False
    assert stat["counters"]["requests_total"] == 1
    # A zombie that nobody has buried yet still has its pid.
    wait_until(
        lambda: {p["state"] for p in gateway.stat()["processes"]} == {"dead"}, what="dead processes"
    )
    assert "NOT RUNNING" in gateway.ctl("stat").stdout.splitlines()[0]
    # What needs somebody who answers says so.
    for verb in (["requests"], ["reload"]):
        assert gateway.ctl(*verb, check=False).returncode == 3
    gateway.start()
    assert gateway.stop() == 0


def test_stat_needs_no_answer_from_anybody(gateway):
    """Shared memory alone: also while the master stands still."""
    pids = [p["pid"] for p in gateway.processes()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert gateway.ctl("stat", "--json").returncode == 0
        assert gateway.ctl("requests", "--json").returncode == 0
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


# --- usage


@pytest.fixture
def used(gateway):
    """Two keys, two models, four requests; one failed."""
    gateway.other = gateway.make_key("other")
    gateway.chat("one")
    gateway.chat("two", model="GigaChat-2-Pro")
    gateway.chat("three", model="GigaChat-2-Pro", key=gateway.other)
    gateway.chat("[[sim:status:500]]", key=gateway.other)
    gateway.wait_usage(4)
    return gateway


def test_usage_by_everything(used):
    totals = []
    for by in ("hour", "day", "model", "key"):
        usage = used.usage(by=by)
        assert set(usage) == {"since", "until", "by", "rows", "total"} and usage["by"] == by
        assert set(usage["total"]) == ROW_FIELDS
        for row in usage["rows"]:
            assert set(row) >= ROW_FIELDS | {by}
            assert re.fullmatch(r"\d+(\.\d{1,9})?", row["cost"])
        for field in ROW_FIELDS - {"cost"}:
            assert sum(row[field] for row in usage["rows"]) == usage["total"][field]
        totals.append(usage["total"])
        assert TIME.match(usage["until"])
    assert totals[0]["requests"] == 4 and totals[0]["errors"] == 1
    assert all(total == totals[0] for total in totals)
    assert used.ctl_json("usage")["by"] == "day"


def test_usage_filters(used):
    models = {row["model"]: row["requests"] for row in used.usage(by="model")["rows"]}
    assert models == {"gigachat/GigaChat-2": 2, "gigachat/GigaChat-2-Pro": 2}
    assert used.usage(model="gigachat/GigaChat-2-Pro")["total"]["requests"] == 2
    other = used.usage(key="other", by="model")
    assert other["total"]["requests"] == 2 and other["total"]["errors"] == 1
    key_id = used.ctl_json("key", "show", "other")["id"]
    assert used.usage(key=key_id, by="model")["rows"] == other["rows"]
    keys = used.usage(by="key")["rows"]
    assert {row["name"] for row in keys} == {"test", "other"}
    assert used.usage(since="1h", by="day")["total"]["requests"] == 4
    assert used.usage(since="2099-01-01")["total"]["requests"] == 0
    assert used.usage(since="2020-01-01T00:00:00Z")["total"]["requests"] == 4


def test_usage_as_csv_and_table(used):
    rows = list(csv.DictReader(io.StringIO(used.ctl("usage", "--by", "model", "--csv").stdout)))
    told = used.usage(by="model")["rows"]
    assert [row["model"] for row in rows] == [row["model"] for row in told]
    for row, want in zip(rows, told):
        assert {name: str(want[name]) for name in want} == row
    table = used.ctl("usage", "--by", "key").stdout.splitlines()
    assert table[0].split() == ["key", "REQUESTS", "ERRORS", "INPUT", "CACHED", "OUTPUT", "COST"]
    assert {line.split()[0] for line in table[1:]} == {"test", "other", "total"}


def test_usage_waits_for_a_writer_that_starts_again(used):
    os.kill(used.pid("usage-writer"), signal.SIGKILL)
    assert used.usage(by="model")["total"]["requests"] == 4


# --- requests, kill


def test_requests_shows_what_runs_and_kill_ends_it(gateway, sim):
    assert gateway.ctl_json("requests") == {"requests": []}
    stream = gateway.stream("[[words:5000]] [[chunk_ms:10]]")
    events = stream.events()
    for _ in range(3):
        next(events)
    (shown,) = gateway.ctl_json("requests")["requests"]
    assert shown["id"] == stream.headers["x-request-id"]
    assert shown["model"] == "gigachat/GigaChat-2" and shown["provider"] == "gigachat"
    assert shown["state"] == "answering" and shown["streamed"] is True
    assert TIME.match(shown["started_at"]) and shown["age_ms"] >= 0
    assert shown["tokens_output"] >= 1
    text = gateway.ctl("requests").stdout
    assert shown["id"] in text and text.split()[0] == "ID"

    assert gateway.ctl_json("kill", shown["id"])["id"] == shown["id"]
    got = read_rest(events)
    assert "[DONE]" not in got
    assert "operator" in json.loads(got[-1])["error"]["message"]
    wait_until(lambda: sim.stats()["aborted_by_client"] == 1, what="the cancel at the provider")
    wait_until(lambda: gateway.ctl_json("requests")["requests"] == [], what="an empty list")
    assert gateway.ctl("kill", shown["id"], check=False).returncode == 1
    assert gateway.chat().status == 200
    assert gateway.stop() == 0
    row = next(r for r in gateway.rows() if "req_" + r["id"].hex() == shown["id"])
    assert (row["outcome"], row["source"]) == (3, 3)
    assert 0 < row["tokens_output"] < 5000 and row["cost"] > 0
    (entry,) = [e for e in sim.log() if e["request_id"] == shown["id"]]
    assert row["tokens_output"] <= entry["completion_tokens"]


def test_kill_before_the_first_byte_gives_a_status(gateway, sim):
    connection = gateway.connect()
    gateway.send(connection, "POST", "/v1/chat/completions", {
        "model": "GigaChat-2", "messages": [{"role": "user", "content": "[[first_ms:60000]]"}],
    })  # fmt: skip
    (shown,) = wait_until(lambda: gateway.ctl_json("requests")["requests"], what="the request")
    wait_until(lambda: sim.stats()["in_flight"] == 1, what="the request at the provider")
    assert gateway.ctl("kill", shown["id"]).stdout == "killed\n"
    answer = connection.getresponse()
    assert answer.status == 503
    answer.read()
    assert gateway.stop() == 0
    (row,) = gateway.rows()
    assert (row["outcome"], row["cost"], row["http_status"]) == (3, 0, 503)


# --- orders


def test_log_level_until_the_next_reload(gateway):
    assert gateway.ctl("log-level", "error").stdout == "done\n"
    gateway.make_key("silent")
    assert gateway.ctl_json("log-level", "info") == {"level": "info"}
    gateway.make_key("loud")

    def created():
        return sum(line["event"] == "key_created" for line in gateway.error_log())

    wait_until(lambda: created() == 2, what="the line of the second key")
    gateway.ctl("log-level", "error")
    gateway.ctl("reload")
    gateway.make_key("again")
    wait_until(lambda: created() == 3, what="the level of the configuration")


@pytest.mark.parametrize("verb, said", [("stop", "stopping\n"), ("drain", "draining\n")])
def test_stop_and_drain_finish_what_runs(gateway, verb, said):
    stream = gateway.stream("[[words:20]] [[chunk_ms:20]]")
    events = stream.events()
    next(events)
    assert gateway.ctl(verb).stdout == said
    assert list(events)[-1] == "[DONE]"
    assert gateway.process.wait(10) == 0
    assert gateway.leftovers() == []
    assert gateway.ctl(verb, check=False).returncode == 3


def test_drain_with_a_time_limit(gateway):
    stream = gateway.stream("[[words:5000]] [[chunk_ms:20]]")
    events = stream.events()
    next(events)
    gateway.ctl("drain", "--timeout-ms", "200")
    got = read_rest(events)
    assert json.loads(got[-1])["error"]["code"] == "draining"
    assert gateway.process.wait(10) == 0


def test_a_full_disk_for_the_output_is_a_failure(gateway):
    with open("/dev/full", "w", encoding="ascii") as full:
        for args in (["stat"], ["stat", "--json"], ["key", "list"], ["usage"]):
            result = subprocess.run(
                [BUILD / "xrouterctl", "-c", gateway.file, *args],
                stdout=full, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert result.returncode == 1 and result.stderr, args


def test_another_user_may_not_ask(gateway):
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    binary = shutil.copy(BUILD / "xrouterctl", gateway.directory / "xrouterctl")
    gateway.directory.chmod(0o755)
    for name in ("run", "xrouter.json"):
        (gateway.directory / name).chmod(0o755)  # somebody has opened the way to the sockets
    for verb in (["key", "list"], ["reload"], ["stat"]):
        result = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", binary, "-c",
             gateway.file, *verb],
            capture_output=True, text=True,
        )  # fmt: skip
        assert result.returncode == 1 and "denied" in result.stderr, (verb, result)
