"""J: members of a consumer group that are killed, leave, come back, and are paused until others have their partitions.

Full: 100 kills, 30 rebalances and 20 pauses of three members, in rounds of different kinds: whole groups and notices with
the cooperative assignor, split groups that span topics with the range assignor, and handlers that fail 5 % of the time,
later events of the key passing or waiting. Each effect of each acknowledged event is run, in order; again only the one
whose end was not recorded when its member was killed or paused. At the end a second replica publishes events again, to
members that were not there the first time: none of them runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from harness.client import IngestClient, transaction
from harness.consuming import EFFECTS, GROUP, Member, Work, wait_done
from harness.kafka import KafkaCluster
from harness.load import Ack, Load
from harness.paths import SERVER
from harness.process import wait_for
from harness.server import Ingestd

from .service import INFORMATIVE, PARTS, SHAPES, TRANSACTIONS, server
from .stage import Summary, Torture

LETTER = "J"
TITLE = "consumers killed, rebalanced and paused, with handlers that fail"
SHORT = 0.06
MUTANTS = ["marks-not-awaited", "progress-not-read", "identities-not-read-back"]

DEEDS = {"kill": 100, "rebalance": 30, "pause": 20}
MEMBERS = 3
LANES = 60
RATE = 250
PAUSE_S = (0.1, 1.2)  # between two deeds
ASLEEP_S = (0.5, 4.0)  # the session ends after two seconds
AGAIN = 20  # events that come a second time

OPERATIONS = {
    "transaction": [EFFECTS["create_user"]],
    "group": [EFFECTS[name] for name in ("create_user", "create_org", "add_user_to_org")],
    "split": [1, 1, 1],
    "informative": [EFFECTS["generate_otp"]],
}


class Round(NamedTuple):
    shapes: tuple[str, ...]
    topics: tuple[str, ...]
    options: Mapping[str, object]
    in_order: bool


WHOLE = ("transaction", "group", "informative")
WHOLE_TOPICS = (TRANSACTIONS.topic, INFORMATIVE.topic)
FAILING = {"fail_percent": 5, "backoff_ms": 20, "backoff_last_ms": 100, "attempts": 1000}
ROUNDS = [
    Round(WHOLE, WHOLE_TOPICS, {}, True),
    Round(SHAPES, (*WHOLE_TOPICS, *(way.topic for way in PARTS)), {"groups_span_topics": 1}, True),
    Round(WHOLE, WHOLE_TOPICS, FAILING, False),
    Round(WHOLE, WHOLE_TOPICS, {**FAILING, "order": "waits"}, True),
]


class Group:
    """Three members, and what befalls them."""

    def __init__(self, it: Torture, folder: Path, kafka: KafkaCluster, round: Round):
        self.it, self.log = it, folder / "effects.log"
        options = {"log": self.log, "delay_us": 1000, "workers": 3, "catalogue": it.folder / "catalogue.tsv", **round.options}
        self.members = [
            Member(folder / f"member-{n}", kafka.bootstrap, ",".join(round.topics), "g", it.program("consumer_driver"), **options)
            for n in range(MEMBERS)
        ]
        self.paused: set[int] = set()

    def kill(self) -> None:
        one = self.it.random.choice(self.members)
        one.kill()
        time.sleep(self.it.random.choice((0, 0, 3)))  # it comes back before it is missed, or after
        one.start()

    def rebalance(self) -> None:
        one = self.it.random.choice(self.members)
        one.stop()
        time.sleep(self.it.random.uniform(0, 2))
        one.start()

    def pause(self) -> None:
        one = self.it.random.choice(self.members)
        one.process.pause()
        self.paused.add(one.process.pid)
        time.sleep(self.it.random.uniform(*ASLEEP_S))
        one.process.resume()

    def finish(self, operations: Mapping[str, list[int]], in_order: bool) -> Work:
        try:
            return wait_done(self.log, operations, 120, in_order=in_order, paused=self.paused)
        except AssertionError as error:
            error.add_note("\n".join(one.log()[-1500:] for one in self.members))
            raise


@contextmanager
def group(it: Torture, folder: Path, kafka: KafkaCluster, round: Round) -> Iterator[Group]:
    made = Group(it, folder, kafka, round)
    try:
        for one in made.members:
            one.start()
        yield made
    finally:
        for one in made.members:
            one.process.kill()


def operations_of(ack: Ack, shapes: tuple[str, ...]) -> list[int]:
    lane = int(ack.key.rpartition(".")[2])
    return OPERATIONS[shapes[lane % len(shapes)]]


def publish_again(replica: Ingestd, operations: Mapping[str, list[int]], members: list[Member]) -> None:
    """By another replica, while nobody consumes: the members that come have to find it in what was."""
    ids = [id for id, counts in operations.items() if counts == OPERATIONS["transaction"]][-AGAIN:]
    for one in members:
        one.stop()
    with IngestClient(replica.target) as client:
        for id in ids:
            client.publish(transaction("create_user", id=id, key=id.rpartition("-")[0]), ack=2)
    for one in members:
        one.start()

    def skipped() -> bool:
        names = ("ingest_consumer_events_skipped_total", "ingest_consumer_events_done_total")
        return sum(one.metrics().total(name) for one in members for name in names) >= len(ids)

    wait_for(skipped, f"{len(ids)} events to be skipped", 60)


def torment(it: Torture, number: int, round: Round, deeds: list[str]) -> Summary:
    folder = it.folder / f"round-{number}"
    with KafkaCluster(properties=GROUP) as kafka:
        first, second = (server(it, f"server-{number}-{n}", kafka.bootstrap, SERVER) for n in range(2))
        first.start()
        try:
            with (
                Load(first.target, folder, mode="batch", lanes=LANES, rate=RATE, shapes=round.shapes, size=100) as load,
                group(it, folder, kafka, round) as consumers,
            ):
                for count, deed in enumerate(deeds):
                    time.sleep(it.random.uniform(*PAUSE_S))
                    getattr(consumers, deed)()
                    it.progress(count + 1, len(deeds), f"deeds of round {number}, {load.count()} events")
                load.finish()
                acks = [ack for ack in load.each_ack() if ack.route]
                operations = {ack.id: operations_of(ack, round.shapes) for ack in acks}
                consumers.finish(operations, round.in_order)
                publish_again(second.start(), operations, consumers.members)
                work = consumers.finish(operations, round.in_order)
        finally:
            first.stop()
            second.stop()
    notes = {"effects": work.effects, "repeated_in_flight": work.repeats.total(), "failed_calls": work.failed}
    groups = sum(len(counts) > 1 for counts in operations.values())
    return Summary(cycles=len(deeds), acks=len(acks), events=len(work.done), groups=groups, faults=len(deeds), notes=notes)


def run(it: Torture) -> Summary:
    total = Summary(notes={})
    deeds = [deed for deed, count in DEEDS.items() for _ in range(it.full(count))]
    it.random.shuffle(deeds)
    full = len(deeds) > 2 * len(ROUNDS) * 3
    rounds = ROUNDS if full else [it.random.choice(ROUNDS)]
    for number, round in enumerate(rounds):
        one = torment(it, number, round, deeds[number :: len(rounds)])
        for name in ("cycles", "acks", "events", "groups", "faults"):
            setattr(total, name, getattr(total, name) + getattr(one, name))
        for name, value in one.notes.items():
            total.notes[name] = total.notes.get(name, 0) + value
    return total
