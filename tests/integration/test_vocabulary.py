"""The tokenizers' tables in memory: there once, however many processes count with them."""

import re
import subprocess

from harness import BUILD, wait_until

TABLES = ("vocabulary_o200k", "vocabulary_cl100k", "pretokenize_characters")
ENCODINGS = ("o200k_base", "cl100k_base")
TEXT = "Все люди рождаются свободными и равными. 人人生而自由。 All human beings are born free. "
KB = 1024


def tables_in_binary():
    """{name: (address, size)}"""
    lines = subprocess.run(["nm", "-S", BUILD / "xrouter"], capture_output=True, check=True, text=True).stdout
    found = re.findall(rf"^([0-9a-f]+) ([0-9a-f]+) . ({'|'.join(TABLES)})$", lines, re.MULTILINE)
    return {name: (int(address, 16), int(size, 16)) for address, size, name in found}


def mappings(pid):
    """(begin, end, permissions, path, {field: kB}) of each, from smaps."""
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as f:
        text = f.read()
    for part in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", text, flags=re.MULTILINE)[1:]:
        words = part.split("\n", 1)[0].split(maxsplit=5)
        begin, end = (int(x, 16) for x in words[0].split("-"))
        sizes = {name: int(kb) for name, kb in re.findall(r"^(\w+): +(\d+) kB$", part, re.MULTILINE)}
        yield begin, end, words[1], words[5] if len(words) > 5 else "", sizes


def mapping_of_tables(pid, tables):
    """The one that all of them lie in."""
    of_binary = [m for m in mappings(pid) if m[3] == str(BUILD / "xrouter")]
    base = of_binary[0][0]
    first = base + min(address for address, _ in tables.values())
    last = base + max(address + size for address, size in tables.values())
    (mapping,) = [m for m in of_binary if m[0] <= first and last <= m[1]]
    return mapping


def start_with_both(make_gateway):
    gateway = make_gateway(start=False, workers=2)
    candidate = {"provider": "gigachat", "model": "GigaChat-2"}
    for name in ENCODINGS:
        gateway.config["models"].append({"id": name, "tokenizer": name, "candidates": [candidate]})
    gateway.write_config()
    return gateway.start()


def test_vocabulary_is_shared(make_gateway):
    tables = tables_in_binary()
    assert sorted(tables) == sorted(TABLES)
    total_kb = sum(size for _, size in tables.values()) // KB
    gateway = start_with_both(make_gateway)
    workers = [p["pid"] for p in gateway.processes("worker")]
    assert len(workers) == 2

    def is_shared():
        """Counting touches pages; which ones the kernel maps besides is its own affair."""
        for name in ENCODINGS:
            answer = gateway.request("POST", "/v1/tokens/count", {"model": name, "input": TEXT * 50})
            assert answer.status == 200 and answer.json["method"] == "exact"
        kbs = [mapping_of_tables(pid, tables)[4] for pid in workers]
        return all(kb["Shared_Clean"] + kb["Shared_Dirty"] > total_kb / 4 for kb in kbs)

    wait_until(is_shared, 20, "pages of the tables in both workers")
    for pid in workers:
        _, _, permissions, _, kb = mapping_of_tables(pid, tables)
        # Pages of the file, read-only: no process has a copy of its own. (Some may be dirty: those of
        # a binary that was linked a moment ago.)
        assert permissions == "r--p"
        assert kb["Anonymous"] == kb["Swap"] == 0
