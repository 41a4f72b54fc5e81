"""Budgets: over one of them events are refused with a hint, publishing goes on, and all recovers by itself."""

from __future__ import annotations

import os

import grpc

from harness.client import details, error_details_pb2, ingest_service_pb2, transaction
from harness.consumer import read_all
from harness.process import wait_for

FULL = grpc.StatusCode.RESOURCE_EXHAUSTED


def batch(count=100, size=10_000):
    return [transaction("create_user", id="", data=os.urandom(size)) for _ in range(count)]


def has_hint(refusal):
    return any(isinstance(each, error_details_pb2.RetryInfo) and each.retry_delay.ToMilliseconds() > 0 for each in details(refusal))


def pending(it):
    return it.metrics().total("ingest_events_pending")


def test_the_backlog_budget_and_the_space_after_the_drain(own_kafka, server, client):
    storage = {"backlog_budget": "64MiB", "memtable": "4MiB", "ballast": 0}
    it = server(own_kafka, {"storage": storage})
    to = client(it)
    to.publish(transaction("create_user"), ack=ingest_service_pb2.ACK_PUBLISHED)
    idle = it.disk_bytes()
    own_kafka.pause_all()
    accepted, refused = 1, []
    while not refused:
        results = to.publish_batch(batch())
        refused = [result.error for result in results if not result.HasField("response")]
        accepted += len(results) - len(refused)
    assert all(error.code == FULL.value[0] and has_hint(error) for error in refused)
    assert 60 << 20 < it.metrics().total("ingest_backlog_bytes") <= 64 << 20
    assert it.metrics().total("ingest_refused_total", reason="BACKLOG_FULL") >= len(refused)
    full = it.disk_bytes()
    it.restart()  # refuses, and counts, as before
    try:
        to.publish(transaction("create_user", data=b"x" * 100_000), timeout=5)
        raise AssertionError("accepted over the budget")
    except grpc.RpcError as error:
        assert error.code() is FULL and has_hint(error)
    own_kafka.resume_all()
    wait_for(lambda: to.publish(transaction("create_user", id="again")), "room", 60)
    wait_for(lambda: pending(it) == 0, "the drain", 60)
    wait_for(lambda: it.disk_bytes() < 2 * idle, "space to be given back", 120)
    print(f"idle {idle >> 10} KiB, full {full >> 10} KiB, after the drain {it.disk_bytes() >> 10} KiB")
    assert len(read_all(own_kafka.bootstrap, it.transactions)) == accepted + 1


def test_a_volume_with_less_than_the_reserve(kafka, server, client):
    it = server(kafka, {"storage": {"reserve_free": "1000TiB", "ballast": 0}})
    try:
        client(it).publish(transaction("create_user"))
        raise AssertionError("accepted in the reserve")
    except grpc.RpcError as error:
        assert error.code() is FULL and has_hint(error)
    assert it.get("/readyz")[0] == 200


def test_ids_over_their_budget_are_remembered_for_less_long(kafka, server, client):
    it = server(kafka, {"storage": {"ids_budget": "16MiB"}})
    to = client(it)
    assert it.metrics()["ingest_ids_window_seconds"] == 24 * 3600
    to.publish(transaction("create_user", id="early"), ack=ingest_service_pb2.ACK_PUBLISHED)
    filler = "x" * 200
    for number in range(40):
        to.publish_batch([transaction("create_user", id=f"{filler}-{number}-{each}") for each in range(1000)])
    wait_for(lambda: pending(it) == 0, "the drain", 60)
    wait_for(lambda: it.metrics()["ingest_ids_window_seconds"] < 600, "the window to shrink")
    assert to.state("early") == "UNKNOWN"
    assert to.state(f"{filler}-39-999") == "PUBLISHED"
