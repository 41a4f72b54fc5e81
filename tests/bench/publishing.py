"""How fast events get to a real broker: a backlog that drains, accepting and publishing at once, and one at a time."""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from harness.client import IngestClient, transaction
from harness.kafka import KafkaCluster
from harness.process import wait_for
from harness.server import Ingestd
from harness.tools import run

from .figures import Figure
from .ingest import EVENT_BYTES, PROGRAMS, ROUTES, Loader, fresh_server, server

TOPIC = ROUTES[0]["topic"]
PARTITIONS = 6
PUBLISHED = 'ingest_events_published_total{route="transactions"}'


@contextmanager
def broker() -> Iterator[KafkaCluster]:
    with KafkaCluster() as kafka:
        kafka.create_topic(TOPIC, partitions=PARTITIONS)
        yield kafka


def drain_rate(folder: Path, load: Loader, events: int) -> float:
    """A backlog made while Kafka is away, then published: events a second until all is settled."""
    with tempfile.TemporaryDirectory(dir=folder) as own, broker() as kafka:
        it = server(Path(own)).start()
        try:
            load.run(it.target, "stream", 4, 4096, events)
            it.terminate()
            it.config["kafka"]["brokers"] = kafka.bootstrap
            it.start()
            wait_for(lambda: it.metrics()[PUBLISHED] > 0, "the first transaction", 60, interval=0.01)
            began, first = time.monotonic(), it.metrics()[PUBLISHED]
            wait_for(lambda: it.metrics()[PUBLISHED] == events, "the drain", 300, interval=0.02)
            return (events - first) / (time.monotonic() - began)
        finally:
            it.stop()


def producer_rate(events: int) -> float:
    with broker() as kafka:
        said = run(str(PROGRAMS / "kafka_floor"), kafka.bootstrap, TOPIC, str(events), str(EVENT_BYTES), timeout=600)
        rate = re.search(r"(\d+) events/s, 0 failed", said.stdout)
        assert rate, said.stdout
        return float(rate[1])


def drain(folder: Path, pairs: int, events: int) -> Figure:
    load = Loader(folder)
    name = "drain of a backlog over a bare idempotent producer"
    return Figure(name, "1/s", 0.95).run(lambda: drain_rate(folder, load, events), lambda: producer_rate(events), pairs)


def written_bytes(it: Ingestd) -> int:
    counted = Path(f"/proc/{it.process.pid}/io").read_text()
    return int(re.search(r"^write_bytes: (\d+)", counted, re.MULTILINE)[1])


def at_once(folder: Path, pairs: int, events: int) -> list[Figure]:
    """Accepted and published at once: seconds until all is committed, bytes to disk, memory at the end."""
    load = Loader(folder)
    written: list[float] = []
    memory: list[float] = []

    def ours() -> float:
        with broker() as kafka, fresh_server(folder, kafka.bootstrap) as it:
            before, began = written_bytes(it), time.monotonic()
            load.run(it.target, "stream", 4, 4096, events)
            wait_for(lambda: it.metrics()[PUBLISHED] == events, "all to be published", 600, interval=0.02)
            took = time.monotonic() - began
            written.append((written_bytes(it) - before) / events)
            memory.append(it.rss_kib() / 1024)
            return took

    name = f"{events:,} events accepted and published over the bare producer"
    times = Figure(name, "s", 1.5, less_is_better=True).run(ours, lambda: events / producer_rate(events), pairs)
    disk = Figure("bytes written to disk an event over its size", "bytes", 1.5, less_is_better=True)
    rss = Figure("RSS at the end of that over 200 MiB", "MiB", 1.0, less_is_better=True)
    return [times, disk.fixed(statistics.median(written), EVENT_BYTES), rss.fixed(max(memory), 200)]


def one_at_a_time(folder: Path, events: int = 200) -> Figure:
    """From the ack to a read_committed consumer, ten events a second."""
    took: list[float] = []
    with broker() as kafka, fresh_server(folder, kafka.bootstrap) as it, IngestClient(it.target) as client:
        consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "bench", "isolation.level": "read_committed"})
        consumer.assign([TopicPartition(TOPIC, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
        for number in range(events):
            client.publish(transaction("create_user", id=f"late-{number}"))
            began = time.monotonic()
            assert wait_for(lambda: consumer.poll(1), "the event to be readable", 30, interval=0)
            took.append((time.monotonic() - began) * 1000)
            time.sleep(0.1)
        consumer.close()
    name = "ack to readable, one at a time, p50, over 50 ms (librdkafka 2.0.2)"
    return Figure(name, "ms", 1.0, less_is_better=True).fixed(statistics.median(took[10:]), 50)
