"""The store and Kafka contradict each other, or the store is damaged: each case is recognised, events are taken all the
same, the way out is named, and followed it leads to publishing again, with exactly those events doubled that were said."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from harness.client import PUBLISHED, transaction
from harness.consumer import read_all
from harness.kafka import KafkaCluster
from harness.paths import SERVER
from harness.process import wait_for
from harness.server import Ingestd

ROUTE = "transactions"


def ctl(*argv: str | Path, code: int = 0) -> str:
    done = subprocess.run([SERVER.parent / "ingestctl", "store", *argv], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, f"{argv}: {done}"
    return done.stdout


def publish(it, client, ids, **rest):
    with client(it) as open_client:
        return [open_client.publish(transaction("create_user", id=id), **rest) for id in ids]


def halted(it, client) -> str:
    """Waits until the route has halted; what it says."""
    with client(it) as open_client:

        def says():
            route = open_client.route(ROUTE)
            return route.last_error if route.state == 4 else None  # PUBLISHER_STATE_HALTED

        said = wait_for(says, "the route to halt", 60)
        assert not open_client.serving("ingest.publisher")
        assert open_client.serving("")
    return said


def drained(it, client):
    with client(it) as open_client:
        wait_for(lambda: open_client.route(ROUTE).pending == 0, "the backlog to drain", 90)


def counts(it, bootstrap) -> Counter[str]:
    return Counter(record.headers["ce_id"].decode() for record in read_all(bootstrap, it.transactions))


def restore(it, said: str) -> dict:
    """Follows the way out that was named. Before it, the same command says what it would do, and changes nothing."""
    named = re.search(r"ingestctl store restore (\S+)", said)
    assert named and named[1] == str(it.data_dir), said
    assert "nothing was changed" in ctl("restore", it.data_dir, code=65)
    before = json.loads(ctl("verify", it.data_dir, "--json"))
    done = json.loads(ctl("restore", it.data_dir, "--accept-duplicates", "--json"))
    assert done["before"] == before["store"] != done["now"]
    assert json.loads(ctl("verify", it.data_dir, "--json"))["store"] == done["now"]
    return next(route for route in done["routes"] if route["name"] == ROUTE)


def names(prefix: str, first: int, last: int) -> list[str]:
    return [f"{prefix}-{number}" for number in range(first, last + 1)]


def test_a_rolled_back_volume(kafka, server, client, tmp_path):
    it = server(kafka)
    early = names("early", 1, 20)
    publish(it, client, early, ack=PUBLISHED)
    it.kill9()  # at once: the store does not know yet that all of them are in Kafka
    shutil.copytree(it.data_dir, tmp_path / "older")
    it.start()
    late = names("late", 1, 10)
    publish(it, client, late, ack=PUBLISHED)
    it.terminate()
    shutil.rmtree(it.data_dir)
    shutil.copytree(tmp_path / "older", it.data_dir)

    it.start()
    said = halted(it, client)
    assert "rolled back or cloned" in said
    after = names("after", 1, 5)
    publish(it, client, after)
    with client(it) as open_client:
        assert open_client.state(after[0]) == "PENDING"
    it.terminate()
    route = restore(it, said)
    assert route["last"] == 25
    it.start()
    drained(it, client)
    doubled = set(early[route["published"] : 20])
    assert counts(it, kafka.bootstrap) == Counter(early + late + after + sorted(doubled))
    assert publish(it, client, early[:1])[0].duplicate


def test_a_cloned_volume(kafka, server, client, tmp_path):
    it = server(kafka)
    publish(it, client, names("both", 1, 10), ack=PUBLISHED)
    it.terminate()
    clone = Ingestd(tmp_path / "clone", kafka.bootstrap, {"kafka": it.config["kafka"], "routes": it.config["routes"]})
    shutil.copytree(it.data_dir, clone.data_dir)
    try:
        it.start()
        publish(it, client, names("original", 1, 5), ack=PUBLISHED)
        clone.start()
        said = halted(clone, client)
        assert "rolled back or cloned" in said
        publish(clone, client, names("clone", 1, 5))
        clone.terminate()
        # The original was fenced by it, asks Kafka, and goes on by itself.
        publish(it, client, names("original", 6, 8), ack=PUBLISHED, timeout=60)
        route = restore(clone, said)
        clone.start()
        drained(clone, client)
        publish(it, client, names("original", 9, 10), ack=PUBLISHED, timeout=60)
        assert route["published"] == 10  # both knew this much: so nothing is doubled
        expected = names("both", 1, 10) + names("original", 1, 10) + names("clone", 1, 5)
        assert counts(it, kafka.bootstrap) == Counter(expected)
    finally:
        clone.stop()


def test_a_wrong_cluster_and_a_new_one_for_good(kafka, own_kafka, server, client):
    it = server(kafka)
    publish(it, client, names("here", 1, 10), ack=PUBLISHED)
    it.terminate()
    it.config["kafka"]["brokers"] = own_kafka.bootstrap
    it.start()
    said = halted(it, client)
    assert "cluster" in said and "correct kafka.brokers" in said
    publish(it, client, names("meanwhile", 1, 5))
    it.terminate()

    it.config["kafka"]["brokers"] = kafka.bootstrap
    it.start()
    drained(it, client)
    assert counts(it, kafka.bootstrap) == Counter(names("here", 1, 10) + names("meanwhile", 1, 5))
    it.terminate()

    it.config["kafka"]["brokers"] = own_kafka.bootstrap
    it.start()
    said = halted(it, client)
    publish(it, client, names("moved", 1, 5))
    it.terminate()
    route = restore(it, said)
    assert (route["published"], route["events"]) == (15, 5)
    it.start()
    drained(it, client)
    assert counts(it, own_kafka.bootstrap) == Counter(names("moved", 1, 5))


def test_a_deleted_positions_topic(kafka, server, client):
    it = server(kafka)
    publish(it, client, names("before", 1, 10), ack=PUBLISHED)
    it.terminate()
    kafka.delete_topic(it.positions)
    it.start()
    said = halted(it, client)
    assert "positions topic was deleted" in said
    publish(it, client, names("after", 1, 5))
    it.terminate()
    route = restore(it, said)
    assert (route["published"], route["events"]) == (10, 5)
    it.start()
    drained(it, client)
    assert counts(it, kafka.bootstrap) == Counter(names("before", 1, 10) + names("after", 1, 5))


def test_kafka_lost_what_it_had_committed(own_kafka, server, client, tmp_path):
    it = server(own_kafka)
    publish(it, client, names("kept", 1, 10), ack=PUBLISHED)
    it.terminate()
    own_kafka.stop_node()
    node = own_kafka.data_dir / "node-1"
    shutil.copytree(node, tmp_path / "older-kafka")
    own_kafka.start_all()
    it.start()
    publish(it, client, names("gone", 1, 6), ack=PUBLISHED)
    it.terminate()
    own_kafka.kill_all()
    shutil.rmtree(node)
    shutil.copytree(tmp_path / "older-kafka", node)
    own_kafka.start_all()

    it.start()
    said = halted(it, client)
    assert "Kafka lost what it had committed" in said and "11..16 were published" in said
    publish(it, client, names("after", 1, 5))
    it.terminate()
    route = restore(it, said)
    assert (route["published"], route["events"]) == (16, 5)
    it.start()
    drained(it, client)
    assert counts(it, own_kafka.bootstrap) == Counter(names("kept", 1, 10) + names("after", 1, 5))


def test_an_expired_transactional_id_is_no_trouble(server, client):
    properties = {
        "transactional.id.expiration.ms": 2000,
        "transaction.remove.expired.transaction.cleanup.interval.ms": 500,
        "producer.id.expiration.ms": 1500,
        "producer.id.expiration.check.interval.ms": 500,
    }
    with KafkaCluster(properties=properties) as short:
        it = server(short)
        publish(it, client, names("a", 1, 5), ack=PUBLISHED)
        time.sleep(6)
        publish(it, client, names("b", 1, 5), ack=PUBLISHED, timeout=60)
        it.terminate()
        time.sleep(6)
        it.start()
        publish(it, client, names("c", 1, 5), ack=PUBLISHED, timeout=60)
        assert counts(it, short.bootstrap) == Counter(names("a", 1, 5) + names("b", 1, 5) + names("c", 1, 5))


# -- damage


def newest_log(it) -> Path:
    return max(it.data_dir.glob("db/*.log"), key=lambda file: int(file.stem))


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 0x10
    file.write_bytes(data)


def refused(it) -> str:
    """Starts it; it has to end with 65. What it logged."""
    with pytest.raises(AssertionError):
        it.start()
    assert it.process.wait() == 65
    return it.log()


def test_a_damaged_store_is_refused_and_repaired(own_kafka, server, client):
    it = server(own_kafka)
    publish(it, client, names("before", 1, 5), ack=PUBLISHED)
    own_kafka.pause_all()
    with client(it) as open_client:
        for number in range(1, 101):
            open_client.publish(transaction("create_user", id=f"kept-{number}", data=b"x" * 100))
    it.kill9()
    log = newest_log(it)
    flip(log, log.stat().st_size * 2 // 3)
    said = refused(it)
    assert "the store is damaged" in said and log.name in said and "route=transactions first=" in said
    damage = re.search(r"damage_id=(\w{8}) events_lost=1 ", said)[1]
    first = int(re.search(r"events are lost.* first=(\d+) last=\1", said)[1])
    assert f"ingestctl store repair {it.data_dir} --accept-loss={damage}" in said
    assert refused(it).count(damage) >= 2, "the same damage has the same name"

    ctl("verify", it.data_dir, code=65)
    ctl("repair", it.data_dir, code=65)
    ctl("repair", it.data_dir, f"--accept-loss={damage}")
    ctl("verify", it.data_dir)
    own_kafka.resume_all()
    it.start()
    drained(it, client)
    lost = f"kept-{first - 5}"
    with client(it) as open_client:
        status = open_client.route(ROUTE)
        assert (status.lost, status.published, status.last_sequence) == (1, 104, 105)
        assert open_client.state(lost) == "UNKNOWN"
        assert not open_client.publish(transaction("create_user", id=lost, data=b"x" * 100), ack=PUBLISHED).duplicate
    expected = names("before", 1, 5) + names("kept", 1, 100)
    assert counts(it, own_kafka.bootstrap) == Counter(expected), "repaired, it goes on where it was"


def test_a_start_accepts_one_loss_by_its_name(server, client):
    it = server("127.0.0.1:1")
    with client(it) as open_client:
        for number in range(1, 51):
            open_client.publish(transaction("create_user", id=f"e-{number}", data=b"x" * 100))
    it.kill9()
    log = newest_log(it)
    flip(log, log.stat().st_size // 2)
    damage = re.search(r"damage_id=(\w{8})", refused(it))[1]
    it.config["storage"] = {"accept_loss": "00000000"}
    assert damage in refused(it)
    it.config["storage"] = {"accept_loss": damage}
    it.start()
    with client(it) as open_client:
        status = open_client.route(ROUTE)
        assert (status.lost, status.pending) == (1, 49)
        for number in range(51, 101):
            open_client.publish(transaction("create_user", id=f"e-{number}", data=b"x" * 100))
    it.kill9()
    log = newest_log(it)
    flip(log, log.stat().st_size // 2)
    assert f"accept_loss={damage}" in refused(it), "a setting that stayed accepts nothing else"


def test_the_tool_keeps_off_a_running_store(server):
    it = server("127.0.0.1:1")
    for command in ("verify", "repair", "restore"):
        extra = ["--accept-duplicates"] if command == "restore" else []
        ctl(command, it.data_dir, *extra, code=75)
    ctl("verify", it.data_dir / "nowhere", code=66)
    ctl("verify", code=64)
