"""Fixtures: `kafka` (one node), `kafka3` (three nodes), `topic`, `server` and `client`; a new test is a few lines.

    def test_something(server, kafka, client):
        it = server(kafka)
        client(it).publish(transaction("create_user"))

Tests share a Kafka, so each server() gets topics of its own.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.client import IngestClient  # noqa: E402
from harness.kafka import KafkaCluster  # noqa: E402
from harness.server import Ingestd  # noqa: E402

from client_program import Driver  # noqa: E402
from scripted_server import ScriptedServer  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: slow; runs only with INGEST_TEST_SCALE=full")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the slow tests out, rather than skipping them: a skip would look like a tool that is missing."""
    if os.environ.get("INGEST_TEST_SCALE", "short") != "full":
        slow = [item for item in items if item.get_closest_marker("full")]
        items[:] = [item for item in items if item not in slow]
        config.hook.pytest_deselected(items=slow)


@pytest.fixture(scope="session")
def scale() -> Callable[[int, int], int]:
    """scale(short, full): the number for the scale of this run."""
    full = os.environ.get("INGEST_TEST_SCALE", "short") == "full"
    return lambda short, at_full: at_full if full else short


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaCluster]:
    with KafkaCluster(acl=True) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def kafka3() -> Iterator[KafkaCluster]:
    with KafkaCluster(nodes=3) as cluster:
        yield cluster


@pytest.fixture
def own_kafka() -> Iterator[KafkaCluster]:
    """One node for this test alone, which may kill it."""
    with KafkaCluster() as cluster:
        yield cluster


@pytest.fixture
def topic(kafka: KafkaCluster) -> Iterator[str]:
    """A fresh topic of three partitions in `kafka`."""
    name = kafka.create_topic(f"test-{uuid.uuid4().hex[:8]}")
    yield name
    kafka.allow(name)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[..., Ingestd]]:
    """server(kafka, config={...}): a started ingestd with data, log and topics of its own; kafka may be an address.

    Its topics: it.transactions, it.informative, it.positions. start=False leaves the start to the test.
    """
    made: list[Ingestd] = []

    def make(kafka: KafkaCluster | str, config: dict[str, Any] | None = None, start: bool = True, **rest: Any):
        prefix = f"t-{uuid.uuid4().hex[:8]}"
        bootstrap = kafka if isinstance(kafka, str) else kafka.bootstrap
        it = Ingestd(tmp_path / f"server-{len(made)}", bootstrap, _topics(prefix, config or {}), **rest)
        it.transactions, it.informative = (route["topic"] for route in it.config["routes"][:2])
        it.positions = it.config["kafka"]["positions_topic"]
        made.append(it)
        return it.start() if start else it

    yield make
    for it in made:
        it.stop()


@pytest.fixture
def client() -> Iterator[Callable[[Ingestd | str], IngestClient]]:
    """client(server or its target): a connection that is closed at the end."""
    made: list[IngestClient] = []

    def make(to: Ingestd | str, **rest: Any) -> IngestClient:
        made.append(IngestClient(to if isinstance(to, str) else to.target, **rest))
        return made[-1]

    yield make
    for it in made:
        it.close()


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """driver(target, what, option=value...): a started client_driver, which ends with the test."""
    made: list[Driver] = []

    def make(target: str, what: str = "publish", **options: Any) -> Driver:
        made.append(Driver(tmp_path / f"driver-{len(made)}", target, what, **options).start())
        return made[-1]

    yield make
    for one in made:
        one.kill()


@pytest.fixture
def scripted() -> Iterator[Callable[..., ScriptedServer]]:
    """scripted(answer, ...): a ScriptedServer that ends with the test."""
    made: list[ScriptedServer] = []

    def make(*arguments: Any, **options: Any) -> ScriptedServer:
        made.append(ScriptedServer(*arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def _topics(prefix: str, config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with topics of this test; `routes` given as a dict change the default ones by name."""
    routes = [{"name": name, "topic": f"{prefix}-{name}"} for name in ("transactions", "informative")]
    given = config.get("routes", {})
    if isinstance(given, list):
        routes = given
    else:
        for route in routes:
            route.update(given.get(route["name"], {}))
    kafka = {"positions_topic": f"{prefix}-positions", **config.get("kafka", {})}
    return {**config, "kafka": kafka, "routes": routes}
