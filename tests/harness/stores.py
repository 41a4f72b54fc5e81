"""Where a worker puts its effects: a real Cassandra and a real OpenSearch, a node each, from the jars in build/tools.

Each keeps its folder and port, so it may be killed and started again.
"""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import RoundRobinPolicy

from .paths import ROOT, TOOLS, tool
from .process import Process, free_port, wait_for

JVM = ["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]

# What Cassandra 5 asks of Java 17 (its jvm17-server.options).
OPENED = (
    "io lang lang.module lang.reflect math net nio util util.concurrent util.concurrent.atomic",
    "ref misc loader module math reflect util.jar vm",
)
MODULES = [
    *(f"java.base/java.{name}" for name in OPENED[0].split()),
    *(f"java.base/jdk.internal.{name}" for name in OPENED[1].split()),
    "java.base/sun.nio.ch",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.rmi/sun.rmi.transport.tcp",
    "java.sql/java.sql",
    "jdk.attach/sun.tools.attach",
    "jdk.compiler/com.sun.tools.javac.file",
    "jdk.management/com.sun.management.internal",
    "jdk.unsupported/sun.misc",
]


def jars(name: str) -> str:
    assert TOOLS.joinpath(name).is_dir(), f"the jars of {name} are missing: run script/deps"
    return f"{TOOLS / name}/*"


class Store:
    """One node."""

    def __init__(self, name: str):
        self.folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        self.port, self.inner_port = free_port(), free_port()
        self.process = Process([tool("java"), *JVM, f"-Djava.io.tmpdir={self.folder}", *self.command()], self.folder / "log")

    def command(self) -> list[str]:
        raise NotImplementedError

    def ready(self) -> bool:
        raise NotImplementedError

    def start(self) -> Store:
        self.process.start()
        return self.wait_ready()

    def wait_ready(self) -> Store:
        wait_for(self.ready, f"{type(self).__name__} in {self.folder}", 120, 0.2)
        return self

    def kill(self) -> None:
        self.process.kill()

    def __enter__(self) -> Any:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class OpenSearch(Store):
    def __init__(self) -> None:
        super().__init__("opensearch")
        (self.folder / "config").mkdir()

    def command(self) -> list[str]:
        source = ROOT / "tests/opensearch/Node.java"
        return ["-Dlog4j2.disable.jmx=true", "-cp", jars("opensearch"), str(source), str(self.folder), str(self.port), str(self.inner_port)]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: object = None) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self.url}/{path}", data, {"content-type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def ready(self) -> bool:
        return self.ask("GET", "_cluster/health")["status"] in ("green", "yellow")

    def documents(self, index: str) -> dict[str, Any]:
        """Its documents, by their ids."""
        self.ask("POST", f"{index}/_refresh")
        found = self.ask("GET", f"{index}/_search?size=10000")["hits"]["hits"]
        return {each["_id"]: each["_source"] for each in found}


class Cassandra(Store):
    def __init__(self) -> None:
        super().__init__("cassandra")
        settings = {
            "cluster_name": "tests",
            "num_tokens": 1,
            "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
            "commitlog_sync": "batch",
            "data_file_directories": [str(self.folder / "data")],
            **{f"{name}_directory": str(self.folder / name) for name in ("commitlog", "saved_caches", "hints", "cdc_raw")},
            "endpoint_snitch": "SimpleSnitch",
            "seed_provider": [
                {
                    "class_name": "org.apache.cassandra.locator.SimpleSeedProvider",
                    "parameters": [{"seeds": f"127.0.0.1:{self.inner_port}"}],
                }
            ],
            "listen_address": "127.0.0.1",
            "rpc_address": "127.0.0.1",
            "storage_port": self.inner_port,
            "native_transport_port": self.port,
        }
        (self.folder / "cassandra.yaml").write_text(json.dumps(settings))  # JSON is YAML

    def command(self) -> list[str]:
        opened = [f"--add-{how}={module}=ALL-UNNAMED" for module in MODULES for how in ("opens", "exports")]
        waits = ("skip_wait_for_gossip_to_settle", "ring_delay_ms", "superuser_setup_delay_ms")
        return [
            *opened,
            "-Djdk.attach.allowAttachSelf=true",
            "-Dcassandra-foreground=yes",
            f"-Dcassandra.config=file://{self.folder}/cassandra.yaml",
            f"-Dcassandra.storagedir={self.folder}",
            *(f"-Dcassandra.{name}=0" for name in waits),
            "-cp",
            jars("cassandra"),
            "org.apache.cassandra.service.CassandraDaemon",
        ]

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    def ready(self) -> bool:
        socket.create_connection(("127.0.0.1", self.port), 1).close()
        return True

    def rows(self, table: str) -> dict[str, Any]:
        """Its rows, by the entity."""
        profile = {EXEC_PROFILE_DEFAULT: ExecutionProfile(RoundRobinPolicy())}
        with Cluster(["127.0.0.1"], port=self.port, execution_profiles=profile, protocol_version=5) as cluster:
            found = cluster.connect("ingest").execute(f'SELECT entity_id, event_id, data, WRITETIME(data) AS time FROM "{table}"')
            return {row.entity_id: row for row in found}
