"""ingestctl failed: on a store that no consumer has, and through the socket of one that runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.paths import BUILD

INGESTCTL = str(BUILD / "release/ingestctl")
DRIVER = str(BUILD / "release/failed_driver")
USAGE, REFUSED, NOT_FOUND, AGAIN, NEWER = 64, 65, 66, 75, 78


class Store:
    def __init__(self, folder: Path):
        self.folder = folder
        self.holder: subprocess.Popen | None = None

    def fill(self, events: int, size: int = 20) -> None:
        subprocess.run([DRIVER, "fill", str(self.folder), str(events), str(size)], check=True, timeout=600)

    def serve(self) -> None:
        self.holder = subprocess.Popen([DRIVER, "serve", str(self.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.holder.stdout.readline() == "ready\n"

    def stop(self) -> None:
        if self.holder:
            self.holder.stdin.close()
            assert self.holder.wait(timeout=30) == 0
            self.holder.stdout.close()
        self.holder = None

    def ctl(self, *words: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([INGESTCTL, "failed", *words, "--data-dir", str(self.folder)], capture_output=True, text=True, timeout=300)
        assert done.returncode == expect, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def lines(self, *words: str, **given) -> list[dict]:
        return [json.loads(each) for each in self.ctl(*words, **given).stdout.splitlines()]


@pytest.fixture(params=["in hand", "served"])
def store(request, tmp_path):
    """1,200 events: see tests/failed_driver.c for what they are."""
    it = Store(tmp_path / "data")
    it.fill(1200)
    if request.param == "served":
        it.serve()
    yield it
    it.stop()


def test_list(store):
    every = store.lines("list", "--json")
    assert [each["number"] for each in every] == list(range(1, 1201))
    assert "event" not in every[0] and every[0]["state"] == "waiting" and every[1]["state"] == "given_up"
    assert every[7] | {"firstFailedAt": "", "lastFailedAt": ""} == {
        **{"number": 8, "state": "given_up", "source": "/test", "id": "id-8", "type": "create_user", "key": "id-8"},
        **{"operation": "create_user", "effect": "user_index", "effectsDone": 2, "effects": 8, "attempts": 3, "code": "timeout"},
        **{"reason": "the index did not answer within 5 s", "firstFailedAt": "", "lastFailedAt": ""},
        **{"topic": "ingest.transactions", "partition": 8, "offset": 8},
    }
    assert len(store.lines("list", "--json", "--operation", "delete_user")) == 120
    assert len(store.lines("list", "--json", "--operation", "delete_user", "--code", "timeout")) == 108
    assert [each["number"] for each in store.lines("list", "--json", "--code", "conflict", "--after", "300", "--limit", "2")] == [400, 500]
    assert [each["number"] for each in store.lines("list", "--json", "--id", "id-77")] == [77]
    table = store.ctl("list").stdout.splitlines()
    assert len(table) == 1202 and table[0].split()[:4] == ["NUMBER", "STATE", "SOURCE", "ID"] and table[0].split() == table[1001].split()
    assert store.ctl("list", "--id", "none").stdout.splitlines()[1:] == []


def test_show(store):
    text = store.ctl("show", "8").stdout
    assert "reason    the index did not answer within 5 s\n" in text and '"source":"/test"' in text
    (one,) = store.lines("show", "8", "--json")
    assert one["event"]["transaction"]["operations"][0]["name"] == "create_user"
    assert "no failed event 1201" in store.ctl("show", "1201", expect=NOT_FOUND).stderr
    assert "is no number" in store.ctl("show", "0", expect=USAGE).stderr


def test_export(store):
    every = store.lines("export")
    assert len(every) == 1200 and every[6]["event"] == {"opaque": "bm8gZXZlbnQ="}
    assert every[0]["event"]["id"] == "id-1" and every[1199]["event"]["transaction"]["operations"][0]["name"] == "delete_user"
    alone = store.lines("export", "--events-only", "--limit", "10", expect=REFUSED)
    assert [each["id"] for each in alone] == [f"id-{n}" for n in range(1, 11) if n != 7]
    with open("/dev/full", "w") as full:
        words = [INGESTCTL, "failed", "export", "--data-dir", str(store.folder)]
        assert subprocess.run(words, stdout=full, stderr=subprocess.PIPE, timeout=60).returncode == 74


def test_retry_and_discard(store):
    for words in (["retry"], ["discard"], ["discard", "--all", "1"], ["discard", "--all", "--code", "x"], ["retry", "one"], ["retry", "0"]):
        store.ctl(*words, expect=USAGE)
    assert len(store.lines("list", "--json")) == 1200
    assert store.ctl("retry", "2", "4").stdout == "2 retried\n"
    states = [each["state"] for each in store.lines("list", "--json", "--limit", "6")]
    assert states == ["waiting", "waiting", "waiting", "waiting", "waiting", "given_up"]
    assert store.lines("show", "2", "--json")[0]["attempts"] == 0
    assert store.lines("discard", "--code", "conflict", "--json") == [{"discarded": 12, "missing": 0}]
    again = store.ctl("discard", "99", "100", expect=REFUSED)
    assert again.stdout == "1 discarded\n" and again.stderr == "100: there is no such failed event\n"
    assert store.ctl("retry", "--all").stdout == "1187 retried\n"
    assert {each["state"] for each in store.lines("list", "--json")} == {"waiting"}
    assert store.ctl("discard", "--all").stdout == "1187 discarded\n"
    assert store.lines("list", "--json") == []


def test_a_folder_that_is_none(tmp_path):
    nowhere = Store(tmp_path / "none")
    assert "there is no store of failed events" in nowhere.ctl("list", expect=NOT_FOUND).stderr
    assert not nowhere.folder.exists()
    done = subprocess.run([INGESTCTL, "failed", "list"], capture_output=True, text=True, timeout=60)
    assert done.returncode == USAGE and "--data-dir" in done.stderr


def test_a_folder_in_use(tmp_path):
    """By another tool, which does not answer: here one that is stopped in the middle of its output."""
    store = Store(tmp_path / "data")
    store.fill(2000)
    words = [INGESTCTL, "failed", "export", "--data-dir", str(store.folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as other:
        assert other.stdout.read(10)
        assert "is in use" in store.ctl("list", expect=AGAIN).stderr
        other.kill()
    assert len(store.lines("list", "--json")) == 2000


def test_a_consumer_that_was_killed_leaves_nothing_in_the_way(tmp_path):
    store = Store(tmp_path / "data")
    store.fill(100)
    store.serve()
    store.holder.kill()
    store.holder.wait()
    assert (store.folder / "control.sock").exists()
    assert len(store.lines("list", "--json")) == 100
    store.serve()
    assert len(store.lines("list", "--json")) == 100
    store.stop()
    assert not (store.folder / "control.sock").exists()


def peak_kib(words: list[str]) -> int:
    """Of a program that prints much; measured by a process of its own."""
    measure = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    return int(subprocess.run([sys.executable, "-c", measure, *words], capture_output=True, check=True, text=True, timeout=300).stdout)


@pytest.mark.parametrize("served", [False, True])
def test_memory_does_not_grow_with_the_events(tmp_path, served):
    peaks = {}
    for events in (2_000, 60_000):
        store = Store(tmp_path / str(events))
        store.fill(events, 300)
        if served:
            store.serve()
        peaks[events] = {what: peak_kib([INGESTCTL, "failed", what, "--data-dir", str(store.folder)]) for what in ("list", "export")}
        store.stop()
    # 60,000 events are 60 MB as JSON; the caches of the database fill up meanwhile
    for what in ("list", "export"):
        assert peaks[60_000][what] < peaks[2_000][what] + 40_000, peaks
