"""The server as stages B, C and G have it: a route of every kind, a load of every shape, and what must hold at the end.

Routes: `transactions` (JSON) with single events and groups whole, `informative` (protobuf), and `split` (protobuf), whose
groups of three have a record on each of three topics. The load sends each event under an id until it is acknowledged.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from harness.client import Event, IngestClient, RouteStatus
from harness.consumer import Record, each_record
from harness.kafka import KafkaCluster
from harness.load import Ack, Load
from harness.load_worker import SPLIT
from harness.paths import ROOT
from harness.process import wait_for
from harness.server import Ingestd
from harness.verify import Counters, check_counters, check_ledger, check_sequences, count_record

from .stage import Summary, Torture, Violation


class Way(NamedTuple):
    """A topic with what is on it: records of this route, and of split groups this part."""

    topic: str
    route: str
    part: int | None = None


TRANSACTIONS = Way("ingest.transactions", "transactions")
INFORMATIVE = Way("ingest.informative", "informative")
PARTS = [Way(f"ingest.{name}", "split", part) for part, name in enumerate(SPLIT)]
WAYS = [TRANSACTIONS, INFORMATIVE, *PARTS]
SHAPES = ("transaction", "group", "split", "informative")


def settings(folder: Path, **kafka: Any) -> dict[str, Any]:
    catalogue = folder / "catalogue.tsv"
    entries = (ROOT / "server/default_catalogue.tsv").read_text()
    entries += "".join(f"{name}\ttransaction\tsplit\tingest.{name}\t-\t-\n" for name in SPLIT)
    catalogue.write_text(entries)
    return {
        "catalogue_file": str(catalogue),
        "routes": [
            {"name": "transactions", "format": "json"},
            {"name": "informative"},
            {"name": "split", "topic": f"ingest.{SPLIT[0]}", "layout": "split"},
        ],
        "storage": {"ballast": 1 << 20, "reserve_free": 1 << 20},
        "kafka": {"topic_partitions": 6, **kafka},
    }


def server(it: Torture, name: str, bootstrap: str, binary: Path | None = None, **kafka: Any) -> Ingestd:
    return Ingestd(it.folder / name, bootstrap, settings(it.folder, **kafka), binary=binary or it.program("ingestd"))


class Callers(AbstractContextManager["Callers"]):
    """The load: three callers, one for each way to send. `rate` is that of all, in events a second."""

    def __init__(self, it: Torture, target: str, rate: float, timeout: float = 3):
        common = {"folder": it.folder, "shapes": SHAPES, "timeout": timeout}
        self.loads = [
            Load(target, name="single", mode="unary", lanes=40, rate=rate * 0.15, **common),
            Load(target, name="stream", mode="stream", lanes=40, rate=rate * 0.15, **common),
            Load(target, name="batch", mode="batch", lanes=200, rate=rate * 0.7, **common),
        ]
        self._stack = ExitStack()

    def __enter__(self) -> Callers:
        for load in self.loads:
            self._stack.enter_context(load)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def count(self) -> int:
        return sum(load.count() for load in self.loads)

    def reach(self, count: int, timeout: float) -> None:
        """Waits for so many acknowledgements."""
        wait_for(lambda: self.count() >= count, f"{count} acknowledgements (there are {self.count()})", timeout, 0.5)

    def finish(self) -> None:
        """Nothing new; each event that is under way is acknowledged."""
        for load in self.loads:
            load.finish()

    def acks(self, route: str | None = None) -> Iterator[Ack]:
        return (ack for load in self.loads for ack in load.each_ack() if route in (None, ack.route))


def drain(it: Ingestd, timeout: float = 180) -> list[RouteStatus]:
    """Waits until nothing is pending; the routes' status."""

    def done() -> list[RouteStatus] | None:
        with IngestClient(it.target) as client:
            routes = list(client.status().routes)
        return None if any(route.pending for route in routes) else routes

    try:
        return wait_for(done, "the backlog to drain", timeout, 0.2)
    except AssertionError as error:
        raise Violation(f"{error}\n{it.log()}") from error


def verify(
    callers: Callers, routes: Iterable[RouteStatus], records: Iterable[Record], others: Mapping[str, int] | None = None
) -> Summary:
    """After drain(): each event is on its topics exactly once, in order, whole and as it was sent; the ledger adds up.
    `records` are all that WAYS hold; `others`: events by route that the callers have not sent, and Kafka does not hold."""
    accepted: Counter[str] = Counter(others or {})
    accepted.update(ack.route for ack in callers.acks())
    found: dict[Way, Counters] = {way: defaultdict(list) for way in WAYS}
    summary = Summary(acks=sum(accepted.values()))
    for record in records:
        way = _way(record)
        summary.groups += _check_content(record, way)
        count_record(record, found[way])
    for way in WAYS:
        there = check_counters(callers.acks(way.route), found[way])
        summary.events += there if not way.part else 0
    check_sequences(callers.acks())
    check_ledger(routes, accepted)
    return summary


def records(kafka: KafkaCluster) -> Iterator[Record]:
    return each_record(kafka.bootstrap, [way.topic for way in WAYS], timeout=120)


def _way(record: Record) -> Way:
    """By the headers, as some readers do not tell the topic."""
    index = record.headers.get("ce_groupindex")
    json = record.headers["content-type"] == b"application/json"
    way = PARTS[int(index)] if index else TRANSACTIONS if json else INFORMATIVE
    if record.topic not in ("", way.topic):
        raise Violation(f"on {record.topic}, {record.offset}: {record.headers}")
    return way


def _check_content(record: Record, way: Way) -> bool:
    """Holds that the record says what was sent; whether a group is met here, for the first time."""
    headers = {name: value.decode() for name, value in record.headers.items()}
    if record.value is not None:  # else read without
        id, names = _content(record.value, headers["content-type"])
        if way.part is None:
            sound = id == headers["ce_id"] and names[0] == headers["ce_type"] and len(names) in (1, 3)
        else:
            sound = id == headers["ce_groupid"] and names == [SPLIT[way.part]] and headers["ce_groupsize"] == "3"
        if not sound:
            raise Violation(f"{way.topic} {record.offset}: {id} with the operations {names} has the headers {headers}")
    return way.part == 0 or (way.part is None and record.value is not None and len(names) == 3)


def _content(value: bytes, content_type: str) -> tuple[str, list[str]]:
    """The event's id, and the names of its operations (or of what it tells)."""
    if content_type == "application/json":
        event = json.loads(value)
        return event["id"], [each["name"] for each in event["transaction"]["operations"]]
    event = Event.FromString(value)
    if event.HasField("informative"):
        return event.id, [event.informative.name]
    return event.id, [each.name for each in event.transaction.operations]
