"""A member is killed while an event goes from Kafka to its store of failed events, and comes back when another has had the
partition for long: the event is the store's, or it was run by the other, and it is never both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

from harness.client import transaction
from harness.consuming import EFFECTS, GROUP, Member, calls, read, wait_done
from harness.kafka import KafkaCluster
from harness.kafka_proxy import Api, KafkaProxy
from harness.paths import BUILD
from harness.process import wait_for
from harness.tools import run


PARTITIONS = 4


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaCluster]:
    with KafkaCluster(properties=GROUP, proxied=True) as cluster:
        yield cluster


@pytest.mark.parametrize("arrives", [False, True], ids=["commit-lost", "answer-lost"])
def test_killed_between_store_and_kafka(server, kafka, client, tmp_path: Path, arrives: bool):
    """The commit that tells of the move never reaches Kafka, or its answer never comes back."""
    it, log, cure = server(kafka, {"kafka": {"topic_partitions": PARTITIONS}}), tmp_path / "effects.log", tmp_path / "cure"
    client(it).publish(transaction("create_user", id="sick-1", key="sick", data={"n": 1}))
    events = {"sick-1": [EFFECTS["create_user"]]}
    options = {"group": f"g-{it.transactions}", "log": log, "cure": cure, "attempts": 1}
    with KafkaProxy(kafka.proxied) as network:
        network.rule("drop", Api.OFFSET_COMMIT, answers=arrives)
        first = Member(tmp_path / "first", network.bootstrap, it.transactions, **options).start()
        other = Member(tmp_path / "other", kafka.bootstrap, it.transactions, **options)
        try:
            failed = [str(BUILD / "release/ingestctl"), "failed", "list", f"--data-dir={first.data_dir}", "--json"]
            wait_for(lambda: "sick-1" in run(*failed).stdout and network.seen[Api.OFFSET_COMMIT] > 0, "the event to be in the store", 30)
            wait_for(lambda: not arrives or moved(kafka, options["group"], it.transactions), "the commit to arrive", 30)
            first.kill()
            cure.touch()
            other.start()
            other.wait_metric("ingest_consumer_partitions", PARTITIONS, 20)
            if not arrives:
                wait_done(log, events, 20)
            client(it).publish(transaction("create_user", id="later-1", key="later", data={"n": 1}))
            events["later-1"] = [EFFECTS["create_user"]]
            wait_for(lambda: sum(call.key == "later" for call in calls(log)) == EFFECTS["create_user"], "what came later", 20)
            first = Member(tmp_path / "first", kafka.bootstrap, it.transactions, **options).start()
            first.wait_metric("ingest_consumer_rebalances_total", 1, 20)
            wait_for(lambda: '"held"' not in run(*failed).stdout, "the doubt to be over", 20)
            run(*failed[:2], "retry", f"--data-dir={first.data_dir}", "--all")
            first.wait_metric("ingest_consumer_failed_events", 0, 20)
            wait_done(log, events, 20)
            for one in (first, other):
                one.stop()
        finally:
            for one in (first, other):
                one.process.kill()
    work = read(log, events)
    assert not work.repeats, "an effect that was done ran again"
    assert {call.pid for call in calls(log) if call.key == "sick" and call.verdict == "done"} == {
        (first if arrives else other).pids[-1]
    }


def moved(kafka: KafkaCluster, group: str, topic: str) -> bool:
    """Whether the group's commit tells of a move: a fourth part of its text (client/consumer/progress.h)."""
    asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, number) for number in range(PARTITIONS)])
    admin = kafka.admin
    [answer] = admin.list_consumer_group_offsets([asked]).values()
    return any((each.metadata or "").count(".") == 3 for each in answer.result().topic_partitions)
