"""From the acknowledgement to Kafka: states, ACK_PUBLISHED, health, status, reflection, stop."""

from __future__ import annotations

import os
import threading
import time

import grpc
import pytest

from harness.client import PUBLISHED, informative, transaction
from harness.consumer import read_all
from harness.process import wait_for
from harness.tools import grpcurl, grpcurl_list, kcat_read, run

NOWHERE = "127.0.0.1:1"


def test_reflection_needs_no_proto_file(kafka, server):
    it = server(kafka)
    assert grpcurl_list(it.target) == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "ingest.v1.AdminService",
        "ingest.v1.IngestService",
    ]
    described = run("grpcurl", "-plaintext", it.target, "describe", "ingest.v1.Event").stdout
    assert "oneof body" in described and "map<string, string> attributes" in described
    assert "PublishStream ( stream .ingest.v1.PublishRequest )" in run(
        "grpcurl", "-plaintext", it.target, "describe", "ingest.v1.IngestService").stdout


def test_kcat_reads_what_grpcurl_sent(kafka, server):
    it = server(kafka, {"routes": {"transactions": {"format": "json"}}})
    event = {"source": "me", "transaction": {"operations": [{"name": "create_user", "data": {"name": "Ada"}}]}}
    answer = grpcurl(it.target, "ingest.v1.IngestService/Publish", {"event": event, "ack": "ACK_PUBLISHED"})
    [record] = kcat_read(kafka.bootstrap, it.transactions)
    assert answer["id"] in record["payload"] and '"name":"Ada"' in record["payload"]


def test_ack_published_means_committed(kafka, server, client):
    it = server(kafka)
    for number in range(20):
        client(it).publish(transaction("create_user", id=f"id-{number}"), PUBLISHED)
        assert client(it).state(f"id-{number}") == "PUBLISHED"
    assert len(read_all(kafka.bootstrap, it.transactions)) == 20
    results = client(it).stream([transaction("create_user", id=f"s-{n}") for n in range(100)], PUBLISHED)
    assert len(results) == 100 and all(result.HasField("response") for result in results)
    assert len(read_all(kafka.bootstrap, it.transactions)) == 120


def test_without_kafka_events_are_taken_and_wait(server, client):
    it = server(NOWHERE)
    one = client(it)
    assert one.publish(transaction("create_user", id="waits")).sequence == 1
    assert one.state("waits") == "PENDING"
    with pytest.raises(grpc.RpcError) as late:
        one.publish(transaction("create_user", id="waits"), PUBLISHED, timeout=0.5)
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert one.serving() and one.serving("ingest.v1.IngestService") and not one.serving("ingest.publisher")
    route = one.route("transactions")
    assert (route.accepted, route.pending, route.position) == (1, 1, 0)
    assert route.backlog_bytes > 0 and route.HasField("oldest_age")
    wait_for(lambda: one.route("transactions").last_error, "the trouble to be told")
    metrics = it.metrics()
    assert metrics['ingest_events_pending{route="transactions"}'] == 1
    assert it.get("/livez")[0] == it.get("/readyz")[0] == 200


def test_ack_published_is_cut_short_by_the_stop(server, client):
    it = server(NOWHERE)
    answers = []

    def wait():
        with pytest.raises(grpc.RpcError) as refusal:
            client(it).publish(transaction("create_user", id="late"), PUBLISHED, timeout=60)
        answers.append(refusal.value)

    waiting = threading.Thread(target=wait)
    waiting.start()
    wait_for(lambda: client(it).state("late") == "PENDING", "the event to be stored")
    it.terminate()
    waiting.join()
    assert answers[0].code() == grpc.StatusCode.UNAVAILABLE and "stored as sequence 1" in answers[0].details()


