"""script/bench: durable unary requests a second over a bare C-core echo, and drain rate over a bare producer.

Each figure is the ratio of the two medians of paired runs, the sides taking turns, because the machine is shared;
the spread is that of the pairs' ratios. The table goes to standard output, the same as JSON to build/bench.json.
script/bench startup is another table: see startup.py.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness.client import PublishRequest, transaction
from harness.kafka import KafkaCluster
from harness.paths import BUILD
from harness.process import Process, free_port, wait_for
from harness.server import Ingestd
from harness.tools import h2load, run

from . import startup

METHOD = "ingest.v1.IngestService/Publish"
EVENT_BYTES = 300
CLIENTS, STREAMS = 16, 64
TOPIC = "bench-transactions"


def event_300() -> bytes:
    """A PublishRequest whose event takes 300 bytes when stored. The id is the server's: h2load repeats one body."""
    filler = 0
    while True:
        event = transaction("create_user", id="", key="k" * 12, data=b"x" * filler)
        if event.ByteSize() >= EVENT_BYTES:
            return PublishRequest(event=event).SerializeToString()
        filler += 1


def server(folder: Path, kafka: str) -> Ingestd:
    routes = [{"name": "transactions", "topic": TOPIC}, {"name": "informative", "topic": "bench-informative"}]
    config = {"routes": routes, "kafka": {"positions_topic": "bench-positions"}, "log": {"level": "error"}}
    return Ingestd(folder, kafka, config)


def echo_rate(folder: Path, requests: int, body: bytes) -> float:
    target = f"127.0.0.1:{free_port()}"
    process = Process([str(BUILD / "release/echo_server"), target], folder / "echo.log")
    process.start()
    try:
        time.sleep(0.5)
        return h2load(target, METHOD, body, requests, CLIENTS, STREAMS)
    finally:
        process.kill()


def durable_rate(folder: Path, requests: int, body: bytes) -> float:
    with tempfile.TemporaryDirectory(dir=folder) as own:
        it = server(Path(own), "127.0.0.1:1").start()
        try:
            rate = h2load(it.target, METHOD, body, requests, CLIENTS, STREAMS)
            accepted = it.metrics().total("ingest_events_accepted_total")
            assert accepted == requests, f"{accepted:.0f} of {requests} accepted: h2load counts refusals as done"
            return rate
        finally:
            it.stop()


def drain_rate(folder: Path, events: int, body: bytes) -> float:
    """A backlog made while Kafka is away, then published to a real broker: events a second until all is settled."""
    with tempfile.TemporaryDirectory(dir=folder) as own, KafkaCluster() as kafka:
        kafka.create_topic(TOPIC, partitions=6)
        it = server(Path(own), "127.0.0.1:1").start()
        try:
            h2load(it.target, METHOD, body, events, CLIENTS, STREAMS)
            it.terminate()
            it.config["kafka"]["brokers"] = kafka.bootstrap
            it.start()
            published = 'ingest_events_published_total{route="transactions"}'
            wait_for(lambda: it.metrics()[published] > 0, "the first transaction", 60, interval=0.01)
            began, first = time.monotonic(), it.metrics()[published]
            wait_for(lambda: it.metrics()[published] == events, "the drain", 300, interval=0.02)
            return (events - first) / (time.monotonic() - began)
        finally:
            it.stop()


def producer_rate(events: int) -> float:
    with KafkaCluster() as kafka:
        kafka.create_topic(TOPIC, partitions=6)
        floor = run(str(BUILD / "release/kafka_floor"), kafka.bootstrap, TOPIC, str(events), str(EVENT_BYTES), timeout=300)
        said = re.search(r"(\d+) events/s, 0 failed", floor.stdout)
        assert said, floor.stdout
        return float(said[1])


def pairs(name: str, ours: Callable[[], float], floor: Callable[[], float], count: int, goal: float) -> dict:
    got: list[float] = []
    base: list[float] = []
    for number in range(count):
        for into, measure in [(base, floor), (got, ours)][:: 1 if number % 2 else -1]:
            into.append(measure())
        print(f"  {name}: {got[-1]:,.0f}/s over {base[-1]:,.0f}/s", flush=True)
    ratios = sorted(one / other for one, other in zip(got, base))
    return {
        "name": name,
        "ours_per_s": statistics.median(got),
        "floor_per_s": statistics.median(base),
        "ratio": statistics.median(got) / statistics.median(base),
        "ratios": ratios,
        "goal": goal,
    }


def main() -> None:
    if sys.argv[1:2] == ["startup"]:
        return startup.main(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="script/bench", description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--requests", type=int, default=500_000)
    parser.add_argument("--events", type=int, default=500_000, help="of a drain")
    parser.add_argument("--only", choices=("unary", "drain"))
    given = parser.parse_args()
    body = event_300()
    table = []
    with tempfile.TemporaryDirectory(prefix="ingest-bench-", dir=BUILD) as name:
        folder = Path(name)
        if given.only != "drain":
            table.append(
                pairs(
                    "unary, ack persisted, Kafka away, over a bare echo",
                    lambda: durable_rate(folder, given.requests, body),
                    lambda: echo_rate(folder, given.requests, body),
                    given.pairs,
                    0.5,
                )
            )
        if given.only != "unary":
            table.append(
                pairs(
                    "drain of a backlog over a bare idempotent producer",
                    lambda: drain_rate(folder, given.events, body),
                    lambda: producer_rate(given.events),
                    given.pairs,
                    0.5,
                )
            )
    (BUILD / "bench.json").write_text(json.dumps(table, indent=2) + "\n")
    print(f"\n{'figure':52} {'ours/s':>10} {'floor/s':>10} {'ratio':>6} {'spread':>13} {'goal':>5}")
    for row in table:
        spread = f"{row['ratios'][0]:.2f} to {row['ratios'][-1]:.2f}"
        print(
            f"{row['name']:52} {row['ours_per_s']:10,.0f} {row['floor_per_s']:10,.0f} {row['ratio']:6.2f} "
            f"{spread:>13} {row['goal']:5.2f}"
        )


if __name__ == "__main__":
    main()
