"""Load: worker processes that publish events and keep a ledger of every acknowledgement.

A worker has lanes; a lane is a key with a counter, and has one event in flight: event n + 1 of a key is sent when
n was acknowledged, and whatever passes (the server killed, no answer, no room) n is sent again under its own id
until it is. So for each key Kafka must hold the counters 1, 2, 3... exactly once and in order; see verify.py.
An event's id is "<key>-<counter>".

The ledger has a line for each acknowledgement, in the order in which the worker saw them; it is synced several times a
second, and at the end.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .paths import ROOT
from .process import Process


class Ack(NamedTuple):
    """One line of a ledger. An event that was under way when the load ended has the route ""."""

    id: str
    key: str
    counter: int
    route: str
    sequence: int
    duplicate: bool
    store: str


class Load:
    """Workers under way. mode: unary, batch (one event of every lane in a call) or stream (likewise)."""

    def __init__(
        self,
        target: str,
        folder: Path,
        name: str = "load",
        mode: str = "unary",
        lanes: int = 64,
        processes: int = 1,
        events: int = 0,
        rate: float = 0,
        size: int = 200,
        shapes: tuple[str, ...] = ("transaction",),
        ack: str = "persisted",
        timeout: float = 10,
    ):
        """`events` and `rate` (events a second) count for each process; 0 means: without end, without limit.
        `lanes` are those of one process; lane i sends shapes[i % len(shapes)]. A call is
        given up after `timeout` seconds, one of many events after three times that, and sent again."""
        folder.mkdir(parents=True, exist_ok=True)
        self._ledgers = [folder / f"{name}-{number}.ledger" for number in range(processes)]
        self._workers = [
            Process(
                [sys.executable, "-m", "harness.load_worker", target, str(ledger), f"{name}{number}"]
                + [f"--mode={mode}", f"--lanes={lanes}", f"--events={events}", f"--rate={rate}"]
                + [f"--size={size}", f"--shapes={','.join(shapes)}", f"--ack={ack}", f"--timeout={timeout}"],
                ledger.with_suffix(".log"),
                {"PYTHONPATH": str(ROOT / "tests"), "GRPC_VERBOSITY": "NONE"},
            )
            for number, ledger in enumerate(self._ledgers)
        ]

    def start(self) -> Load:
        self._counted = {ledger: (0, 0) for ledger in self._ledgers}  # bytes and lines seen by count()
        for ledger, worker in zip(self._ledgers, self._workers):
            ledger.unlink(missing_ok=True)
            worker.start()
        return self

    def wait(self, timeout: float = 120) -> list[Ack]:
        """Waits until all `events` are acknowledged; the ledger."""
        self._join(timeout)
        return self.acks()

    def _join(self, timeout: float) -> None:
        end = time.monotonic() + timeout
        for worker in self._workers:
            code = worker.wait(max(0.1, end - time.monotonic()))
            assert code == 0, f"a load worker ended with {code}:\n{worker.tail()}"

    def stop(self, timeout: float = 60) -> list[Ack]:
        """Sends nothing new, waits until what is under way is acknowledged; the ledger."""
        self.finish(timeout)
        return self.acks()

    def finish(self, timeout: float = 60) -> None:
        """The same, and the ledger stays where it is."""
        for worker in self._workers:
            if worker.running:
                worker.signal(signal.SIGTERM)
        self._join(timeout)

    def abandon(self) -> list[Ack]:
        """Ends at once, with events under way; the ledger, these among it."""
        for worker in self._workers:
            if worker.running:
                worker.signal(signal.SIGINT)
        return self.wait()

    def kill(self) -> None:
        for worker in self._workers:
            worker.kill()

    def count(self) -> int:
        """How many acknowledgements there are so far."""
        for ledger, (size, lines) in self._counted.items():
            if ledger.exists():
                with open(ledger, "rb") as file:
                    file.seek(size)
                    fresh = file.read()
                self._counted[ledger] = (size + len(fresh), lines + fresh.count(b"\n"))
        return sum(lines for _, lines in self._counted.values())

    def acks(self) -> list[Ack]:
        return list(self.each_ack())

    def each_ack(self) -> Iterator[Ack]:
        """The same one after the other: for more than fit into memory."""
        return (ack for ledger in self._ledgers for ack in _read(ledger))

    def __enter__(self) -> Load:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


def _read(ledger: Path) -> Iterator[Ack]:
    with open(ledger) as lines:
        for line in lines:
            id, key, counter, route, sequence, duplicate, store = line.rstrip("\n").split("\t")
            yield Ack(id, key, int(counter), route, int(sequence), duplicate == "1", store)