def test_health_watch_follows_the_stop(kafka, server, client):
    from harness.client import health_pb2

    it = server(kafka)
    states = client(it).health.Watch(health_pb2.HealthCheckRequest(service="ingest.v1.IngestService"))
    assert next(states).status == health_pb2.HealthCheckResponse.SERVING
    wait_for(lambda: client(it).serving("ingest.publisher"), "the publisher to run")
    with pytest.raises(grpc.RpcError) as unknown:
        client(it).serving("no.such.Service")
    assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
    stopping = threading.Thread(target=it.terminate)
    stopping.start()
    assert next(states).status == health_pb2.HealthCheckResponse.NOT_SERVING
    stopping.join()


def test_a_graceful_stop_publishes_what_is_open(kafka, server, client):
    it = server(kafka)
    results = client(it).stream([transaction("create_user") for _ in range(5000)])
    assert len(results) == 5000
    it.terminate()
    it.start()
    assert len(read_all(kafka.bootstrap, it.transactions, until=5000)) == 5000


def test_the_ledger_adds_up(kafka, server, client):
    it = server(kafka)
    client(it).stream([transaction("create_user") for _ in range(1000)] + [informative("generate_otp")])
    wait_for(lambda: client(it).route("transactions").pending == 0, "the backlog to drain")
    route = client(it).route("transactions")
    assert route.accepted == route.published == route.position == 1000
    metrics = it.metrics()
    assert metrics['ingest_events_accepted_total{route="transactions"}'] == 1000
    assert metrics['ingest_events_published_total{route="transactions"}'] == 1000
    assert metrics.total("ingest_ack_duration_seconds_count") >= 0


def test_a_blocked_route_waits_alone(kafka, server, client):
    it = server(kafka)
    client(it).publish(transaction("create_user"), PUBLISHED)
    kafka.deny(it.transactions)
    try:
        for number in range(50):
            client(it).publish(transaction("create_user", id=f"t-{number}"))
        start = time.monotonic()
        for number in range(200):
            client(it).publish(informative("generate_otp", id=f"i-{number}"), PUBLISHED)
        assert time.monotonic() - start < 30
        wait_for(lambda: it.metrics()['ingest_route_blocked{route="transactions"}'] == 1, "the route to be blocked")
        assert it.metrics()['ingest_route_blocked{route="informative"}'] == 0
        route = client(it).route("transactions")
        assert route.dead == 0 and route.pending == 50 and "uthori" in route.last_error
    finally:
        kafka.allow(it.transactions)
    wait_for(lambda: client(it).route("transactions").pending == 0, "the route to go on", timeout=60)
    records = read_all(kafka.bootstrap, it.transactions)
    assert len(records) == 51
    wait_for(lambda: it.metrics()['ingest_route_blocked{route="transactions"}'] == 0, "the alarm to fall")


def test_a_poisoned_event_becomes_a_dead_letter(kafka, server, client):
    # The topic takes less than the route believes: only the broker can refuse the large one.
    it = server(kafka, start=False)
    kafka.create_topic(it.transactions, config={"max.message.bytes": 20000})
    it.start()
    from harness.client import operation

    events = [transaction("create_user", id=f"small-{n}", key="k") for n in range(300)]
    events.insert(150, transaction(operation("create_user", "e", os.urandom(40000)), id="large", key="k"))
    client(it).stream(events)
    wait_for(lambda: client(it).route("transactions").pending == 0, "the route to drain", timeout=90)
    route = client(it).route("transactions")
    assert (route.accepted, route.published, route.dead) == (301, 300, 1)
    assert client(it).state("large") == "DEAD"
    assert "large" in client(it).event_status("large").reason.lower()
    records = read_all(kafka.bootstrap, it.transactions)
    assert [record.headers["ce_id"].decode() for record in records] == [f"small-{n}" for n in range(300)]
    with pytest.raises(grpc.RpcError) as dead:
        client(it).publish(events[150], PUBLISHED)
    assert dead.value.code() == grpc.StatusCode.FAILED_PRECONDITION
