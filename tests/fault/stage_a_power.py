"""Stage A: power cuts on the storage library. A worker uses a store under the power shim, which ends it at a drawn
system call and leaves of the volume what a disk would have; the next worker opens that, checks it against the oracle,
which lies elsewhere, and goes on until the next cut. One cut in five comes while the store is being opened, and one in
five just when the MANIFEST is synced, which random calls would seldom hit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from .power_run import ASSERTED, CUT, PowerRun, add
from .stage import Summary, Torture

LETTER = "A"
TITLE = "power cuts on the storage library"
SHORT = 0.1
MUTANTS = (
    "sync-off",
    "acked-before-sync",
    "visible-before-sync",
    "evidence-before-sync",
    "ids-unchecked",
    "folder-unsynced",
    "torn-tail-kept",
)

CUTS = 2000
CUTS_PER_STORE = (2, 5, 10, 40)  # one after the other
FIRST_CALLS = 110  # that change or sync something, while a store is made
OPENING_CALLS = 130  # while one is opened
WORKING_CALLS = 400  # of the same, the most that a worker gets
AIMED_CALLS = 8  # syncs of the MANIFEST: one with each flush and compaction
ACKS_MAX = 600  # after so many it closes the store, and loses its power then


def cut_store(it: Torture, number: int, seed: int, cuts: int) -> Summary:
    run = PowerRun(it, f"store-{number}", seed)
    notes = dict.fromkeys(("in_opening", "at_manifest", "at_the_end", "torn_files", "lost_names"), 0)
    for cut in range(cuts):
        opening = cut == 0 or run.random.random() < 0.2
        aim = "sync:MANIFEST" if cut and run.random.random() < 0.2 else ""
        calls = run.random.randint(1, OPENING_CALLS if opening else AIMED_CALLS if aim else WORKING_CALLS)
        if cut == 0:  # so that many stores are cut at each call that makes them
            calls = 1 + number % FIRST_CALLS
        report = run.work(ACKS_MAX, cut=calls, from_mark=not opening, aim=aim)
        if report["status"] == ASSERTED:
            run.fail(ASSERTED, report["said"])
        notes["at_manifest"] += bool(aim)
        notes["in_opening"] += opening
        notes["at_the_end"] += report["status"] != CUT
        for name in ("torn_files", "lost_names"):
            notes[name] += report[name]
    run.work(0)  # opens once more, checks every id, closes
    run.remove()
    return Summary(cycles=cuts, acks=run.acked(), notes=notes)


def split(cuts: int) -> list[int]:
    """How many cuts each store gets."""
    parts: list[int] = []
    while (left := cuts - sum(parts)) > 0:
        parts.append(min(left, CUTS_PER_STORE[len(parts) % len(CUTS_PER_STORE)]))
    return parts


def run(it: Torture) -> Summary:
    total = Summary()
    cuts = it.full(CUTS)
    first = it.random.randrange(FIRST_CALLS)
    seeds = [it.random.getrandbits(63) for _ in split(cuts)]
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(cut_store, it, first + number, seed, part)
            for number, (seed, part) in enumerate(zip(seeds, split(cuts), strict=True))
        ]
        try:
            for job in jobs:
                add(total, job.result())
                it.progress(total.cycles, cuts, f"cuts, {total.acks} events acknowledged")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return total
