"""The harness itself, against real Kafka: what the other tests trust must be true."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Producer
from harness.consumer import Reader, read_all
from harness.kafka import KafkaCluster
from harness.load import Ack
from harness.paths import ROOT, tool
from harness.process import wait_for
from harness.server import Metrics
from harness.tools import grpcurl_list, kcat_read
from harness.verify import check_exactly_once


def producer(kafka: KafkaCluster, **settings: object) -> Producer:
    base = {"bootstrap.servers": kafka.bootstrap, "enable.idempotence": True, "log_level": 0}
    return Producer({**base, **{key.replace("_", "."): value for key, value in settings.items()}})


def transactional(kafka: KafkaCluster, name: str) -> Producer:
    made = producer(kafka, transactional_id=name)
    made.init_transactions(30)
    return made


def send(kafka: KafkaCluster, topic: str, value: str, timeout_ms: int = 3000) -> KafkaError | None:
    """Sends one record; the error that it met."""
    errors: list[KafkaError | None] = []
    one = producer(kafka, message_timeout_ms=timeout_ms)
    one.produce(topic, value, on_delivery=lambda error, _: errors.append(error))
    one.flush(30)
    return errors[0]


def test_reader_passes_over_aborted_transactions(kafka: KafkaCluster, topic: str) -> None:
    writer = transactional(kafka, topic)
    for number, commit in enumerate([True, False, True]):
        writer.begin_transaction()
        for each in range(10):
            writer.produce(topic, f"{number}-{each}", key="k", headers={"ce_id": f"{number}-{each}"})
        writer.flush()
        writer.commit_transaction() if commit else writer.abort_transaction()
    committed = read_all(kafka.bootstrap, topic)
    assert [record.value.decode() for record in committed] == [f"{n}-{i}" for n in (0, 2) for i in range(10)]
    assert committed[0].headers == {"ce_id": b"0-0"}
    assert len(read_all(kafka.bootstrap, topic, isolation="read_uncommitted")) == 30
    assert len(kcat_read(kafka.bootstrap, topic)) == 20


def test_reader_stops_before_an_open_transaction_and_goes_on_after_it(kafka: KafkaCluster, topic: str) -> None:
    writer = transactional(kafka, topic)
    reader = Reader(kafka.bootstrap, topic)
    writer.begin_transaction()
    writer.produce(topic, "open", key="k")
    writer.flush()
    assert reader.read() == []
    with pytest.raises(AssertionError, match="0 records in 1 s, wanted 1"):
        reader.read(until=1, timeout=1)
    writer.commit_transaction()
    assert [record.value for record in reader.read(until=1)] == [b"open"]
    reader.close()


def test_reader_is_fast(kafka: KafkaCluster, topic: str, scale: Callable[[int, int], int]) -> None:
    count = scale(100_000, 500_000)
    writer = producer(kafka, linger_ms=20, queue_buffering_max_messages=count + 1)
    for number in range(count):
        writer.produce(topic, b"x" * 100, key=b"%d" % (number % 50), headers={"ce_id": str(number)})
    writer.flush()
    began = time.monotonic()
    assert len(read_all(kafka.bootstrap, topic)) == count
    assert count / (time.monotonic() - began) > 20_000


def test_denied_topic_refuses_writes_alone(kafka: KafkaCluster, topic: str) -> None:
    assert send(kafka, topic, "before") is None
    kafka.deny(topic)
    wait_for(
        lambda: (error := send(kafka, topic, "denied")) and error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED,
        "the refusal",
    )
    assert [record.value for record in read_all(kafka.bootstrap, topic)][0] == b"before"
    other = kafka.create_topic(f"{topic}-other")
    assert send(kafka, other, "free") is None
    kafka.allow(topic)
    wait_for(lambda: send(kafka, topic, "after") is None, "the permission")


def test_topic_settings_change(kafka: KafkaCluster, topic: str) -> None:
    kafka.alter_topic(topic, {"max.message.bytes": 2000})
    wait_for(
        lambda: (error := send(kafka, topic, "x" * 4000)) and error.code() == KafkaError.MSG_SIZE_TOO_LARGE,
        "the smaller limit",
    )
    assert send(kafka, topic, "x" * 100) is None


def test_unknown_topic_is_an_error(kafka: KafkaCluster) -> None:
    with pytest.raises(AssertionError, match="topic nobody-made-this"):
        read_all(kafka.bootstrap, "nobody-made-this", timeout=2)


def test_paused_node_takes_nothing_and_comes_back(own_kafka: KafkaCluster) -> None:
    topic = own_kafka.create_topic("paused")
    own_kafka.pause()
    assert send(own_kafka, topic, "lost", timeout_ms=1500).code() == KafkaError._MSG_TIMED_OUT
    own_kafka.resume()
    own_kafka.wait_ready()
    wait_for(lambda: send(own_kafka, topic, "came") is None, "the node to write again")


def test_killed_node_keeps_its_records(own_kafka: KafkaCluster) -> None:
    topic = own_kafka.create_topic("kept")
    assert send(own_kafka, topic, "kept") is None
    own_kafka.kill()
    own_kafka.start_node()
    own_kafka.wait_ready()
    assert [record.value for record in read_all(own_kafka.bootstrap, topic, until=1)] == [b"kept"]


def test_three_nodes_lose_one(kafka3: KafkaCluster) -> None:
    topic = kafka3.create_topic("three", partitions=6)
    writer = transactional(kafka3, "three")
    kafka3.kill(2)
    writer.begin_transaction()
    for number in range(100):
        writer.produce(topic, str(number), key=str(number))
    writer.commit_transaction(30)
    assert len(read_all(kafka3.bootstrap, topic, until=100)) == 100
    kafka3.start_node(2)
    kafka3.wait_ready()
    assert len(read_all(kafka3.bootstrap, topic, until=100)) == 100


def test_children_die_with_the_test(tmp_path: Path) -> None:
    """The process that starts a child is killed; the child is gone soon after."""
    program = """
