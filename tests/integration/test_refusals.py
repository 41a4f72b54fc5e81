"""What must not come in is refused with a precise status and field path, and nothing of it is stored."""

from __future__ import annotations

import grpc
import pytest

from harness.client import Event, PublishRequest, informative, operation, transaction, violations
from harness.consumer import read_all
from harness.process import wait_for

CODE = grpc.StatusCode


def no_source() -> Event:
    return transaction("create_user", source="")


def no_operation() -> Event:
    event = transaction("create_user")
    del event.transaction.operations[:]
    return event


def not_finite() -> Event:
    event = transaction(operation("create_user", "e", {"a": {"b": [1, 2]}}))
    event.transaction.operations[0].data["a"]["b"][1] = float("nan")
    return event


def bad_time() -> Event:
    event = transaction("create_user")
    event.time.nanos = -1
    return event


REFUSED = [
    ("an unknown operation", lambda: transaction("create_user", "no_such", name="create_user"), CODE.INVALID_ARGUMENT,
     "event.transaction.operations[1].name"),
    ("an empty transaction", no_operation, CODE.INVALID_ARGUMENT, "event.transaction.operations"),
    ("informative in a transaction", lambda: transaction("generate_otp"), CODE.INVALID_ARGUMENT,
     "event.transaction.operations[0].name"),
    ("a transaction as informative", lambda: informative("create_user"), CODE.INVALID_ARGUMENT, "event.informative.name"),
    ("no source", no_source, CODE.INVALID_ARGUMENT, "event.source"),
    ("no body", lambda: Event(source="s"), CODE.INVALID_ARGUMENT, "event"),
    ("oversize", lambda: transaction(operation("create_user", "e", b"x" * 800_000)), CODE.INVALID_ARGUMENT, "event"),
    ("a long id", lambda: transaction("create_user", id="i" * 257), CODE.INVALID_ARGUMENT, "event.id"),
    ("not finite", not_finite, CODE.INVALID_ARGUMENT, "event.transaction.operations[0].data.a.b[1]"),
    ("a bad time", bad_time, CODE.INVALID_ARGUMENT, "event.time"),
]


@pytest.fixture(scope="module")
def refusing(kafka, tmp_path_factory):
    from harness.server import Ingestd

    it = Ingestd(tmp_path_factory.mktemp("refusing"), kafka.bootstrap,
                 {"routes": [{"name": "transactions", "topic": "refused-t"}, {"name": "informative", "topic": "refused-i"}],
                  "kafka": {"positions_topic": "refused-p"}}).start()
    yield it
    it.stop()


@pytest.mark.parametrize("name, make, code, field", REFUSED, ids=[case[0] for case in REFUSED])
def test_refused(refusing, client, name, make, code, field):
    before = client(refusing).route("transactions").accepted
    event = make()
    with pytest.raises(grpc.RpcError) as refusal:
        client(refusing).publish(event)
    assert refusal.value.code() == code
    assert list(violations(refusal.value)) == [field]
    assert field in refusal.value.details()
    [result] = client(refusing).publish_batch([event])
    assert result.error.code == code.value[0]
    assert list(violations(result.error)) == [field.replace("event", "events[0]", 1)]
    [result] = client(refusing).stream([event])
    assert list(violations(result.error)) == [field]
    assert client(refusing).route("transactions").accepted == before
    if 0 < len(event.id) <= 256 and event.source:
        assert client(refusing).state(event.id) == "UNKNOWN"


def test_no_event(refusing, client):
    with pytest.raises(grpc.RpcError) as refusal:
        client(refusing).ingest.Publish(PublishRequest())
    assert list(violations(refusal.value)) == ["event"]


def test_one_bad_event_does_not_keep_out_the_others(kafka, server, client):
    it = server(kafka)
    events = [transaction("create_user", id="good-1"), transaction("no_such", id="bad"), transaction("create_user", id="good-2")]
    for results in (client(it).publish_batch(events), client(it).stream(events)):
        assert [result.WhichOneof("outcome") for result in results] == ["response", "error", "response"]
    records = read_all(kafka.bootstrap, it.transactions, until=2)
    assert [record.headers["ce_id"] for record in records] in ([b"good-1", b"good-2"], [b"good-2", b"good-1"])


def test_an_id_is_an_idempotency_key(kafka, server, client):
    it = server(kafka)
    event = transaction(operation("create_user", "e", {"a": 1, "b": 2}), id="same")
    first = client(it).publish(event)
    rebuilt = transaction(operation("create_user", "e", {"b": 2, "a": 1}), id="same")
    again = client(it).publish(rebuilt)
    assert (again.duplicate, again.sequence, first.duplicate) == (True, first.sequence, False)
    with pytest.raises(grpc.RpcError) as refusal:
        client(it).publish(transaction(operation("create_user", "e", {"a": 2}), id="same"))
    assert refusal.value.code() == CODE.ALREADY_EXISTS
    assert "event.id" in refusal.value.details() and "(sequence 1)" in refusal.value.details()
    client(it).publish(transaction("create_user", id="same", source="another"))
    it.restart()
    assert client(it).publish(rebuilt).duplicate
    wait_for(lambda: client(it).state("same") == "PUBLISHED", "same to be published")
    assert client(it).publish(rebuilt).duplicate
    assert len(read_all(kafka.bootstrap, it.transactions, until=2)) == 2


def test_an_event_in_one_batch_twice_is_one(kafka, server, client):
    it = server(kafka)
    event = transaction("create_user", id="twice")
    results = client(it).publish_batch([event, event])
    assert [result.response.duplicate for result in results] == [False, True]
    assert results[0].response.sequence == results[1].response.sequence
    assert len(read_all(kafka.bootstrap, it.transactions, until=1)) == 1
