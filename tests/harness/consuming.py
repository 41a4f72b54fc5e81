"""Members of a consumer group, each a tests/consumer_driver.c with a data folder of its own, and what their handlers
wrote, held against what must hold: every effect of every event, in order, each once."""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from .paths import ROOT, SERVER
from .process import Process, wait_for
from .server import Metrics

# A member that is gone is noticed so soon; the brokers must allow it (GROUP).
SESSION = {"session.timeout.ms": 2000, "heartbeat.interval.ms": 300, "topic.metadata.refresh.interval.ms": 500}
GROUP = {"group.min.session.timeout.ms": 1000}

# Effects of operations of the default catalogue.
EFFECTS = {"create_user": 8, "create_org": 4, "add_user_to_org": 2, "block_user": 2, "generate_otp": 1}


class Call(NamedTuple):
    """A call of a handler that came to its end."""

    verdict: str
    pid: int
    key: str
    event: str
    operation: int
    effect: int
    attempt: int
    name: str
    idempotency_key: str


class Member:
    """One consumer_driver; it may be killed and started again, and keeps its folder."""

    def __init__(self, folder: Path, brokers: str, topics: str, group: str = "g", program: Path | None = None, **options: object):
        folder.mkdir(parents=True, exist_ok=True)
        program = program or Path(os.environ.get("CONSUMER_DRIVER", SERVER.parent / "consumer_driver"))
        assert program.exists(), f"{program} is missing: build it first (script/test does)"
        self.data_dir, self.stats = folder / "data", folder / "stats"
        given = {"stats": self.stats, **SESSION, **options}
        arguments = [f"{name.replace('__', '.')}={value}" for name, value in given.items()]
        argv = [str(program), brokers, group, topics, str(self.data_dir), *arguments]
        self.process = Process(argv, folder / "member.log", {"TSAN_OPTIONS": f"suppressions={ROOT / 'tests/tsan.supp'}"})
        self.pids: list[int] = []

    def start(self) -> Member:
        self.stats.unlink(missing_ok=True)
        self.process.start()
        self.pids.append(self.process.pid)
        return self

    def kill(self) -> None:
        assert self.process.running, f"a member has ended by itself:\n{self.log()}"
        self.process.kill()

    def stop(self) -> None:
        """SIGTERM, once it listens to that: it leaves the group, and ends with 0."""
        wait_for(self.stats.exists, "the member to be up")
        code = self.process.terminate(40)
        assert code == 0, f"a member ended with {code}:\n{self.log()}"  # not 0 if a sanitizer found something

    def metrics(self) -> Metrics:
        return Metrics(self.stats.read_text())

    def wait_metric(self, name: str, value: float, timeout: float = 30) -> None:
        wait_for(lambda: self.metrics().total(name) == value, f"{name} to be {value:g}", timeout)

    def log(self) -> str:
        return self.process.tail(80)

    def alarms(self) -> list[str]:
        lines = self.process.log.read_text(errors="replace").splitlines() if self.process.log.exists() else []
        return [line for line in lines if line.startswith("ALARM ")]


def calls(log: Path) -> Iterator[Call]:
    if not log.exists():
        return
    with open(log) as lines:
        for line in lines:
            verdict, pid, key, event, operation, effect, attempt, name, identity = line.rstrip("\n").split("\t")
            yield Call(verdict, int(pid), key, event, int(operation), int(effect), int(attempt), name, identity)


@dataclass
class Work:
    """What a log tells."""

    effects: int = 0
    repeats: Counter[int] = field(default_factory=Counter)  # effects that were done before, by the pid that did it again
    failed: int = 0
    done: set[str] = field(default_factory=set)  # events
    begun: dict[str, int] = field(default_factory=dict)  # effects done of the others


def read(log: Path, operations: Mapping[str, list[int]], in_order: bool = True, paused: Iterable[int] = ()) -> Work:
    """`operations`: of each event how many effects its operations have. Raises when an effect runs before the one
    before it, when one runs again that was not the last, when identities do not match effects, and with `in_order`
    when an event runs before an earlier one (by its id, KEY-COUNTER) of its key has ended. Processes that were
    `paused` may be late with what they had begun."""
    work, late = Work(), set(paused)
    orders = {event: [(i, k) for i, count in enumerate(counts) for k in range(count)] for event, counts in operations.items()}
    identities: dict[str, tuple[str, int, int]] = {}
    last: dict[str, int] = defaultdict(int)
    for call in calls(log):
        assert call.event in orders, f"unknown: {call}"
        order, next = orders[call.event], work.begun.get(call.event, 0)
        place = order.index((call.operation, call.effect))
        same = identities.setdefault(call.idempotency_key, (call.event, call.operation, call.effect))
        assert same == (call.event, call.operation, call.effect), f"{call} has the identity of {same}"
        if call.verdict != "done":
            work.failed += 1
            continue
        assert place <= next, f"{call} runs before effect {next} of its event"
        if place < next:
            assert place == next - 1 or call.pid in late, f"{call} runs again, when {next} were done"
            work.repeats[call.pid] += 1
            continue
        work.effects += 1
        work.begun[call.event] = next + 1
        if in_order:
            counter = int(call.event.rpartition("-")[2])
            earlier = last[call.key]
            assert counter in (earlier, earlier + 1), f"{call} comes behind number {earlier} of its key"
            if counter == earlier + 1:
                before = f"{call.key}-{earlier}"
                assert not earlier or before in work.done, f"{call} does not wait for {before}"
            last[call.key] = counter
        if next + 1 == len(order):
            work.done.add(call.event)
    return work


def check_all(work: Work, operations: Mapping[str, list[int]]) -> None:
    """Every event is done."""
    missing = operations.keys() - work.done
    some = [f"{event}: {work.begun.get(event, 0)} of {sum(operations[event])}" for event in sorted(missing)[:10]]
    assert not missing, f"{len(missing)} of {len(operations)} events are not done: {some}"


def wait_done(log: Path, operations: Mapping[str, list[int]], timeout: float = 30, **how: object) -> Work:
    """Until every event is done; what must not be in the log is told at once."""
    end = time.monotonic() + timeout
    while True:
        work = read(log, operations, **how)
        if not operations.keys() - work.done:
            return work
        if time.monotonic() > end:
            check_all(work, operations)
        time.sleep(0.2)
