"""How fast events are consumed from a real broker, with progress durable before each next effect, over a bare consumer."""

from __future__ import annotations

import random
import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Producer

from harness.kafka import KafkaCluster
from harness.tools import run

from .figures import Figure
from .ingest import EVENT_BYTES, ID_MARK, PROGRAMS, event_of

TOPIC = "bench-consume"
PARTITIONS = 6
CATALOGUES = {
    1: "create_user\ttransaction\ttransactions\t-\t-\t-\n",
    8: "create_user\ttransaction\ttransactions\t-\ti1,i2\tt1,t2,t3,t4,t5,t6\n",
}


@contextmanager
def filled(events: int) -> Iterator[KafkaCluster]:
    """A topic with so many events, each with an id and a key of its own."""
    with KafkaCluster() as kafka:
        kafka.create_topic(TOPIC, partitions=PARTITIONS)
        producer = Producer({"bootstrap.servers": kafka.bootstrap, "compression.type": "lz4", "linger.ms": 20})
        head, tail = event_of(EVENT_BYTES, ID_MARK).split(ID_MARK.encode())
        filler = re.search(b"x{20,}", tail)[0]
        chance = random.Random(1)
        tails = [tail.replace(filler, chance.randbytes(len(filler))) for _ in range(1000)]
        for number in range(events):
            id = f"{number:036x}".encode()
            while True:
                try:
                    producer.produce(TOPIC, head + id + tails[number % 1000].replace(b"k" * 12, id[-12:]), key=id[-12:])
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
        assert producer.flush(60) == 0
        yield kafka


def rate(said: str) -> float:
    found = re.search(r"(\d+) \w+ in ([\d.]+) s", said)
    assert found, said
    return int(found[1]) / float(found[2])


def consume(folder: Path, pairs: int, events: int) -> list[Figure]:
    figures = []
    with filled(events) as kafka:

        def floor() -> float:
            group = uuid.uuid4().hex
            return rate(run(str(PROGRAMS / "consume_floor"), kafka.bootstrap, group, TOPIC, str(events), timeout=600).stdout)

        def ours(effects: int) -> float:
            with tempfile.TemporaryDirectory(dir=folder) as own:
                catalogue = Path(own, "catalogue.tsv")
                catalogue.write_text(CATALOGUES[effects])
                options = [f"catalogue={catalogue}", f"until={events * effects}", "workers=2"]
                program = str(PROGRAMS / "consumer_driver")
                said = run(program, kafka.bootstrap, uuid.uuid4().hex, TOPIC, f"{own}/data", *options, timeout=600)
                return rate(said.stdout) / effects

        for effects, goal in ((1, 0.5), (8, 0.1)):
            name = f"events of {effects} effect{'s' * (effects > 1)} consumed over a bare consumer"
            figures.append(Figure(name, "1/s", goal).run(lambda: ours(effects), floor, pairs))
    return figures
