"""The example worker, against a real Kafka, OpenSearch and Cassandra: what the catalogue says is there, once."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.client import PUBLISHED, informative, operation, transaction
from harness.consuming import GROUP, SESSION
from harness.kafka import KafkaCluster
from harness.paths import BUILD, ROOT
from harness.process import Process, wait_for
from harness.stores import Cassandra, OpenSearch
from harness.tools import run

INDEXES = ("user", "userprofilevisibility")  # of create_user
TABLES = ("user", "usr_external_identity", "user_job_profile", "address", "user_educations", "user_org")


@pytest.fixture(scope="module")
def stores() -> Iterator[tuple[KafkaCluster, OpenSearch, Cassandra]]:
    kafka, index, tables = KafkaCluster(properties=GROUP), OpenSearch(), Cassandra()
    for each in (tables, index):
        each.process.start()
    kafka.start()
    for each in (tables, index):
        each.wait_ready()
    yield kafka, index, tables
    kafka.stop()
    index.__exit__()
    tables.__exit__()


@pytest.fixture
def worker(stores, tmp_path) -> Iterator[Callable[..., Process]]:
    """worker(topics): a started one; its failed events are in tmp_path/failed."""
    kafka, index, tables = stores
    made: list[Process] = []

    def make(*topics: str) -> Process:
        properties = [f"{name}={value}" for name, value in {"group.instance.id": "one", **SESSION}.items()]
        words = [kafka.bootstrap, f"g-{uuid.uuid4().hex[:8]}", str(tmp_path / "failed"), index.url, tables.place, *topics, *properties]
        made.append(Process([str(BUILD / "release/example-worker"), *words], tmp_path / "worker.log"))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.kill()


def rows(stores, table: str, prefix: str) -> dict[str, object]:
    return {key: row for key, row in stores[2].rows(table).items() if key.startswith(prefix)}


def documents(stores, index: str, prefix: str) -> dict[str, object]:
    return {key: value for key, value in stores[1].documents(index).items() if key.startswith(prefix)}


def users(prefix: str, count: int) -> list[object]:
    return [transaction("create_user", id=f"{prefix}-{n}", key=f"{prefix}-{n}", data={"name": f"user {n}"}) for n in range(count)]


def whole(stores, prefix: str, count: int) -> bool:
    return all(len(rows(stores, table, prefix)) == count for table in TABLES) and all(
        len(documents(stores, index, prefix)) == count for index in INDEXES
    )


def test_the_whole_catalogue(server, client, stores, worker):
    """Each of the 43 operations ends well, and a created user is two documents and six rows."""
    it = server(stores[0])
    names = [line.split("\t") for line in (ROOT / "server/default_catalogue.tsv").read_text().splitlines() if line and line[0] != "#"]
    client(it).publish_batch([transaction(name[0], id=f"all-{name[0]}", key="all") for name in names if name[1] == "transaction"])
    client(it).publish(transaction("create_user", id="ada", key="u-ada", data={"name": "Ada"}))
    one = worker(it.transactions, it.informative)
    wait_for(lambda: whole(stores, "u-ada", 1), "the user to be everywhere", 90, 1)
    wait_for(lambda: documents(stores, "content", "all") or documents(stores, "location", "all"), "the last of the catalogue", 60)
    assert rows(stores, "user", "u-ada")["u-ada"].data == '{"name":"Ada"}'
    assert documents(stores, "user", "u-ada")["u-ada"]["data"] == {"name": "Ada"}
    assert one.terminate(30) == 0
    assert run(str(BUILD / "release/ingestctl"), "failed", "list", f"--data-dir={one.log.parent / 'failed'}", "--json").stdout == ""


def test_kills(server, client, stores, worker):
    """kill -9 ten times: every user is whole, and each document was written by its own event's effect."""
    it, chance = server(stores[0]), random.Random()
    client(it).publish_batch(users("kill", 100))
    for event in (transaction("block_user", key="other"), informative("generate_otp")):
        client(it).publish(event, PUBLISHED)  # a static member is first started when its topics are there: consumer.h
    one = worker(it.transactions, it.informative)
    for _ in range(10):
        time.sleep(chance.uniform(0.5, 1.5))
        one.kill()
        one.start()
    wait_for(lambda: whole(stores, "kill", 100), "all to be whole", 120, 1)
    written = documents(stores, "user", "kill")
    assert all(written[f"kill-{n}"]["effect"] == f"tests/kill-{n}/0/index/user" for n in range(100))
    assert one.terminate(30) == 0


def test_a_table_store_that_is_away(server, client, stores, worker, tmp_path):
    """What cannot be written waits in the failed events, and is written when the store is back; nothing is doubled."""
    it, tables = server(stores[0]), stores[2]
    one = worker(it.transactions, it.informative)
    tables.kill()
    client(it).publish_batch(users("away", 20))
    ctl = [str(BUILD / "release/ingestctl"), "failed"]
    wait_for(lambda: "unreachable" in run(*ctl, "list", f"--data-dir={tmp_path / 'failed'}").stdout, "failed events", 60)
    tables.start()
    run(*ctl, "retry", f"--data-dir={tmp_path / 'failed'}", "--all")
    wait_for(lambda: whole(stores, "away", 20), "all to be whole", 60, 1)
    assert one.terminate(30) == 0


def test_a_document_that_is_refused(server, client, stores, worker, tmp_path):
    """A mapping says date, the event no date: it is given up, and done once the mapping was put right."""
    it, index = server(stores[0]), stores[1]
    mapping = {"mappings": {"properties": {"data": {"properties": {"since": {"type": "date"}}}}}}
    if "org" in index.ask("GET", "_mapping"):
        index.ask("DELETE", "org")
    index.ask("PUT", "org", mapping)
    one = worker(it.transactions, it.informative)
    client(it).publish(transaction(operation("create_org", entity_id="org-1", data={"since": "long ago"}), id="org-1", key="org-1"))
    ctl, folder = [str(BUILD / "release/ingestctl"), "failed"], f"--data-dir={tmp_path / 'failed'}"
    wait_for(lambda: "http_400" in run(*ctl, "list", folder).stdout, "the refusal", 60)
    index.ask("DELETE", "org")
    run(*ctl, "retry", folder, "--all")
    wait_for(lambda: "org-1" in index.documents("org") and "org-1" in rows(stores, "organisation", "org"), "the org", 30)
    wait_for(lambda: "org-1" not in run(*ctl, "list", folder).stdout, "no failed event", 30)
    assert one.terminate(30) == 0
