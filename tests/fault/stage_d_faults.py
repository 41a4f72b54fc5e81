"""Stage D: calls that fail. The n-th write, sync, open, rename, allocation... of a worker fails under the power shim,
once or from then on. The store may answer with an error, stop for good, or refuse to open; it may not crash, nor
acknowledge anything after a failed write or sync of the log. Then the power is cut, and the next worker, whose calls
all work, must find all that was acknowledged. After a failed sync the shim forgets the bytes as Linux does: they count
as written, and are not.

One assertion is let pass: a RocksDB with its assertions on, as Debian's is, ends the process when it goes on logging
after its own LOG could not be written. That is a stop like any other, though without the store's reason."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .power_run import ASSERTED, REFUSED, STOPPED, PowerRun, add
from .stage import Summary, Torture

LETTER = "D"
TITLE = "writes, syncs, opens, renames and allocations that fail"
SHORT = 0.1
MUTANTS = ("failed-sync-ignored",)

FAULTS = 1000
FAULTS_PER_STORE = 10
ACKS = 100
FOREVER = 1_000_000
ERRORS = {
    "write": ("EIO", "ENOSPC", "SHORT"),
    "sync": ("EIO", "ENOSPC"),
    "open": ("EIO", "EMFILE", "ENOSPC"),
    "rename": ("EIO", "ENOSPC"),
    "unlink": ("EIO",),
    "resize": ("EIO", "ENOSPC"),
    "mkdir": ("EIO", "ENOSPC"),
    "read": ("EIO",),
    "alloc": ("ENOMEM",),
}
KINDS = ("write", "sync", "open", "alloc") * 3 + ("rename", "unlink", "resize", "mkdir", "read")


def draw_fault(run: PowerRun, seen: dict[str, Any]) -> str:
    """One of the calls that the worker before has made."""
    kind = run.random.choice([each for each in KINDS if seen[each]])
    times = run.random.choice((1, 1, 3, FOREVER))
    return f"{kind}:{run.random.randint(1, seen[kind])}:{run.random.choice(ERRORS[kind])}:{times}"


def fail_store(it: Torture, name: str, seed: int, faults: int) -> Summary:
    run = PowerRun(it, name, seed)
    notes = dict.fromkeys(("carried_on", "stopped", "refused", "asserted", *ERRORS), 0)
    from_mark = bool(run.random.getrandbits(1))
    seen = run.work(ACKS, from_mark=from_mark)
    done = 0
    while done < faults:
        fault = draw_fault(run, seen)
        report = run.work(ACKS, from_mark=from_mark, fault=fault)
        if report["status"] == ASSERTED and "EnvLogger" not in report["said"]:
            run.fail(ASSERTED, report["said"])
        if report["faults"]:
            done += 1
            notes[fault.partition(":")[0]] += 1
            notes[{STOPPED: "stopped", REFUSED: "refused", ASSERTED: "asserted"}.get(report["status"], "carried_on")] += 1
        from_mark = bool(run.random.getrandbits(1))
        seen = run.work(ACKS, from_mark=from_mark)
    run.work(0)
    run.remove()
    return Summary(cycles=done, faults=done, acks=run.acked(), notes=notes)


def run(it: Torture) -> Summary:
    total = Summary()
    faults = it.full(FAULTS)
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(fail_store, it, f"store-{start}", it.random.getrandbits(63), min(FAULTS_PER_STORE, faults - start))
            for start in range(0, faults, FAULTS_PER_STORE)
        ]
        try:
            for job in jobs:
                add(total, job.result())
                it.progress(total.faults, faults, f"faults, {total.acks} events acknowledged")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return total
