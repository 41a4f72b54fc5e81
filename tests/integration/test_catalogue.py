"""Every operation of the catalogue, alone and in groups, by grpcurl and by a generated client: what was sent is what
Kafka has, in both value formats, with the pinned headers."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from google.protobuf import json_format

from harness.client import SOURCE, Event, informative, operation, transaction
from harness.consumer import Record, read_all
from harness.paths import ROOT
from harness.tools import grpcurl

CATALOGUE = [
    line.split("\t")
    for line in (ROOT / "server/default_catalogue.tsv").read_text().splitlines()
    if line and not line.startswith("#")
]
TRANSACTIONS = [entry[0] for entry in CATALOGUE if entry[1] == "transaction"]
INFORMATIVE = [entry[0] for entry in CATALOGUE if entry[1] == "informative"]
DATA = {"name": "Ada \u20ac \U0001f680 \"quoted\"", "n": 12.5, "big": 1e300, "yes": True, "no": None, "list": [1, "x", {}]}
TIME = "2026-02-03T04:05:06.007Z"


def decode(record: Record, format: str) -> Event:
    """The value by another protobuf implementation than ours."""
    if format == "protobuf":
        return Event.FromString(record.value)
    event = json_format.Parse(record.value, Event())
    assert json.loads(record.value) == json_format.MessageToDict(event), "the JSON is not the canonical one"
    return event


def check(record: Record, sent: Event, format: str, sequence: int, store: str, type: str) -> None:
    event = decode(record, format)
    if not sent.HasField("time"):
        assert event.HasField("time")
        sent.time.CopyFrom(event.time)
    assert event == sent
    assert record.key.decode() == (sent.key or sent.id)
    headers = {name: value.decode() for name, value in record.headers.items()}
    assert headers.pop("ce_time").endswith("Z")
    assert headers == {
        "ce_specversion": "1.0",
        "ce_id": sent.id,
        "ce_source": sent.source,
        "ce_type": type,
        "ce_sequence": str(sequence),
        "ce_storeid": store,
        "content-type": f"application/{format}",
    }


def samples() -> list[tuple[Event, str]]:
    """Events and their types: each operation alone, groups of several, each notice."""
    made = [(transaction(operation(name, f"e-{name}", DATA), id=f"one-{name}", key=f"k{i % 5}"), name)
            for i, name in enumerate(TRANSACTIONS)]
    for size in (2, 7, len(TRANSACTIONS)):
        group = [operation(name, f"e-{i}", DATA) for i, name in enumerate(TRANSACTIONS[:size])]
        made.append((transaction(*group, name=TRANSACTIONS[-1], id=f"group-{size}", key="group"), TRANSACTIONS[-1]))
    raw = transaction(operation("create_user", "raw", bytes(range(256))), id="raw", key="raw", attributes={"a": "1", "b": "2"})
    made.append((raw, "create_user"))
    made += [(informative(name, id=f"tell-{name}", key="k", data=DATA), name) for name in INFORMATIVE]
    return made


def by_id(records: list[Record]) -> dict[str, Record]:
    found = {record.headers["ce_id"].decode(): record for record in records}
    assert len(found) == len(records), "an event is there twice"
    return found


@pytest.mark.parametrize("format", ["protobuf", "json"])
def test_python_client(kafka, server, client, format):
    it = server(kafka, {"routes": {name: {"format": format} for name in ("transactions", "informative")}})
    sent = samples()
    answers = [client(it).publish(event) if i % 2 else client(it).publish_batch([event])[0].response
               for i, (event, _) in enumerate(sent)]
    records = by_id(read_all(kafka.bootstrap, [it.transactions, it.informative], until=len(sent)))
    assert len(records) == len(sent) == 43 + 3 + 1
    for (event, type), answer in zip(sent, answers):
        check(records[event.id], event, format, answer.sequence, answer.store, type)
        assert records[event.id].topic == (it.informative if type in INFORMATIVE else it.transactions)


@pytest.mark.parametrize("format", ["protobuf", "json"])
def test_grpcurl(kafka, server, format):
    it = server(kafka, {"routes": {name: {"format": format} for name in ("transactions", "informative")}})
    answers: list[Any] = []
    sent = samples()
    for event, _ in sent:
        typed = json_format.MessageToDict(event, preserving_proto_field_name=True)
        answers.append(grpcurl(it.target, "ingest.v1.IngestService/Publish", {"event": typed}))
    records = by_id(read_all(kafka.bootstrap, [it.transactions, it.informative], until=len(sent)))
    assert len(records) == len(sent)
    for (event, type), answer in zip(sent, answers):
        check(records[event.id], event, format, int(answer["sequence"]), answer["store"], type)


def test_what_the_sender_left_out_is_filled_in(kafka, server, client):
    it = server(kafka)
    answer = client(it).publish(transaction("create_user", id=""))
    [record] = read_all(kafka.bootstrap, it.transactions, until=1)
    event = Event.FromString(record.value)
    assert event.id == event.key == answer.id == record.key.decode() == record.headers["ce_id"].decode()
    assert event.id[14] == "7" and event.HasField("time")


def test_time_and_trace_context_become_headers(kafka, server, client):
    it = server(kafka)
    event = transaction("create_user", id="timed")
    event.time.FromJsonString(TIME)
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    from harness.client import PublishRequest

    client(it).ingest.Publish(PublishRequest(event=event), metadata=[("traceparent", traceparent), ("tracestate", "a=b")])
    [record] = read_all(kafka.bootstrap, it.transactions, until=1)
    assert record.headers["ce_time"].decode() == TIME
    assert record.headers["traceparent"].decode() == traceparent
    assert record.headers["tracestate"].decode() == "a=b"


@pytest.mark.parametrize("format", ["protobuf", "json"])
def test_a_group_split_over_three_topics(kafka, server, client, tmp_path, format):
    topics = [kafka.create_topic(f"split-{format}-{tmp_path.name}-{i}") for i in range(3)]
    lines = [f"{name}\ttransaction\tsplit\t{topic}\t-\t-" for name, topic in zip(("a", "b", "c"), topics)]
    catalogue = tmp_path / "catalogue.tsv"
    catalogue.write_text("\n".join(lines) + "\n")
    route = {"name": "split", "topic": topics[0], "layout": "split", "format": format}
    it = server(kafka, {"catalogue_file": str(catalogue), "routes": [route, {"name": "other", "topic": topics[1]}]})
    event = transaction(*(operation(name, f"e{i}", DATA) for i, name in enumerate("abcab")), name="b", id="g", key="k")
    answer = client(it).publish(event)
    records = read_all(kafka.bootstrap, topics, until=5)
    assert len(records) == 5
    records.sort(key=lambda record: int(record.headers["ce_groupindex"]))
    for index, record in enumerate(records):
        part = decode(record, format)
        assert part.transaction.operations == [event.transaction.operations[index]]
        assert part.id == "g" and part.transaction.name == "b" and part.source == SOURCE
        assert record.topic == topics["abc".index(part.transaction.operations[0].name)]
        assert record.key == b"k"
        assert record.headers["ce_id"].decode() == f"g/{index}"
        assert record.headers["ce_groupid"] == b"g"
        assert record.headers["ce_groupsize"] == b"5"
        assert record.headers["ce_sequence"].decode() == str(answer.sequence)


def test_json_keeps_raw_bytes(kafka, server, client):
    it = server(kafka, {"routes": {"transactions": {"format": "json"}}})
    client(it).publish(transaction(operation("create_user", "e", b"\xff\x00\xfe"), id="raw"))
    [record] = read_all(kafka.bootstrap, it.transactions, until=1)
    value = json.loads(record.value)
    assert base64.b64decode(value["transaction"]["operations"][0]["raw"]) == b"\xff\x00\xfe"
