"""Stage A: power cuts on the storage library. A worker uses a store under the power shim, which ends it at a drawn
system call and leaves of the volume what a disk would have; the next worker opens that, checks it against the oracle,
which lies elsewhere, and goes on until the next cut. One cut in five comes while the store is being opened."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from .power_run import CUT, PowerRun, add
from .stage import Summary, Torture

LETTER = "A"
TITLE = "power cuts on the storage library"
SHORT = 0.1
MUTANTS = (
    "sync_off",
    "acked_before_sync",
    "visible_before_sync",
    "evidence_before_sync",
    "ids_unchecked",
    "folder_unsynced",
    "torn_tail_kept",
)

CUTS = 2000
CUTS_PER_STORE = 40  # one after the other
OPENING_CALLS = 130  # that change or sync something, of an opening
WORKING_CALLS = 400  # of the same, the most that a worker gets
ACKS_MAX = 600  # after so many it closes the store, and loses its power then


def cut_store(it: Torture, number: int, seed: int, cuts: int) -> Summary:
    run = PowerRun(it, f"store-{number}", seed)
    notes = dict.fromkeys(("in_opening", "at_the_end", "torn_files", "lost_names"), 0)
    for _ in range(cuts):
        opening = run.random.random() < 0.2
        calls = run.random.randint(1, OPENING_CALLS if opening else WORKING_CALLS)
        report = run.work(ACKS_MAX, cut=calls, from_mark=not opening)
        notes["in_opening"] += opening
        notes["at_the_end"] += report["status"] != CUT
        for name in ("torn_files", "lost_names"):
            notes[name] += report[name]
    run.work(0)  # opens once more, checks every id, closes
    run.remove()
    return Summary(cycles=cuts, acks=run.acked(), notes=notes)


def run(it: Torture) -> Summary:
    total = Summary()
    cuts = it.full(CUTS)
    parts = [min(CUTS_PER_STORE, cuts - start) for start in range(0, cuts, CUTS_PER_STORE)]
    seeds = [it.random.getrandbits(63) for _ in parts]
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(cut_store, it, number, seeds[number], part) for number, part in enumerate(parts)]
        try:
            for job in jobs:
                add(total, job.result())
                it.progress(total.cycles, cuts, f"cuts, {total.acks} events acknowledged")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return total
