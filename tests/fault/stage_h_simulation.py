"""H: the publisher's real code against a simulated Kafka and a simulated store (tests/simulation), one life a seed.

Full: 100,000 lives. A life that breaks a promise is told by its seed; `build/release/simulate --seed N --trace` shows it
again, step by step.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter

from .stage import Summary, Torture, Violation

LETTER = "H"
TITLE = "deterministic simulation of the publisher"
SHORT = 0.05
MUTANTS = [
    "position-outside-transaction",
    "position-read-to-stable-offset",
    "position-not-read",
    "position-not-confirmed",
    "producer-kept-after-abort",
    "producer-kept-after-doubt",
    "doubt-believed",
    "first-event-blamed",
    "dead-letter-late",
    "clone-out-of-sight",
]

SLICE = 500  # lives of one process; a failing one prints its trace, so all of it is kept


def run(it: Torture) -> Summary:
    lives = it.full(100_000)
    first = it.random.randrange(1 << 48)
    slices = [(first + at, min(SLICE, lives - at)) for at in range(0, lives, SLICE)]
    figures: Counter[str] = Counter()
    running: list[subprocess.Popen[str]] = []
    try:
        while slices or running:
            while slices and len(running) < (os.cpu_count() or 1):
                running.append(_start(it, *slices.pop(0)))
            figures.update(_finish(running.pop(0)))
            it.progress(figures["lives"], lives, "lives")
    finally:
        for process in running:
            process.kill()
            process.communicate()
    return Summary(
        cycles=figures["lives"],
        acks=figures["acks"],
        events=figures["events"],
        groups=figures["groups"],
        faults=figures["faults"],
        notes={name: figures[name] for name in ("kills", "transactions", "dead", "halted")},
    )


def _start(it: Torture, seed: int, count: int) -> subprocess.Popen[str]:
    command = [str(it.program("simulate")), "--seed", str(seed), "--count", str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _finish(process: subprocess.Popen[str]) -> dict[str, int]:
    output, _ = process.communicate(timeout=600)
    if process.returncode == 0:
        return json.loads(output)
    promise, _, trace = output.partition("\n")
    raise Violation(f"{promise}\n{trace[-8000:]}" if promise.startswith("seed") else output[-8000:])
