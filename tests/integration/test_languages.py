"""The clients of other languages, as script/clients makes them: their examples against a server, and a Java consumer."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
import time
import uuid
from collections import Counter
from typing import Any

import grpc
import pytest
from confluent_kafka import Producer

from harness.client import PUBLISHED, SOURCE, Event, transaction
from harness.consumer import each_record, read_all
from harness.load import Load
from harness.load_worker import SPLIT
from harness.paths import BUILD, ROOT, tool
from harness.process import Process, wait_for
from scripted_server import End, ok, refusal

JAVA = ("java", "-XX:TieredStopAtLevel=1", "-cp", str(ROOT / "client/java/examples/target/ingest-examples.jar"))
PROGRAMS = {
    "python": [str(BUILD / "tools/venv/bin/python"), str(ROOT / "client/python/publish.py")],
    "go": [str(BUILD / "clients/publish")],
    "java": [*JAVA, "ingest.examples.Publish"],
}
TOO_LONG = "x" * 300
TERMINATED = 128 + 15  # how Java ends by SIGTERM, in order or not


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
    """A stream that breaks behind its first answer, then a server that is full for a while: the same events come again,
    those that were answered do not, and not before the server's time."""
    script = iter([ok, End(grpc.StatusCode.UNAVAILABLE), lambda event: refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", 900)])

    def answer(event):
        step = next(script, ok)
        if isinstance(step, End):
            raise step
        return step(event)

    it = scripted(answer)
    assert publish(it.target, "stream", "u-1", "u-2") == dict.fromkeys(("u-1", "u-2"), "stored as transactions 1")
    assert [event.id for event in it.events] == ["u-1", "u-2", "u-2", "u-2"]
    assert it.events[1] == it.events[2] == it.events[3]
    assert it.at[3] - it.at[2] >= 0.9


def test_waiting_for_a_server(scripted, publish):
    """Whoever takes the first connection closes it, and nobody is there for the next one; then the server is back."""
    made = []
    nobody = socket.create_server(("127.0.0.1", 0))
    address = "127.0.0.1:%d" % nobody.getsockname()[1]

    def come_back():
        nobody.accept()[0].close()
        nobody.close()
        time.sleep(0.3)
        made.append(scripted(ok, address))

    coming = threading.Thread(target=come_back)
    coming.start()
    assert publish(address, "stream", "u-1") == {"u-1": "stored as transactions 1"}
    coming.join()
    assert [event.id for event in made[0].events] == ["u-1"]


class Consume:
    """The Java consumer under way, in a consumer group of this name. It tells of each event once it is whole."""

    def __init__(self, folder, bootstrap, group, topics):
        settings = folder / f"{group}.properties"
        # With an instance's id it gets its partitions back at once after a kill.
        settings.write_text(f"bootstrap.servers={bootstrap}\ngroup.id={group}\ngroup.instance.id=one\n")
        command = [*JAVA, "ingest.examples.Consume", str(settings), *topics]
        self.process = Process([tool(command[0]), *command[1:]], folder / f"{group}-{time.monotonic_ns()}.log")
        self.process.start()

    def told(self) -> dict[str, str]:
        """What it said of each event; none is told twice, and none as incomplete."""
        lines = self.process.log.read_text().rpartition("\n")[0].splitlines()
        told = [line.split(": ", 1) for line in lines if line != "stopped"]
        assert all(len(each) == 2 for each in told), self.process.tail()
        twice = [id for id, times in Counter(id for id, _ in told).items() if times > 1]
        assert not twice, f"{len(twice)} events came twice: {twice[:10]}"
        return {id: what for id, what in told if not id.startswith("incomplete ")}


EXPECTED = {
    "transaction": "create_user; records: 1",
    "group": "create_user, create_org, add_user_to_org; records: 1",
    "split": f"{', '.join(SPLIT)}; records: 3",
    "informative": "generate_otp; records: 1",
}


@pytest.fixture
def split(kafka, server, tmp_path):
    """A server that splits groups of SPLIT over three topics and leaves others whole, and all its topics."""
    topics = [kafka.create_topic(f"{name}-{tmp_path.name}") for name in SPLIT]
    catalogue = tmp_path / "catalogue.tsv"
    own = "".join(f"{name}\ttransaction\tsplit\t{topic}\t-\t-\n" for name, topic in zip(SPLIT, topics))
    catalogue.write_text((ROOT / "server/default_catalogue.tsv").read_text() + own)
    names = ("transactions", "informative")
    whole = [{"name": name, "topic": kafka.create_topic(f"{name}-{tmp_path.name}"), "format": "json"} for name in names]
    routes = [*whole, {"name": "split", "topic": topics[0], "layout": "split"}]
    for route in routes:
        route["linger"] = "300ms"  # transactions are open most of the time, so that a kill leaves some
    return server(kafka, {"catalogue_file": str(catalogue), "routes": routes}), [*topics, *(each["topic"] for each in whole)]


def test_a_java_consumer_sees_groups_whole(kafka, split, tmp_path, made):
    """One reads all the time while the server is killed again and again; another one, of its own consumer group, is
    killed too. The first sees each event exactly once; the other sees each, and after its restart none in part."""
    made("java")
    it, topics = split
    steady, fragile = (Consume(tmp_path, kafka.bootstrap, group, topics) for group in ("steady", "fragile"))
    seen: dict[str, str] = {}
    with Load(it.target, tmp_path, mode="batch", lanes=80, rate=1000, shapes=tuple(EXPECTED), timeout=2) as load:
        for _ in range(3):
            wait_for(lambda: len(fragile.told()) > 500, "the consumer to read")
            fragile.process.kill()
            seen |= fragile.told()
            fragile = Consume(tmp_path, kafka.bootstrap, "fragile", topics)
            it.kill9()
            it.start()
        acks = load.stop()

    shapes = list(EXPECTED)
    wanted = {ack.id: EXPECTED[shapes[int(ack.key.rpartition(".")[2]) % len(shapes)]] for ack in acks}
    wait_for(lambda: len(steady.told()) >= len(wanted), "all events to be read", 60)
    wait_for(lambda: wanted.keys() <= seen.keys() | fragile.told().keys(), "all events to be read after a restart", 60)
    for consume in (steady, fragile):
        assert consume.process.terminate() == TERMINATED
        assert "incomplete" not in consume.process.log.read_text(), consume.process.tail()
    assert steady.told() == wanted
    assert seen | fragile.told() == wanted
    records = [
        sum(1 for _ in each_record(kafka.bootstrap, topics, isolation)) for isolation in ("read_committed", "read_uncommitted")
    ]
    assert records[0] < records[1], "no transaction was aborted: there was nothing to leave out"


def test_a_java_consumer_keeps_the_order_of_a_key(kafka, split, client, tmp_path, made):
    """Of a key, every other event has records on one of the topics alone: it is there before the one in front of it."""
    made("java")
    it, topics = split
    sent = [transaction(*(SPLIT if n % 2 else SPLIT[:1]), id=f"e-{n}", key="k") for n in range(1, 201)]
    client(it).stream(sent, PUBLISHED)
    consume = Consume(tmp_path, kafka.bootstrap, "orderly", topics)
    wait_for(lambda: len(consume.told()) == len(sent), "all events to be read")
    assert list(consume.told()) == [event.id for event in sent]
    consume.process.terminate()


PAIR = f"{SPLIT[0]}, {SPLIT[1]}; records: 2"


@pytest.fixture
def pairs(kafka, tmp_path):
    """pairs(group, index, ...): writes one of the two records of a split group, as the server does, each on a topic of
    its own; pairs.topics."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap})

    def produce(group: str, index: int, sequence: int = 1, age_s: int = 0) -> None:
        event = transaction(SPLIT[index], id=group, key="k")
        headers = {"ce_id": f"{group}/{index}", "ce_source": SOURCE, "content-type": "application/protobuf"}
        headers |= {"ce_groupid": group, "ce_groupindex": str(index), "ce_groupsize": "2"}
        headers |= {"ce_sequence": str(sequence), "ce_storeid": str(uuid.UUID(int=1))}
        stamp = int((time.time() - age_s) * 1000)
        producer.produce(produce.topics[index], event.SerializeToString(), "k", headers=list(headers.items()), timestamp=stamp)
        assert producer.flush(20) == 0

    produce.topics = [kafka.create_topic(f"{name}-{tmp_path.name}", partitions=1) for name in SPLIT[:2]]
    return produce


def test_a_java_consumer_stops_in_the_middle_of_a_group(kafka, pairs, tmp_path, made):
    """One group is there in part, another one behind it as a whole. Read again from anywhere else than before both, the
    one would lack its first part or the other its second."""
    made("java")
    for group, index, sequence in (("torn", 0, 2), ("whole", 0, 1), ("whole", 1, 1)):
        pairs(group, index, sequence)
    first = Consume(tmp_path, kafka.bootstrap, "stopped", pairs.topics)
    wait_for(lambda: first.told() == {"whole": PAIR}, "the group that is whole")
    assert first.process.terminate() == TERMINATED
    assert "incomplete torn: 1 of 2" in first.process.log.read_text()

    pairs("torn", 1, 2)
    second = Consume(tmp_path, kafka.bootstrap, "stopped", pairs.topics)
    wait_for(lambda: second.told() == {"whole": PAIR, "torn": PAIR}, "both groups")
    assert second.process.terminate() == TERMINATED
    assert "incomplete" not in second.process.log.read_text()


def test_a_java_consumer_gives_up_what_retention_has_torn(kafka, pairs, tmp_path, made):
    """A group's first record is gone. It holds up those of its key only until it is told; and is not read again."""
    made("java")
    pairs("old", 1, 1, age_s=8 * 86400)
    pairs("late", 1, 3)
    for index in (0, 1):
        pairs("next", index, 2)
    first = Consume(tmp_path, kafka.bootstrap, "retained", pairs.topics)
    wait_for(lambda: first.told() == {"torn old": "1 of 2", "next": PAIR}, "the group behind the torn one")
    first.process.terminate()
    assert "incomplete late: 1 of 2" in first.process.log.read_text(), "one that may still come was given up"
    pairs("late", 0, 3)
    second = Consume(tmp_path, kafka.bootstrap, "retained", pairs.topics)
    wait_for(lambda: "late" in second.told(), "the group that was late")
    assert "torn old" not in second.told()
    second.process.terminate()


README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("language", PROGRAMS)
def test_the_readmes_commands(kafka, server, tmp_path, language):
    """As they are printed, in order; only addresses and topics are put in the place of the printed ones."""
    [commands] = re.findall(rf"### {language}\n\n```sh\n(.*?)```", README, re.S | re.I)
    it = server(kafka)
    properties = tmp_path / "consumer.properties"
    shown = (ROOT / "client/java/examples/consumer.properties").read_text()
    properties.write_text(shown.replace("localhost:9092", kafka.bootstrap))
    replacements = {
        "localhost:50051": it.target,
        "client/java/examples/consumer.properties": str(properties),
        "ingest.transactions ingest.informative": f"{it.transactions} {it.informative}",
        "java ingest.examples.Consume": "exec java ingest.examples.Consume",  # which goes on until it is ended
    }
    for old, new in replacements.items():
        commands = commands.replace(old, new)
    process = Process(["bash", "-ec", f"cd {ROOT}; {commands}"], tmp_path / "said")
    process.start()
    if language == "java":
        wait_for(lambda: len(re.findall(r"u-\d: create_user, add_user_to_org; records: 1", process.tail())) == 2, "both events", 60)
        assert process.terminate() == TERMINATED
    else:
        assert process.wait(60) == 0, process.tail()
    assert len(re.findall(r"u-\d: stored as transactions [12]", process.tail())) == 2
    assert len(re.findall(r"u-\d: (PENDING|PUBLISHED)", process.tail())) == 2
