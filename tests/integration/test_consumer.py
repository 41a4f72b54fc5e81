"""The consuming library against a real Kafka and a real server: tests/consumer_driver.c runs the effects, and writes each
to a log that says what was done, how often and in which order."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.client import informative, transaction
from harness.consuming import EFFECTS, GROUP, Member, calls, check_all, read, wait_done
from harness.kafka import KafkaCluster
from harness.process import wait_for
from harness.tools import run
from harness.paths import BUILD


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaCluster]:
    with KafkaCluster(properties=GROUP) as cluster:
        yield cluster


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "effects.log"


@pytest.fixture
def member(kafka, tmp_path, log) -> Iterator[Callable[..., Member]]:
    """member(topics, option=value...): a started consumer_driver of this test's group."""
    made: list[Member] = []
    group = f"g-{uuid.uuid4().hex[:8]}"

    def make(topics: str, start: bool = True, **options: object) -> Member:
        folder = tmp_path / f"member-{len(made)}"
        made.append(Member(folder, kafka.bootstrap, topics, **{"group": group, "log": log, **options}))
        return made[-1].start() if start else made[-1]

    yield make
    for one in made:
        one.process.kill()


@pytest.fixture
def publish(client):
    """publish(server, keys, events): so many events for each of the keys, KEY-1 and so on; their operations' effects."""

    def make(server, keys, events, names=("block_user",), first=1) -> dict[str, list[int]]:
        made = {}
        batch = []
        for number in range(first, first + events):
            for key in keys:
                made[f"{key}-{number}"] = [EFFECTS[name] for name in names]
                batch.append(transaction(*names, name="create_user", id=f"{key}-{number}", key=key, data={"n": number}))
        to = client(server)
        for start in range(0, len(batch), 500):
            to.publish_batch(batch[start : start + 500])
        return made

    return make


def keys(count: int, prefix: str = "k") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


@pytest.mark.parametrize("layout", ["whole", "split"])
@pytest.mark.parametrize("format", ["protobuf", "json"])
def test_every_effect_once_and_in_order(server, kafka, client, member, publish, log, layout, format):
    """Groups of three operations, single ones and notices, of both layouts and both formats."""
    it = server(kafka, {"routes": {"transactions": {"layout": layout, "format": format}, "informative": {"format": format}}})
    events = publish(it, keys(8), 5, ("create_user", "create_org", "add_user_to_org"))
    events |= publish(it, keys(8, "s"), 5)
    client(it).publish(informative("generate_otp", id="o-1", key="o"))
    events["o-1"] = [1]
    one = member(f"{it.transactions},{it.informative}")
    wait_done(log, events)
    one.wait_metric("ingest_consumer_lag", 0)
    work = read(log, events)
    assert not work.repeats and not work.failed
    done = [call for call in calls(log) if call.event == "k0-1"]
    assert [call.name for call in done[:3]] == ["user", "userprofilevisibility", "user"]
    assert done[0].idempotency_key == "tests/k0-1/0/index/user" and done[2].idempotency_key == "tests/k0-1/0/table/user"
    one.stop()
    member(f"{it.transactions},{it.informative}").wait_metric("ingest_consumer_lag", 0)
    assert read(log, events).effects == work.effects and not read(log, events).repeats


def test_kills(server, kafka, member, publish, log):
    """kill -9 at random points: no completed effect again but the ones that were under way."""
    it = server(kafka, {"kafka": {"topic_partitions": 4}})
    events = publish(it, keys(20), 20, ("create_user",))
    one = member(it.transactions, delay_us=2000, workers=4, **{"group.instance.id": "one"})
    chance, kills = random.Random(), 0
    while events.keys() - read(log, events).done:
        time.sleep(chance.uniform(0.2, 1.0))
        one.kill()
        kills += 1
        one.start()
    assert kills > 3
    work = read(log, events)
    check_all(work, events)
    assert all(count <= 20 for count in work.repeats.values()), "one of each key at most"


def test_rebalances(server, kafka, member, publish, log):
    """Members that come and go in order: nothing runs twice."""
    it = server(kafka, {"kafka": {"topic_partitions": 6}})
    events = publish(it, keys(30), 20, ("create_user",))
    members = [member(it.transactions, delay_us=2000, workers=2) for _ in range(2)]
    members.append(member(it.transactions, start=False, delay_us=2000, workers=2))
    chance = random.Random()
    for _ in range(8):
        time.sleep(chance.uniform(0.3, 1.5))
        one = chance.choice(members)
        one.stop() if one.process.running else one.start()
        if not any(each.process.running for each in members):
            members[0].start()
    for each in members:
        if not each.process.running:
            each.start()
    wait_done(log, events)
    work = read(log, events)
    check_all(work, events)
    assert not work.repeats


@pytest.mark.parametrize("order", ["passes", "waits"])
def test_failures(server, kafka, member, publish, log, order):
    """5 % of the calls fail: with retries nothing is missing, and with INGEST_KEY_WAITS nothing overtakes."""
    it = server(kafka, {"kafka": {"topic_partitions": 4}})
    events = publish(it, keys(40), 10, ("create_user",))
    one = member(it.transactions, order=order, fail_percent=5, backoff_ms=20, backoff_last_ms=100)
    wait_done(log, events, in_order=order == "waits")
    one.wait_metric("ingest_consumer_failed_events", 0)
    work = read(log, events, in_order=order == "waits")
    check_all(work, events)
    assert work.failed > 50 and not work.repeats
    one.stop()


def failed(one: Member, *arguments: str) -> str:
    """ingestctl failed."""
    return run(str(BUILD / "release/ingestctl"), "failed", arguments[0], f"--data-dir={one.data_dir}", *arguments[1:]).stdout


