"""A rival with the same transactional id: a second instance on a copy of the volume, while the first one sleeps."""

from __future__ import annotations

import shutil

from harness.client import PUBLISHED, admin_service_pb2, transaction
from harness.consumer import read_all
from harness.process import wait_for
from harness.verify import counters_by_key

HALTED = admin_service_pb2.PUBLISHER_STATE_HALTED
RUNNING = admin_service_pb2.PUBLISHER_STATE_RUNNING


def event(number, key="k"):
    return transaction("create_user", id=f"{key}-{number}", key=key)


def found(kafka, it):
    return dict(counters_by_key(read_all(kafka.bootstrap, it.transactions)))


def copy_of(it, server, kafka):
    """Another instance with the same topics, on a copy of the volume."""
    other = server(kafka, {"routes": it.config["routes"], "kafka": {"positions_topic": it.positions}}, start=False)
    it.pause()
    shutil.copytree(it.data_dir, other.data_dir)
    return other


def test_a_zombie_accepts_publishes_nothing_and_names_the_way_out(kafka, server, client):
    it = server(kafka)
    client(it).publish(event(1), PUBLISHED)
    other = copy_of(it, server, kafka).start()
    client(other).publish(event(2), PUBLISHED)
    it.resume()
    client(it).publish(event(1, key="only-here"))
    wait_for(lambda: client(it).route("transactions").state == HALTED, "the zombie to halt")
    assert "Bring the newest volume back" in client(it).route("transactions").last_error
    assert client(it).publish(event(2, key="only-here")).sequence == 3
    client(other).publish(event(3), PUBLISHED)
    assert found(kafka, it) == {"k": [1, 2, 3]}


def test_a_sleeper_whose_rival_is_gone_goes_on(kafka, server, client):
    """The rival took the transactional id and published nothing: the sleeper is fenced, asks Kafka, and goes on."""
    it = server(kafka)
    client(it).publish(event(1), PUBLISHED)
    rival = copy_of(it, server, kafka).start()
    wait_for(lambda: client(rival).route("transactions").state == RUNNING, "the rival to settle")
    rival.kill9()
    it.resume()
    client(it).publish(event(2), PUBLISHED)
    assert it.metrics().total("ingest_producer_restarts_total", reason="fenced") == 1
    assert found(kafka, it) == {"k": [1, 2]}


def test_two_on_copies_of_a_volume_that_both_publish(kafka, server, client):
    """Whichever publishes first goes on; the other one halts. Nothing is published twice."""
    it = server(kafka)
    client(it).publish(event(1), PUBLISHED)
    other = copy_of(it, server, kafka).start()
    it.resume()
    wait_for(lambda: client(other).route("transactions").state == RUNNING, "the other to settle")
    client(it).publish(event(1, key="here"))
    client(other).publish(event(1, key="there"))
    states = lambda: {client(each).route("transactions").state for each in (it, other)}  # noqa: E731
    wait_for(lambda: HALTED in states(), "one of them to halt", 60)
    wait_for(lambda: states() == {HALTED, RUNNING}, "the other one to go on", 60)
    seen = found(kafka, it)
    assert seen["k"] == [1] and len(seen) == 2, seen