import os, sys
from pathlib import Path
from harness.process import Process, wait_for
child = Process(["sleep", "600"], Path(sys.argv[1]))
child.start()
wait_for(lambda: Path(f"/proc/{child.pid}/comm").read_text() == "sleep\\n", "the child to run")
print(child.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "log")],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -9, done.stderr
    status = f"/proc/{int(done.stdout)}/stat"
    wait_for(lambda: not os.path.exists(status) or open(status).read().split()[2] == "Z", "the child to die", 5)


def test_exactly_once_check_sees_every_fault(kafka: KafkaCluster, topic: str) -> None:
    def ack(counter: int, route: str = "r") -> Ack:
        return Ack(f"k-{counter}", "k", counter, route, counter, False, "s")

    writer = producer(kafka)
    for counter in (1, 2, 3):
        writer.produce(topic, b"", key="k", headers={"ce_id": f"k-{counter}"})
    writer.flush()
    one, two, three = read_all(kafka.bootstrap, topic)
    assert check_exactly_once([ack(1), ack(2), ack(3)], [one, two, three]) == 3
    assert check_exactly_once([ack(1), ack(2), ack(3, route="")], [one, two, three]) == 3
    assert check_exactly_once([ack(1), ack(2), ack(3, route="")], [one, two]) == 2
    for records in ([one, two], [one, two, two, three], [two, one, three], []):
        with pytest.raises(AssertionError):
            check_exactly_once([ack(1), ack(2), ack(3)], records)
    with pytest.raises(AssertionError, match=r"unknown \[3\]"):
        check_exactly_once([ack(1), ack(2)], [one, two, three])


def test_metrics_are_parsed() -> None:
    metrics = Metrics('# HELP a b\na{x="1",y="b c"} 2\na{x="2"} 3e1\nab 4\n')
    assert metrics['a{x="1",y="b c"}'] == 2
    assert metrics.total("a") == 32 and metrics.total("a", x="2") == 30 and metrics.total("ab") == 4


def test_missing_tool_is_a_failure() -> None:
    with pytest.raises(AssertionError, match="nosuchtool is missing"):
        tool("nosuchtool")
    with pytest.raises(AssertionError, match="exit 1"):
        grpcurl_list("127.0.0.1:1")
