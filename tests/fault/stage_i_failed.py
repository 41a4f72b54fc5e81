"""Stage I: a consumer's store of failed events under power cuts, and under calls that fail. As stages A and D, with a
worker of its own: of a batch all is there or nothing, and all of it when its write was told as done."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor

from .power_run import ASSERTED, CUT, REFUSED, STOPPED, PowerRun, add
from .stage import Summary, Torture
from .stage_d_faults import draw_fault

LETTER = "I"
TITLE = "power cuts and failing calls on the store of failed events"
SHORT = 0.1
MUTANTS = ("failed-events-unsynced", "failed-counters-apart")

CUTS = 1500
CUTS_PER_STORE = 25
FAULTS_IN = 4  # one cycle in so many has calls that fail, not a cut
FIRST_CALLS = 110
WORKING_CALLS = 400
BATCHES = 60
NOTE = struct.Struct("=IIQQQ")
NOTE_WRITTEN = 4


def written(run: PowerRun) -> int:
    return sum(kind == NOTE_WRITTEN for kind, *_ in NOTE.iter_unpack(run.oracle.read_bytes()))


def torment(it: Torture, number: int, seed: int, cycles: int) -> Summary:
    run = PowerRun(it, f"store-{number}", seed, "failed_worker")
    notes = dict.fromkeys(("in_opening", "at_the_end", "torn_files", "stopped", "refused", "asserted"), 0)
    faults = 0
    run.work(BATCHES, cut=1 + number % FIRST_CALLS)  # while it is made
    for _ in range(cycles - 1):
        opening = run.random.random() < 0.25
        if run.random.randrange(FAULTS_IN):
            calls = run.random.randint(1, FIRST_CALLS if opening else WORKING_CALLS)
            report = run.work(BATCHES, cut=calls, from_mark=not opening)
            if report["status"] == ASSERTED:
                run.fail(ASSERTED, report["said"])
            notes["in_opening"] += opening
            notes["at_the_end"] += report["status"] != CUT
            notes["torn_files"] += report["torn_files"]
            continue
        seen = run.work(BATCHES, from_mark=not opening)
        report = run.work(BATCHES, from_mark=not opening, fault=draw_fault(run, seen))
        if report["status"] == ASSERTED and "EnvLogger" not in report["said"]:
            run.fail(ASSERTED, report["said"])
        faults += bool(report["faults"])
        for status, name in ((STOPPED, "stopped"), (REFUSED, "refused"), (ASSERTED, "asserted")):
            notes[name] += report["status"] == status
    run.work(0)
    acks = written(run)
    run.remove()
    return Summary(cycles=cycles, acks=acks, faults=faults, notes=notes)


def run(it: Torture) -> Summary:
    total = Summary()
    cuts = it.full(CUTS)
    first = it.random.randrange(FIRST_CALLS)
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(torment, it, first + start // CUTS_PER_STORE, it.random.getrandbits(63), min(CUTS_PER_STORE, cuts - start))
            for start in range(0, cuts, CUTS_PER_STORE)
        ]
        try:
            for job in jobs:
                add(total, job.result())
                it.progress(total.cycles, cuts, f"cuts and faults, {total.acks} batches written")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return total
