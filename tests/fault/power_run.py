"""A volume that loses its power again and again, and the worker that uses the store on it: stages A, D and I."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from .stage import PROGRAMS, Summary, Torture, Violation

SHIM = PROGRAMS / "tests" / "fault" / "libpower_shim.so"
MEMORY = Path("/dev/shm")  # the model is the disk: what lies below it need not be slow

CUT, STOPPED, REFUSED, ASSERTED = 86, 74, 75, 87  # exit statuses of the worker and the shim
NOTE = struct.Struct("=IIQQ16s")
NOTE_ACKED = 2


class PowerRun:
    """One store, its oracle and its random numbers."""

    def __init__(self, it: Torture, name: str, seed: int, program: str = "store_worker") -> None:
        self.it = it
        self.program = program
        self.random = random.Random(seed)
        self.summary = Summary()
        self.folder = it.folder / name
        self.folder.mkdir()
        place = MEMORY if os.access(MEMORY, os.W_OK) else self.folder
        self.place = Path(tempfile.mkdtemp(prefix="ingest-power-", dir=place)).resolve()
        self.volume = self.place / "volume"
        self.volume.mkdir()
        self.oracle = self.folder / "oracle"

    def work(self, acks: int, cut: int = 0, from_mark: bool = False, fault: str = "", aim: str = "") -> dict[str, Any]:
        """Runs the worker to its end, which is a power cut whatever happens. Returns the shim's report and, in
        `said`, what the worker printed."""
        report = self.folder / "report"
        report.unlink(missing_ok=True)
        environment = {
            **os.environ,
            "LD_PRELOAD": str(SHIM),
            "POWER_ROOT": str(self.volume),
            "POWER_SEED": str(self.random.getrandbits(63)),
            "POWER_CUT": str(cut),
            "POWER_FROM_MARK": str(int(from_mark)),
            "POWER_AIM": aim,
            "POWER_FAULT": fault,
            "POWER_SYNC_US": str(self.random.choice((0, 50, 400) if from_mark else (0, 400, 3000))),
            "POWER_REPORT": str(report),
        }
        command = [self.it.program(self.program), self.volume, self.oracle, self.random.getrandbits(63), acks]
        command.append(int(bool(fault)))
        settings = {key: value for key, value in environment.items() if key.startswith("POWER") or key == "LD_PRELOAD"}
        text = " ".join(f"{key}={value}" for key, value in settings.items()) + " " + " ".join(map(str, command))
        (self.folder / "command").write_text(text + "\n")
        worker = subprocess.run(
            list(map(str, command)), env=environment, capture_output=True, text=True, errors="replace", timeout=120
        )
        said = (worker.stdout + worker.stderr).strip()  # both: an assertion may fail after the stop
        if worker.returncode not in (0, CUT, STOPPED, REFUSED, ASSERTED) or not report.exists():
            self.fail(worker.returncode, said)
        shutil.rmtree(f"{self.volume}.before")
        return {**json.loads(report.read_text()), "said": said}

    def acked(self) -> int:
        """Events with an acknowledgement, each counted once."""
        notes = NOTE.iter_unpack(self.oracle.read_bytes())
        return len({(route, sequence) for kind, route, sequence, _, _ in notes if kind == NOTE_ACKED})

    def fail(self, status: int, said: str) -> None:
        shutil.copytree(self.place, self.folder / "place")
        self.remove()
        if "power shim:" in said:  # its own fault, and nothing that a control may count as a catch
            raise RuntimeError(said)
        raise Violation(f"{said or 'it crashed'} (exit status {status})\nthe command is in {self.folder}/command")

    def remove(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)


def add(into: Summary, part: Summary) -> None:
    for name in ("cycles", "acks", "events", "faults"):
        setattr(into, name, getattr(into, name) + getattr(part, name))
    for name, value in part.notes.items():
        into.notes[name] = into.notes.get(name, 0) + value
