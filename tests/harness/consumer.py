"""Reads whole topics, as a consumer that trusts only committed transactions (or one that reads everything)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from confluent_kafka.admin import TopicMetadata
from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from .process import wait_for


class Record(NamedTuple):
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]
    timestamp_ms: int | None


Until = int | Callable[[list[Record]], bool]


class Reader:
    """Reads all partitions of some topics from the beginning, on and on; `records` holds what was read. Waits up to
    `timeout` seconds for the topics to exist."""

    def __init__(self, bootstrap: str, topics: str | Iterable[str], isolation: str = "read_committed", timeout: float = 30):
        self.records: list[Record] = []
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "tests",  # never joined: partitions are assigned by hand, no offset is committed
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "isolation.level": isolation,
                "fetch.wait.max.ms": 50,
                "fetch.error.backoff.ms": 100,
                "reconnect.backoff.max.ms": 500,
                "queued.min.messages": 500000,
                "log_level": 0,
            }
        )
        names = [topics] if isinstance(topics, str) else list(topics)
        self._next = {part: OFFSET_BEGINNING for name in names for part in self._partitions(name, timeout)}
        self._at_end: dict[tuple[str, int], bool] = {}

    def read(self, until: Until | None = None, timeout: float = 60) -> list[Record]:
        """Reads to the (stable) end of every partition, and on until `until` holds: a number of records or a
        question about them. Returns all records so far."""
        end = time.monotonic() + timeout
        self._assign()
        while True:
            self.records.extend(self._fetch())
            if self._ended() and self._enough(until):
                return self.records
            if time.monotonic() > end:
                raise AssertionError(f"{len(self.records)} records in {timeout:g} s, wanted {until or 'all'}; {self._left()}")

    def each(self, timeout: float = 60) -> Iterator[Record]:
        """Reads to the (stable) end of every partition; the records are not kept."""
        end = time.monotonic() + timeout
        self._assign()
        while not self._ended():
            for record in self._fetch():
                yield record
                end = time.monotonic() + timeout
            if time.monotonic() > end:
                raise AssertionError(f"no record for {timeout:g} s; {self._left()}")

    def close(self) -> None:
        self._consumer.close()

    def _partitions(self, topic: str, timeout: float) -> list[tuple[str, int]]:
        def exists() -> TopicMetadata | None:
            found = self._consumer.list_topics(topic, timeout=5).topics[topic]
            return None if found.error else found

        # The server makes it when it first reaches Kafka.
        found = wait_for(exists, f"topic {topic}", timeout)
        return [(topic, number) for number in found.partitions]

    def _assign(self) -> None:
        """Assigned anew, each partition tells of its end anew."""
        self._at_end = dict.fromkeys(self._next, False)
        self._consumer.assign([TopicPartition(*part, offset) for part, offset in self._next.items()])

    def _fetch(self) -> list[Record]:
        found = []
        for message in self._consumer.consume(10000, 0.05):
            error = message.error()
            part = (message.topic(), message.partition())
            if error is None:
                self._at_end[part] = False
                self._next[part] = message.offset() + 1
                found.append(_record(message))
            elif error.code() == KafkaError._PARTITION_EOF:
                self._at_end[part] = True
            elif error.fatal() or not _passing(error):
                raise KafkaException(error)
        return found

    def _ended(self) -> bool:
        return all(self._at_end.values())

    def _left(self) -> str:
        return f"before the end: {[f'{topic}/{number}' for (topic, number), ended in self._at_end.items() if not ended]}"

    def _enough(self, until: Until | None) -> bool:
        if until is None:
            return True
        return len(self.records) >= until if isinstance(until, int) else until(self.records)


def each_record(
    bootstrap: str, topics: str | Iterable[str], isolation: str = "read_committed", timeout: float = 60
) -> Iterator[Record]:
    """All records of the topics, none of which is kept: for more than fit into memory. `timeout` is for each silence."""
    reader = Reader(bootstrap, topics, isolation, timeout)
    try:
        yield from reader.each(timeout)
    finally:
        reader.close()


def read_all(
    bootstrap: str,
    topics: str | Iterable[str],
    isolation: str = "read_committed",
    until: Until | None = None,
    timeout: float = 60,
) -> list[Record]:
    """All records of the topics, see Reader.read."""
    reader = Reader(bootstrap, topics, isolation, timeout)
    try:
        return reader.read(until, timeout)
    finally:
        reader.close()


def _record(message: Message) -> Record:
    kind, stamp = message.timestamp()
    return Record(
        message.topic(),
        message.partition(),
        message.offset(),
        message.key(),
        message.value(),
        dict(message.headers() or ()),
        None if kind == TIMESTAMP_NOT_AVAILABLE else stamp,
    )


def _passing(error: KafkaError) -> bool:
    """A broker that is away or changes its part: librdkafka tries again."""
    return error.retriable() or error.code() in (
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
    )
