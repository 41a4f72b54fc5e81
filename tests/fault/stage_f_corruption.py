"""Files of a store are damaged, one at a time; every event that was acknowledged is there, or named as lost, never less.

A store (corruptible.c) with tables, several logs, MANIFEST, dead letters and evidence is copied, and one of its files
changed: a bit, a length field of a log, a page of zeros, its end cut off, gone, or an older copy of it put in its place.

- `ingestctl store verify` ends, changes nothing, and says "sound" only if all is there;
- the store opens with everything identical, or reading reports what is unreadable, or it is refused with a reason; what
  is then unreadable is what verify said;
- `ingestctl store repair` refuses without the loss being accepted, and changes nothing; accepted, the store opens,
  what is not named lost is identical, the ledger counts the rest as lost, and no sequence is given twice.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import struct
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from .stage import Summary, Torture, Violation

LETTER = "F"
TITLE = "damaged files"
SHORT = 0.04
MUTANTS = ["damage-is-torn-tail", "evidence-ignored", "loss-uncounted", "sequence-given-twice"]

CYCLES = 500
EVENTS_OF_DIRECTED = 150
STORES = 5
PAGE = 4096
RUN_SECONDS = 60  # a program that takes longer hangs


# -- the store, and what is done to its files


def make_store(it: Torture, number: int, events: int) -> Path:
    """DIR/store, DIR/ledger, and DIR/half: what the store's folder was when half of the events were in it."""
    folder = it.folder / f"original-{number}"
    folder.mkdir()
    argv = [it.program("corruptible"), "make", folder / "store", folder / "ledger", str(it.random.randrange(1 << 30)), str(events)]
    with subprocess.Popen(list(map(str, argv)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as making:
        assert making.stdout.readline() == "half\n", "corruptible did not come to the half"
        shutil.copytree(folder / "store", folder / "half")
        making.communicate("go\n", timeout=RUN_SECONDS)
    assert making.returncode == 0, f"corruptible ended with {making.returncode}"
    return folder


def flip(file: Path, dice: random.Random, half: Path) -> str:
    at = dice.randrange(file.stat().st_size)
    _put(file, at, bytes([file.read_bytes()[at] ^ 1 << dice.randrange(8)]))
    return f"flip at {at}"


def change_length(file: Path, dice: random.Random, half: Path) -> str:
    """Of a record of a log or MANIFEST: the two bytes that say where the next one is."""
    data = file.read_bytes()
    headers = _headers(data)
    if not headers:
        return flip(file, dice, half)
    at = dice.choice(headers) + 4
    _put(file, at, struct.pack("<H", struct.unpack_from("<H", data, at)[0] ^ 1 << dice.randrange(15)))
    return f"length at {at}"


def zero_page(file: Path, dice: random.Random, half: Path) -> str:
    at = dice.randrange(0, file.stat().st_size, PAGE)
    _put(file, at, bytes(min(PAGE, file.stat().st_size - at)))
    return f"zeros at {at}"


def truncate(file: Path, dice: random.Random, half: Path) -> str:
    size = dice.randrange(file.stat().st_size)
    headers = _headers(file.read_bytes()) if _is_log(file) else []
    if headers and dice.random() < 0.7:  # between two records, where nothing looks torn
        size = dice.choice(headers)
    with open(file, "r+b") as opened:
        opened.truncate(size)
    return f"cut to {size}"


def delete(file: Path, dice: random.Random, half: Path) -> str:
    file.unlink()
    return "deleted"


def put_older(file: Path, dice: random.Random, half: Path) -> str:
    """The same file as it was when the store was half as long; or, for the end of a log, some records less."""
    older = half / file.relative_to(file.parents[1] if file.parent.name == "db" else file.parent)
    if not older.exists():
        return truncate(file, dice, half)
    shutil.copy(older, file)
    return "older copy"


def newest_log(folder: Path) -> Path:
    return max(folder.glob("db/*.log"), key=lambda each: int(each.stem))


def cut_between(file: Path, back: int) -> str:
    """Cuts the last records off, so that nothing looks torn."""
    headers = _headers(file.read_bytes())
    size = headers[-min(back, len(headers) - 1)]
    with open(file, "r+b") as opened:
        opened.truncate(size)
    return f"cut to {size}"


def flip_middle(file: Path) -> str:
    at = file.stat().st_size // 2
    _put(file, at, bytes([file.read_bytes()[at] ^ 1]))
    return f"flip at {at}"


def flip_early(file: Path) -> str:
    """In a record of the log that others follow."""
    headers = _headers(file.read_bytes())
    at = headers[len(headers) // 3] + 10
    _put(file, at, bytes([file.read_bytes()[at] ^ 1]))
    return f"flip at {at}"


# What every run begins with: the damages that one layer of the defence alone has to find.
DIRECTED = [
    lambda store: (newest_log(store), lambda file: cut_between(file, 3)),
    lambda store: (newest_log(store), flip_early),
    lambda store: (max(store.glob("db/*.sst"), key=lambda each: each.stat().st_size), flip_middle),
    *(
        lambda store, back=back: (next(store.glob("db/MANIFEST-*")), lambda file: cut_between(file, back))
        for back in range(1, 7)
    ),
]


def damage_directed(store: Path, number: int) -> str:
    file, way = DIRECTED[number](store)
    return f"{file.name}: {way(file)}"


def _put(file: Path, at: int, data: bytes) -> None:
    with open(file, "r+b") as opened:
        opened.seek(at)
        opened.write(data)


def _is_log(file: Path) -> bool:
    return file.suffix == ".log" or file.name.startswith("MANIFEST")


def _headers(data: bytes) -> list[int]:
    """Offsets of the records of a log."""
    found, at = [], 0
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        found.append(at)
        at += 7 + struct.unpack_from("<H", data, at + 4)[0]
    return found


def damage(folder: Path, half: Path, dice: random.Random) -> str:
    """One damage to one file; what and where."""
    by_kind: dict[str, list[Path]] = {}
    for file in sorted(each for each in folder.rglob("*") if each.is_file() and each.stat().st_size):
        kind = file.suffix or file.name.split("-")[0].split(".")[0]
        by_kind.setdefault(kind, []).append(file)
    weights = {".log": 5, ".sst": 5, "MANIFEST": 4, "CURRENT": 2, "evidence": 2}
    kinds = sorted(by_kind)
    kind = dice.choices(kinds, [weights.get(each, 0.5) for each in kinds])[0]
    file = dice.choice(by_kind[kind])
    ways = [flip, flip, zero_page, truncate, delete, put_older] + ([change_length, truncate] if _is_log(file) else [])
    return f"{file.name}: {dice.choice(ways)(file, dice, half)}"


# -- the programs


def call(what: str, *argv: str | Path) -> tuple[int, str, str]:
    try:
        done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, errors="replace", timeout=RUN_SECONDS)
    except subprocess.TimeoutExpired:
        raise Violation(f"{what}: {argv[1:3]} hangs") from None
    if done.returncode < 0:
        raise Violation(f"{what}: {argv[1:3]} died of signal {-done.returncode}: {done.stderr[-600:]}")
    return done.returncode, done.stdout, done.stderr


def ranges(found: list[list[int]]) -> set[int]:
    return {number for first, last in found for number in range(first, last + 1)}


def losses(survey: dict[str, Any], route: int) -> set[int]:
    return ranges([[each["first"], each["last"]] for each in survey["losses"] if each["route"] == route])


def fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(each for each in folder.rglob("*") if each.is_file()):
        digest.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    return digest.hexdigest()


# -- one cycle


class Cycle:
    def __init__(self, it: Torture, original: Path, number: int, dice: random.Random):
        self.it, self.original = it, original
        self.store = it.folder / f"cycle-{number}"
        shutil.copytree(original / "store", self.store)
        directed = number < len(DIRECTED)
        done = damage_directed(self.store, number) if directed else damage(self.store, original / "half", dice)
        self.what = f"cycle {number}, {done}"

    def tool(self, *argv: str) -> tuple[int, str, str]:
        return call(self.what, self.it.program("ingestctl"), "store", *argv)

    def corruptible(self, mode: str, store: Path) -> dict[str, Any]:
        code, out, said = call(self.what, self.it.program("corruptible"), mode, store, self.original / "ledger")
        self.demand(code == 0, f"corruptible ended with {code}: {said}")
        return json.loads(out)

    def demand(self, holds: bool, text: str) -> None:
        if not holds:
            raise Violation(f"{self.what}: {text}")

    def verify(self) -> dict[str, Any]:
        before = fingerprint(self.store)
        code, out, said = self.tool("verify", str(self.store), "--json")
        self.demand(code in (0, 65), f"verify ended with {code}: {said}")
        self.demand(bool(out), f"verify said nothing but: {said}")
        survey = json.loads(out)
        self.demand(fingerprint(self.store) == before, "verify changed the store")
        self.demand(survey["sound"] == (code == 0), "verify says one thing and ends with the other")
        return survey

    def open(self, survey: dict[str, Any]) -> str:
        """Opens a copy as the server does, and reads all."""
        opened = self.it.folder / "opened"
        shutil.rmtree(opened, ignore_errors=True)
        shutil.copytree(self.store, opened)
        found = self.corruptible("check", opened)
        if found["open"] != "OK":
            self.demand(bool(found["reason"]), "refused without a reason")
            self.demand(not survey["sound"], f"verify calls it sound, but it is refused: {found['reason']}")
            self.demand_no_worse(opened, survey)
            return "refused"
        unreadable = False
        for number, route in enumerate(found["routes"]):
            self.demand(not route["silent"], f"silently lost or changed: {route['route']} {route['silent']}")
            self.demand(route["identity"], f"the ledger does not add up: {route}")
            self.demand(route["position"] <= route["settled"], f"the position is ahead: {route}")
            unreadable |= bool(route["unreadable"])
            named = losses(survey, number) if survey["damage_id"] else set()
            self.demand(not (named - ranges(route["unreadable"])), f"verify names more lost than is: {named}, {route}")
        self.demand(not (unreadable and survey["sound"]), f"verify calls it sound, but it cannot be read: {found}")
        if unreadable:
            self.demand_no_worse(opened, survey)
        return "unreadable" if unreadable else "harmless"

    def demand_no_worse(self, opened: Path, survey: dict[str, Any]) -> None:
        """The start itself loses nothing that could have been read before; but RocksDB removes tables that are
        superseded, in which a block could be found that is unreadable elsewhere."""
        if ".sst" in self.what:
            return
        code, out, said = self.tool("verify", str(opened), "--json")
        self.demand(code == 65, f"damaged before the start, and sound after it: {code} {said}")
        after = json.loads(out)["losses"]
        self.demand(after == survey["losses"], f"a start lost more: {after}, not {survey['losses']}")

    def repair(self, survey: dict[str, Any]) -> int:
        names = [f"--route={number}={name}" for number, name in enumerate(("transactions", "informative"))]
        before = fingerprint(self.store)
        code, _, said = self.tool("repair", str(self.store), *names)
        self.demand(code == 65, f"repair without acceptance ended with {code}: {said}")
        code, _, said = self.tool("repair", str(self.store), *names, "--accept-loss=00000000")
        self.demand(code == 65, f"repair accepted another loss: {code}: {said}")
        self.demand(fingerprint(self.store) == before, "repair changed the store without acceptance")
        code, out, said = self.tool("repair", str(self.store), *names, f"--accept-loss={survey['damage_id']}", "--json")
        self.demand(code == 0, f"repair ended with {code}: {said}")
        repaired = json.loads(out)
        self.demand(repaired["losses"] == survey["losses"], "repair and verify name other losses")
        self.demand((self.store / repaired["kept_in"]).is_dir(), "the damaged files were not kept")
        found = self.corruptible("append", self.store)
        self.demand(found["open"] == "OK", f"refused after the repair: {found}")
        for number, route in enumerate(found["routes"]):
            self.check_repaired(number, route, repaired, found["appended"][number])
        return repaired["events_lost"]

    def check_repaired(self, number: int, route: dict[str, Any], survey: dict[str, Any], appended: int) -> None:
        said = survey["routes"][number] if number < len(survey["routes"]) else {"lost": 0, "dead_missing": 0}
        named = losses(survey, number)
        self.demand(not route["unreadable"], f"unreadable after the repair: {route}")
        silent = ranges(route["silent"])
        # Of dead letters whose sequences nothing tells only the number is known.
        self.demand(len(silent) <= said["dead_missing"], f"silently lost after the repair: {route}, {said}")
        self.demand(ranges(route["lost"]) <= named, f"lost, but not named: {route}, {named}")
        acknowledged = {each for each in named if each <= route["acknowledged"]}
        # A lost dead letter behind the position has no tombstone any more; it is silent there.
        self.demand(acknowledged <= ranges(route["lost"]) | silent, f"named as lost, but not so: {route}, {named}")
        self.demand(route["lost_count"] == said["lost"], f"the ledger counts {route['lost_count']} lost, of {said}")
        self.demand(route["identity"], f"the ledger does not add up: {route}")
        self.demand(route["pending"] == route["read"], f"pending is not what can be read: {route}")
        self.demand(appended > route["acknowledged"], f"sequence {appended} was given before: {route}")

    def run(self) -> tuple[str, int, bool]:
        survey = self.verify()
        outcome = self.open(survey)
        lost = 0
        if not survey["sound"]:
            lost = self.repair(survey)
        elif outcome == "harmless":
            # What verify calls sound a repair leaves alone.
            code, _, said = self.tool("repair", str(self.store))
            self.demand(code == 0 and not list(self.store.glob("damaged-*")), f"repair of a sound store: {code} {said}")
        shutil.rmtree(self.store)
        return outcome, lost, survey["identity_lost"]


def run(it: Torture) -> Summary:
    cycles = it.full(CYCLES)
    # The directed damages go to a small store: its MANIFEST ends with the opening, and no compaction hides that.
    sizes = [EVENTS_OF_DIRECTED] + [it.random.choice([500, 2500, 6000]) for _ in range(min(STORES, cycles // 15))]
    originals = [make_store(it, number, events) for number, events in enumerate(sizes)]
    outcomes: Counter[str] = Counter()
    lost = new_ids = 0
    for number in range(cycles):
        dice = random.Random(it.random.random())
        original = originals[0] if number < len(DIRECTED) else dice.choice(originals)
        outcome, gone, new_id = Cycle(it, original, number, dice).run()
        outcomes[outcome] += 1
        lost += gone
        new_ids += new_id
        it.progress(number + 1, cycles, f"{dict(outcomes)}, {lost} events named lost")
    acks = sum(line.startswith("A") for folder in originals for line in open(folder / "ledger"))
    return Summary(
        cycles=cycles,
        acks=acks,
        faults=cycles,
        notes={**outcomes, "named_lost_and_counted": lost, "new_store_ids": new_ids, "silent": 0},
    )