def test_a_key_that_passes(server, kafka, member, publish, log, tmp_path):
    """A given-up event is in the store, later ones of its key go on; a retry finishes it from its failed effect."""
    it = server(kafka)
    cure = tmp_path / "cure"
    events = publish(it, ["sick", "lost", "well"], 3)
    one = member(it.transactions, cure=cure, attempts=2, backoff_ms=10, backoff_last_ms=10)
    wait_for(lambda: one.metrics().get('ingest_consumer_failed_events{state="given_up"}') == 6, "six to be given up")
    assert sorted(read(log, events).done) == ["well-1", "well-2", "well-3"]
    assert len([line for line in one.alarms() if "FAILED" in line]) == 6
    assert "sick-2" in failed(one, "list")
    cure.touch()
    failed(one, "retry", "--all")
    wait_done(log, events, in_order=False)
    one.wait_metric("ingest_consumer_failed_events", 0)
    one.stop()


def test_a_key_that_waits(server, kafka, member, publish, log, tmp_path):
    """A failed event holds its key, not the others; after a retry the key goes on, in order."""
    it = server(kafka)
    cure = tmp_path / "cure"
    events = publish(it, ["sick", "lost", "well"], 3)
    options = {"order": "waits", "cure": cure, "attempts": 2, "backoff_ms": 10, "backoff_last_ms": 10}
    one = member(it.transactions, **options)
    held = 'ingest_consumer_failed_events{state="held"}'
    wait_for(lambda: one.metrics().get(held) == 2, "two to be held")
    assert sorted(read(log, events).done) == ["well-1", "well-2", "well-3"]
    one.kill()
    one.start()
    wait_for(lambda: len([line for line in one.alarms() if "FAILED" in line]) == 4 and one.metrics().get(held) == 2, "two to be held again")
    failed(one, "discard", "--id=lost-1")
    wait_for(lambda: "lost-2" in failed(one, "list"), "the next of the key")
    cure.touch()
    failed(one, "retry", "--all")
    del events["lost-1"]
    events["lost-1"] = [2]
    wait_for(lambda: len(read(log, events, in_order=False).done) == 8, "all but the discarded", 30)
    one.wait_metric("ingest_consumer_failed_events", 0)
    one.stop()


def test_the_same_event_from_two_replicas(server, kafka, client, member, log):
    """A client that retried at another replica: one id twice in the topic, run once; also over a restart."""
    first = server(kafka)
    second = server(kafka, {"routes": [dict(route) for route in first.config["routes"]]})
    event = transaction("block_user", id="k-1", key="k")
    client(first).publish(event, ack=2)
    one = member(first.transactions)
    wait_done(log, {"k-1": [2]})
    one.wait_metric("ingest_consumer_lag", 0)
    one.stop()
    two = member(first.transactions)
    client(second).publish(event, ack=2)
    wait_for(lambda: two.metrics().total("ingest_consumer_events_skipped_total") == 1, "the second to be skipped")
    assert read(log, {"k-1": [2]}).repeats.total() == 0
    two.stop()


def test_a_full_store(server, kafka, member, publish, log, tmp_path):
    """No room: the failing events keep their places, the alarm tells; with room all goes on."""
    it = server(kafka)
    cure = tmp_path / "cure"
    events = publish(it, keys(10, "lost"), 2)
    one = member(it.transactions, cure=cure, failed_max_events=3)
    wait_for(lambda: any("STORE" in line for line in one.alarms()), "the alarm")
    one.wait_metric("ingest_consumer_failed_events", 3)
    cure.touch()
    failed(one, "retry", "--all")

    def drained() -> bool:
        failed(one, "retry", "--all")
        return not (events.keys() - read(log, events, in_order=False).done)

    wait_for(drained, "all events to be done", 30, 0.2)
    one.stop()


def test_what_is_no_event(kafka, topic_of, member, log):
    """Garbage, an unknown operation: given up, shown as it came, and the partition goes on."""
    from confluent_kafka import Producer

    name = topic_of()
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    producer.produce(name, b"\xff\xff\xff", key=b"k", partition=0)
    producer.produce(name, b"{", key=b"k", partition=0, headers={"content-type": b"application/json"})
    producer.produce(name, transaction("no_such_thing", id="u-1", key="u").SerializeToString(), key=b"u", partition=0)
    producer.produce(name, None, key=b"k", partition=0)
    producer.produce(name, transaction("block_user", id="k-1", key="k").SerializeToString(), key=b"k", partition=0)
    producer.flush(10)
    one = member(name)
    wait_done(log, {"k-1": [2]})
    one.wait_metric("ingest_consumer_failed_events", 4)
    listed = failed(one, "list")
    assert listed.count("  malformed  ") == 3 and "unknown_operation" in listed
    one.stop()


@pytest.fixture
def topic_of(kafka):
    return lambda: kafka.create_topic(f"test-{uuid.uuid4().hex[:8]}")


def test_bad_options(kafka, member):
    one = member("t", workers=0)
    assert one.process.wait() == 1 and "workers: 0 is outside 1 to 256" in one.log()
    one = member("t", **{"group.id": "x"})
    assert one.process.wait() == 1 and "group.id is not to be set" in one.log()


def test_a_graceful_stop(server, kafka, member, publish, log, tmp_path):
    """What runs comes to its end and is recorded; what has not begun does not begin."""
    it = server(kafka)
    events = publish(it, keys(50), 4, ("create_user",))
    one = member(it.transactions, delay_us=100000, workers=4, calls=tmp_path / "calls")
    wait_for(lambda: len(list(calls(log))) > 8, "some to run")
    one.stop()
    begun = len(list(calls(tmp_path / "calls")))
    assert begun == len(list(calls(log)))
    two = member(it.transactions)
    wait_done(log, events)
    assert not read(log, events).repeats
    two.stop()
