"""What xrouterctl changes about a key that exists, and its credits."""

import re


def ask(gateway, key):
    return gateway.chat("abcdef", key=key, max_tokens=5).status


def test_update_changes_what_is_given_and_unset_takes_it_back(gateway):
    gateway.make_key("changing", "--rpm", "7", "--tpm", "1000", "--spend-day", "2.5")
    gateway.ctl("key", "update", "changing", "--rpm", "9", "--spend-week", "10")
    shown = gateway.ctl_json("key", "show", "changing")
    assert shown["limits"] == {"rpm": 9, "tpm": 1000, "spend_day": "2.5", "spend_week": "10"}
    assert shown["balance"] is None
    updated = gateway.ctl_json("key", "update", "changing", "--name", "changed", "--unset", "tpm,spend-day")
    assert updated["id"] == shown["id"] and updated["name"] == "changed"
    assert updated["limits"] == {"rpm": 9, "spend_week": "10"}
    text = gateway.ctl("key", "show", "changed").stdout
    assert re.search(r"^limits +rpm=9 spend_week=10$", text, re.M)
    listed = gateway.ctl("key", "list").stdout
    assert "BALANCE" in listed and "rpm=9 spend_week=10" in listed


def test_wrong_updates_are_refused_and_change_nothing(gateway):
    gateway.make_key("steady", "--rpm", "7")
    before = gateway.ctl_json("key", "show", "steady")
    for options, status in (
        (["--unset", "rps"], 2),
        (["--expires", "someday"], 2),
        (["--credits", "5"], 2),
        (["--spend-day", "free"], 1),
        (["--spend-day", "0"], 1),
        (["--tier", "gold"], 1),
        (["--name", "test"], 1),
    ):
        assert gateway.ctl("key", "update", "steady", *options, check=False).returncode == status
    assert gateway.ctl_json("key", "show", "steady") == before


def test_a_rotated_key_has_a_new_text_and_the_old_one_is_dead(gateway):
    old = gateway.make_key("turning", "--credits", "5")
    assert ask(gateway, old) == 200
    new = gateway.ctl("key", "rotate", "turning").stdout.strip()
    assert new.startswith("sk-xr-") and new != old
    assert ask(gateway, old) == 401
    assert ask(gateway, new) == 200
    gateway.ctl("key", "revoke", "turning")
    assert ask(gateway, new) == 401


def test_credits_are_added_corrected_and_listed(gateway):
    gateway.make_key("purse", "--credits", "1.5")
    added = gateway.ctl_json("credit", "add", "purse", "2", "--note", "May")
    assert added["amount"] == "2" and added["balance"] == "3.5" and added["note"] == "May"
    assert re.fullmatch(r"op_[0-9a-f]{32}", added["operation_id"])
    corrected = gateway.ctl("credit", "add", "purse", "-0.000000001", "--operation", "fix")
    assert "3.499999999" in corrected.stdout and "fix" in corrected.stdout
    entries = gateway.ctl_json("credit", "history", "purse")["entries"]
    assert [e["amount"] for e in entries] == ["-0.000000001", "2", "1.5"]
    assert len(gateway.ctl_json("credit", "history", "purse", "--limit", "1")["entries"]) == 1
    assert "-0.000000001" in gateway.ctl("credit", "history", "purse").stdout
    shown = gateway.ctl_json("credit", "show", "purse")
    assert shown["balance"] == shown["available"] == "3.499999999" and shown["reserved"] == "0"
    assert [s["period"] for s in shown["spending"]] == ["day", "week", "month"]
    assert re.search(r"^balance +3.499999999$", gateway.ctl("credit", "show", "purse").stdout, re.M)
    for amount in ("0", "many", "4000000001"):
        assert gateway.ctl("credit", "add", "purse", amount, check=False).returncode == 1
    assert gateway.ctl("credit", "add", "nobody", "1", check=False).returncode == 1


def test_a_long_history_comes_whole(gateway):
    gateway.make_key("long", "--credits", "0")
    for number in range(12):
        gateway.ctl("credit", "add", "long", "1", "--operation", f"n-{number}")
    entries = gateway.ctl_json("credit", "history", "long", "--limit", "0")["entries"]
    assert [e["balance"] for e in entries] == [str(n) for n in range(12, -1, -1)]
