"""The hostile network does what it says: each fault is seen by a client, and by what Kafka holds in the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import KafkaException, Producer

from harness.consumer import read_all
from harness.kafka import KafkaCluster
from harness.kafka_proxy import Api, KafkaProxy
from harness.process import wait_for


@pytest.fixture(scope="module")
def cluster() -> Iterator[KafkaCluster]:
    with KafkaCluster(proxied=True) as made:
        yield made


@pytest.fixture
def network(cluster: KafkaCluster) -> Iterator[KafkaProxy]:
    with KafkaProxy(cluster.proxied) as made:
        yield made


@pytest.fixture
def topic(cluster: KafkaCluster, request: pytest.FixtureRequest) -> str:
    return cluster.create_topic(request.node.name.replace("[", "-").replace("]", ""), partitions=1)


def producer(network: KafkaProxy, **settings: object) -> Producer:
    """Idempotent; transactional with an id. It gives up on an answer after a second."""
    base = {"bootstrap.servers": network.bootstrap, "enable.idempotence": True, "log_level": 0, "linger.ms": 0}
    base |= {"socket.timeout.ms": 1000, "retry.backoff.ms": 100, "reconnect.backoff.max.ms": 200}
    return Producer({**base, **{key.replace("_", "."): value for key, value in settings.items()}})


def transactional(network: KafkaProxy, id: str) -> Producer:
    made = producer(network, transactional_id=id)
    made.init_transactions(30)
    return made


def timed(what, *arguments) -> float:
    began = time.monotonic()
    what(*arguments)
    return time.monotonic() - began


def values(cluster: KafkaCluster, topic: str) -> list[str]:
    return [record.value.decode() for record in read_all(cluster.bootstrap, topic)]


def test_all_goes_by_the_proxy_and_whole(cluster, network, topic):
    sent = ["x" * size for size in (1, 70_000, 900_000)]
    writer = producer(network)
    for value in sent:
        writer.produce(topic, value)
    assert writer.flush(20) == 0
    assert network.seen[Api.PRODUCE] >= 1 and network.seen[Api.METADATA] >= 1
    assert values(cluster, topic) == sent


@pytest.mark.parametrize("answers", [False, True])
@pytest.mark.parametrize("do", ["drop", "cut", "delay", "hold"])
def test_a_rule_befalls_one_message_and_the_client_repeats_it(cluster, network, topic, do, answers):
    writer = producer(network)
    writer.produce(topic, "before")
    assert writer.flush(20) == 0
    assert network.seen[Api.PRODUCE] == 1
    rule = network.rule(do, Api.PRODUCE, answers=answers, seconds=0.5, times=1)
    writer.produce(topic, "befallen")
    writer.poll(0)
    assert rule.hit.wait(5)
    if do == "hold":
        time.sleep(0.5)
        network.release(rule)
    took = timed(writer.flush, 20)
    assert rule.hits == 1
    assert network.seen[Api.PRODUCE] == (2 if do in ("delay", "hold") else 3)
    if do == "delay":
        assert 0.2 < took < 1
    if do == "drop":
        assert took > 0.5  # the client's time-out
    assert values(cluster, topic) == ["before", "befallen"]


def test_a_rule_for_another_api_or_broker_does_nothing(cluster, network, topic):
    others = [network.rule("cut", Api.END_TXN), network.rule("cut", Api.PRODUCE, brokers=[7])]
    writer = producer(network)
    writer.produce(topic, "passes")
    assert writer.flush(20) == 0
    assert [rule.hits for rule in others] == [0, 0] and network.seen[Api.PRODUCE] == 1


def test_a_partition_is_silent_until_it_heals(cluster, network, topic):
    writer = producer(network)
    writer.produce(topic, "before")
    writer.flush(20)
    network.partition()
    writer.produce(topic, "meanwhile")
    assert writer.flush(2.5) == 1
    with pytest.raises(KafkaException):
        producer(network).list_topics(timeout=1)
    network.heal()
    assert writer.flush(20) == 0
    assert values(cluster, topic) == ["before", "meanwhile"]


@pytest.mark.parametrize("fault", ["half_open", "reset"])
def test_connections_that_end_are_made_anew(cluster, network, topic, fault):
    writer = producer(network, socket_timeout_ms=4000)
    writer.produce(topic, "before")
    writer.flush(20)
    assert getattr(network, fault)() > 0
    writer.produce(topic, "after")
    took = timed(writer.flush, 20)
    assert (took > 3.9) == (fault == "half_open"), took  # only the time-out tells that nobody is there
    assert values(cluster, topic) == ["before", "after"]


@pytest.mark.parametrize("commit", [True, False])
def test_a_stolen_end_of_a_transaction_ends_a_later_one(cluster, network, topic, commit):
    """What a producer must not meet: so none may go on after it had to repeat an EndTxn."""
    writer = transactional(network, topic)
    stolen = network.rule("steal", Api.END_TXN, times=1, where=lambda message: message.commits == commit)
    writer.begin_transaction()
    writer.produce(topic, "first")
    writer.flush(20)
    (writer.commit_transaction if commit else writer.abort_transaction)(20)
    assert stolen.hits == 1 and stolen.taken[0].transactional_id == topic
    assert network.seen[Api.END_TXN] == 2  # the client repeated it
    assert values(cluster, topic) == (["first"] if commit else [])
    writer.begin_transaction()
    writer.produce(topic, "second")
    writer.flush(20)
    network.release(stolen)
    if commit:  # which nobody has asked for
        wait_for(lambda: values(cluster, topic) == ["first", "second"], "the late commit")
    else:
        time.sleep(1)
        with pytest.raises(KafkaException):
            writer.commit_transaction(20)
        assert values(cluster, topic) == []


def test_an_ambush_is_sprung_in_a_later_transaction(cluster, network, topic):
    writer = transactional(network, topic)
    stolen = network.rule("steal", Api.END_TXN, times=1)
    writer.begin_transaction()
    writer.produce(topic, "first")
    writer.commit_transaction(20)
    assert not network.ambush(stolen, Api.PRODUCE, 1, timeout=0.3)
    with ThreadPoolExecutor() as other:
        sprung = other.submit(network.ambush, stolen, Api.PRODUCE, 1, 10)
        time.sleep(0.2)
        writer.begin_transaction()
        writer.produce(topic, "second")
        writer.flush(20)
        assert sprung.result()
    wait_for(lambda: values(cluster, topic) == ["first", "second"], "the late commit")  # nobody has said so


def test_an_ambush_between_two_partitions_loses_what_was_before(cluster, network, topic):
    """Kafka commits a transaction half of which a late abort has thrown away: hence no producer lives after an abort."""
    later = cluster.create_topic(topic + "-later", partitions=1)
    writer = transactional(network, topic)
    stolen = network.rule("steal", Api.END_TXN, times=1)
    writer.begin_transaction()
    writer.produce(topic, "first")
    writer.flush(20)
    writer.abort_transaction(20)
    with ThreadPoolExecutor() as other:
        sprung = other.submit(network.ambush, stolen, Api.ADD_PARTITIONS_TO_TXN, 2, 10)
        time.sleep(0.2)
        writer.begin_transaction()
        writer.produce(topic, "second")
        writer.flush(20)
        writer.produce(later, "third")
        writer.commit_transaction(20)
        assert sprung.result()
    assert values(cluster, topic) == [] and values(cluster, later) == ["third"]
