"""What a stage of the torture is given, and what it gives back.

A stage is a module stage_*.py with LETTER, TITLE, SHORT (the scale of a short run, where 1 is the full one), MUTANTS
(names of tests/fault/mutations/*.patch that it must catch) and

    def run(it: Torture) -> Summary

which raises Violation, or any AssertionError, when a promise is broken. All that is random comes from it.random, so
that a seed gives the same run again as far as the machine allows.
"""

from __future__ import annotations

import importlib
import pkgutil
import random
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.paths import BUILD, SERVER

PROGRAMS = SERVER.parent
CONTROL_ATTEMPTS = 3


class Violation(AssertionError):
    """A promise is broken."""


@dataclass
class Summary:
    """What a run did, and what it found; a run that ends has lost nothing, so the last four are 0."""

    cycles: int = 0  # cuts, kills, faults, seeds: what the stage counts
    acks: int = 0
    events: int = 0  # read back, exactly once
    groups: int = 0
    faults: int = 0
    lost: int = 0
    doubled: int = 0
    torn: int = 0
    out_of_order: int = 0
    notes: dict[str, Any] = field(default_factory=dict)  # what else the closing figures should say


@dataclass
class Torture:
    """One run of one stage. `folder` is its own; it stays when the run fails."""

    letter: str
    seed: int
    scale: float
    mutant: str | None = None
    quiet: bool = False
    folder: Path = field(init=False)
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(f"{self.letter}-{self.seed}")
        self.folder = Path(tempfile.mkdtemp(prefix=f"torture-{self.letter.lower()}-"))
        self._told = 0.0

    def full(self, number: int) -> int:
        """That number at full scale; less at a smaller one, but at least one."""
        return max(1, round(number * self.scale))

    def program(self, name: str) -> Path:
        """The built program, or its mutant when this run is a control."""
        path = PROGRAMS / "mutants" / self.mutant / name if self.mutant else PROGRAMS / name
        if not path.exists():  # not an assertion: a control must not take it for a catch
            raise FileNotFoundError(f"{path} is missing: build it first (script/torture does)")
        return path

    def progress(self, done: int, of: int, text: str = "") -> None:
        """A line at most every few seconds."""
        now = time.monotonic()
        if not self.quiet and (now - self._told >= 5 or done == of):
            self._told = now
            print(f"  {self.letter}: {done} of {of} {text}", file=sys.stderr, flush=True)


def stages() -> dict[str, ModuleType]:
    folder = Path(__file__).parent
    names = sorted(each.name for each in pkgutil.iter_modules([str(folder)]) if each.name.startswith("stage_"))
    found = [importlib.import_module(f"fault.{name}") for name in names]
    return {module.LETTER: module for module in sorted(found, key=lambda module: module.LETTER)}


def run(letter: str, seed: int, scale: float, mutant: str | None = None, quiet: bool = False) -> dict[str, Any]:
    """Runs a stage and returns its summary with the seed and the time. On failure says how to repeat it."""
    it = Torture(letter, seed, scale, mutant, quiet)
    started = time.monotonic()
    try:
        summary = stages()[letter].run(it)
    except BaseException as error:
        again = f"script/torture {letter} --seed {seed} --scale {scale:g}" + (f" --mutant {mutant}" if mutant else "")
        error.add_note(f"again: {again}\nits files: {it.folder}")
        raise
    shutil.rmtree(it.folder, ignore_errors=True)
    return {"stage": letter, "seed": seed, "scale": scale, **asdict(summary), "seconds": time.monotonic() - started}


def control(letter: str, seed: int, mutant: str, scale: float | None = None, quiet: bool = True) -> str:
    """Runs a stage on broken code: it must fail, and this returns what it said. A short run of random faults may miss
    the one that matters: then the next seeds have a try."""
    scale = scale or stages()[letter].SHORT
    for attempt in range(CONTROL_ATTEMPTS):
        try:
            run(letter, seed + attempt, scale, mutant, quiet)
        except AssertionError as error:
            for note in getattr(error, "__notes__", []):
                _, _, folder = note.partition("its files: ")
                shutil.rmtree(folder, ignore_errors=True)
            return str(error)
    seeds = f"{seed} to {seed + CONTROL_ATTEMPTS - 1}"
    raise Violation(f"stage {letter} did not notice the mutant {mutant} (seeds {seeds}, scale {scale:g})")


__all__ = ["BUILD", "Summary", "Torture", "Violation", "control", "run", "stages"]
