"""Kafka away, in part or whole: every acknowledged event is read exactly once, in the order of the acknowledgements.
Kills of the server and of single brokers, and zombies, are script/torture's (fault/stage_b, c and g)."""

from __future__ import annotations

import random
import time
from pathlib import Path

import confluent_kafka
import pytest

from harness.client import PUBLISHED, informative, transaction
from harness.consumer import read_all
from harness.kafka import KafkaCluster
from harness.load import Load
from harness.process import wait_for
from harness.verify import check_exactly_once, check_sequences


def drained(it, client, timeout=120):
    def pending():
        return sum(route.pending for route in client(it).status().routes)

    wait_for(lambda: pending() == 0, "the backlog to drain", timeout)


def stored(acks):
    """As many are to be read. A broker that is just back may write the end of a transaction a little later."""
    return sum(bool(ack.route) for ack in acks)


def topics(it):
    return [it.transactions, it.informative]


def test_every_broker_away(kafka3, server, client, scale, tmp_path):
    it = server(kafka3)
    with Load(it.target, tmp_path, lanes=32, shapes=("transaction", "informative"), rate=500) as load:
        wait_for(lambda: load.count() > 200, "some load")
        kafka3.kill_all()
        away = time.monotonic() + scale(15, 180)
        before = load.count()
        time.sleep(5)
        assert load.count() - before > 500, "acknowledgements stopped with Kafka"
        it.restart()  # starts while Kafka is down
        while time.monotonic() < away:
            time.sleep(0.5)
        assert load.count() - before > 1000
        kafka3.start_all()
        acks = load.stop()
    drained(it, client, timeout=180)
    check_exactly_once(acks, read_all(kafka3.bootstrap, topics(it), until=stored(acks)))
    check_sequences(acks)


def test_too_few_replicas_block_one_route_only(kafka3, server, client):
    it = server(kafka3, start=False)
    kafka3.create_topic(it.transactions, config={"min.insync.replicas": 3})
    it.start()
    client(it).publish(transaction("create_user"), PUBLISHED)
    kafka3.kill(3)
    try:
        client(it).publish(transaction("create_user", id="waits"))
        wait_for(lambda: it.metrics()['ingest_route_blocked{route="transactions"}'] == 1, "the route to be blocked", 150)
        for _ in range(100):
            client(it).publish(informative("generate_otp"), PUBLISHED)
        assert it.metrics()['ingest_route_blocked{route="informative"}'] == 0
        route = client(it).route("transactions")
        assert (route.dead, route.pending) == (0, 1) and "replicas" in route.last_error
    finally:
        kafka3.start_node(3)
        kafka3.wait_ready()
    drained(it, client)
    assert len(read_all(kafka3.bootstrap, it.transactions)) == 2


def newest_librdkafka(folder):
    """The library inside the Python client's wheel, as a folder for LD_LIBRARY_PATH."""
    libs = Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs"
    [library] = libs.glob("librdkafka*.so*")
    (folder / "librdkafka.so.1").symlink_to(library)
    return f"{folder}:{libs}"


def test_the_newest_librdkafka(kafka3, server, client, tmp_path):
    it = server(kafka3, env={"LD_LIBRARY_PATH": newest_librdkafka(tmp_path)})
    assert it.metrics().total("ingest_build_info", librdkafka=confluent_kafka.libversion()[0]) == 1
    with Load(it.target, tmp_path, lanes=32, shapes=("transaction", "group", "informative")) as load:
        for _ in range(3):
            time.sleep(random.uniform(0.5, 2))
            it.restart()
        kafka3.kill(1)
        time.sleep(2)
        kafka3.start_node(1)
        kafka3.wait_ready()
        acks = load.stop()
    drained(it, client)
    check_exactly_once(acks, read_all(kafka3.bootstrap, topics(it), until=stored(acks)))


@pytest.mark.full
def test_two_of_five_brokers_away(server, client, tmp_path):
    with KafkaCluster(nodes=5) as kafka:
        it = server(kafka)
        with Load(it.target, tmp_path, lanes=32, shapes=("transaction", "group", "informative"), rate=500) as load:
            wait_for(lambda: load.count() > 500, "some load")
            kafka.kill(2)
            kafka.kill(4)
            time.sleep(10)
            it.restart()
            time.sleep(5)
            kafka.start_all()
            acks = load.stop()
        drained(it, client, timeout=240)
        check_exactly_once(acks, read_all(kafka.bootstrap, topics(it), until=stored(acks), timeout=120))
        check_sequences(acks)
