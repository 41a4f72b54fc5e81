"""The clients of other languages, as script/clients makes them: their examples against a server, and a Java consumer."""

from __future__ import annotations

import re
import subprocess
import threading
from collections import Counter

import grpc
import pytest

from harness.client import Event, PublishRequest
from harness.consumer import read_all
from harness.paths import BUILD, ROOT, tool
from harness.process import Process, free_port, wait_for
from scripted_server import End, ok, refusal

JAVA = ("java", "-XX:TieredStopAtLevel=1", "-cp", str(ROOT / "client/java/examples/target/ingest-examples.jar"))
PROGRAMS = {
    "python": [str(BUILD / "tools/venv/bin/python"), str(ROOT / "client/python/publish.py")],
    "go": [str(BUILD / "clients/publish")],
    "java": [*JAVA, "ingest.examples.Publish"],
}
TOO_LONG = "x" * 300
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="session")
def made():
    """made(language): builds its client, once."""
    done: set[str] = set()

    def make(language: str) -> None:
        if language not in done:
            said = subprocess.run([ROOT / "script/clients", language], capture_output=True, text=True)
            assert said.returncode == 0, said.stdout + said.stderr
            done.add(language)

    return make


@pytest.fixture(params=PROGRAMS)
def publish(request, made):
    """publish(target, way, ids...): what the example says of each event; it ends with 1 if one was refused."""
    made(request.param)

    def run(target: str, way: str, *ids: str) -> dict[str, str]:
        command = [*PROGRAMS[request.param], target, way, *ids]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
        told = dict(line.split(": ", 1) for line in ended.stdout.splitlines())
        refused = way != "status" and any(not re.match("stored as|duplicate of", text) for text in told.values())
        assert ended.returncode == refused, ended
        return told

    return run


def test_publishing(kafka, server, publish):
    """Alone, together and by a stream: each event is stored, once; a bad one is refused with the field that is wrong."""
    it = server(kafka)
    assert publish(it.target, "unary", "u-1", "u-2") == {f"u-{n}": f"stored as transactions {n}" for n in (1, 2)}
    assert publish(it.target, "unary", "u-1") == {"u-1": "duplicate of transactions 1"}
    sent = ["u-1", "u-2"]
    for way, place in (("unary", "event"), ("batch", "events[1]"), ("stream", "event")):
        first, last = f"{way}-1", f"{way}-2"
        told = publish(it.target, way, first, TOO_LONG, last)
        assert told[TOO_LONG].startswith(f"INVALID_ARGUMENT {place}.id: "), told
        assert {told[first], told[last]} == {f"stored as transactions {len(sent) + n}" for n in (1, 2)}
        sent += [first, last]
    records = read_all(kafka.bootstrap, it.transactions, until=len(sent))
    assert Counter(record.headers["ce_id"].decode() for record in records) == Counter(sent)
    event = Event.FromString(next(record.value for record in records if record.headers["ce_id"] == b"u-1"))
    assert [each.name for each in event.transaction.operations] == ["create_user", "add_user_to_org"]
    assert event.key == "u-1" and event.transaction.operations[0].data["name"] == "User u-1"
    wait_for(lambda: set(publish(it.target, "status", *sent).values()) == {"PUBLISHED"}, "all to be published")
    assert publish(it.target, "status", "u-0") == {"u-0": "UNKNOWN"}


def test_sending_again(scripted, publish):
    """Nobody there, then a stream that breaks behind its first answer, then a server that is full for a while: the same
    events come again, those that were answered do not, and not before the server's time."""
    script = iter([ok, End(grpc.StatusCode.UNAVAILABLE), lambda event: refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", 700)])

    def answer(event):
        step = next(script, ok)
        if isinstance(step, End):
            raise step
        return step(event)

    address = f"127.0.0.1:{free_port()}"
    made = []
    late = threading.Timer(1, lambda: made.append(scripted(answer, address)))
    late.start()
    told = publish(address, "stream", "u-1", "u-2")
    late.join()
    assert told == {"u-1": "stored as transactions 1", "u-2": "stored as transactions 1"}
    [it] = made
    assert [event.id for event in it.events] == ["u-1", "u-2", "u-2", "u-2"]
    assert it.events[1] == it.events[2] == it.events[3]
    assert it.at[3] - it.at[2] >= 0.7
