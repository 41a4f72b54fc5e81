"""Real Kafka (KRaft) of one or more nodes, each broker and controller in one, from the jars in build/tools.

Topics are not made by themselves. A node keeps its folder and ports, so it may be killed and started again.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from pathlib import Path

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from .paths import ROOT, TOOLS, tool
from .process import Process, free_port, wait_for

HEAP = "350m"
# Short-lived and on few cores: the first compiler alone and one collector thread start soonest.
JVM = [f"-Xmx{HEAP}", f"-Xms{HEAP}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
EVERYBODY = "User:ANONYMOUS"


def java(*arguments: str) -> list[str]:
    """A command line that runs one of Kafka's classes."""
    assert TOOLS.joinpath("kafka").is_dir(), "Kafka's jars are missing: run script/deps"
    logging = f"-Dlog4j2.configurationFile={ROOT / 'tests/kafka/log4j2.properties'}"
    libraries = f"-Djava.io.tmpdir={tempfile.gettempdir()}"  # where lz4's and snappy's are unpacked, and stay after a kill
    return [tool("java"), *JVM, logging, libraries, "-cp", f"{TOOLS / 'kafka'}/*", *arguments]


class KafkaCluster:
    """A cluster of `nodes` nodes, numbered from 1.

    With acl=True deny() and allow() work; all that they do not name is open to everybody. With proxied=True a client
    may also come by a KafkaProxy(cluster.proxied), and is then never told of another way.
    """

    def __init__(
        self,
        nodes: int = 1,
        data_dir: Path | None = None,
        properties: Mapping[str, object] | None = None,
        acl: bool = False,
        proxied: bool = False,
    ):
        self._own_dir = data_dir is None
        self.data_dir = data_dir or Path(tempfile.mkdtemp(prefix="kafka-"))
        self.nodes = range(1, nodes + 1)
        # "c" in front, as an id that begins with "-" would be taken for an option.
        self.cluster_id = "c" + urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
        self._properties = dict(properties or {})
        self._acl = acl
        self._client_ports = {node: free_port() for node in self.nodes}
        self._controller_ports = {node: free_port() for node in self.nodes}
        # node -> (the proxy's port, that of the listener behind it)
        self.proxied = {node: (free_port(), free_port()) for node in self.nodes} if proxied else {}
        self._processes = {
            node: Process(
                java("kafka.Kafka", str(self._config(node))), self.data_dir / f"node-{node}.log"
            )
            for node in self.nodes
        }

    # -- life

    def start(self, timeout: float = 60) -> KafkaCluster:
        """Formats the folders at the first call, starts all nodes and waits until each answers."""
        fresh = [node for node in self.nodes if not self._folder(node).exists()]
        formats = [self._format(node) for node in fresh]
        for process in formats:
            assert process.wait(timeout) == 0, f"formatting failed:\n{process.tail()}"
        for node in self.nodes:
            self._processes[node].start()
        self.wait_ready(timeout)
        return self

    def stop(self) -> None:
        """Ends all nodes and deletes the folders. Nothing is waited for: the data goes anyway."""
        for process in self._processes.values():
            process.kill()
        if self._own_dir:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    def __enter__(self) -> KafkaCluster:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_ready(self, timeout: float = 60, brokers: int | None = None) -> None:
        """Waits until so many brokers (default: all) are in the cluster."""
        want = brokers or len(self.nodes)

        def ready() -> bool:
            for node, process in self._processes.items():
                if brokers is None and not process.running:
                    raise RuntimeError(f"node {node} ended:\n{process.tail()}")
            return len(self.admin.list_topics(timeout=2).brokers) >= want

        wait_for(ready, f"{want} Kafka brokers in {self.data_dir}", timeout)

    # -- faults: by node

    def kill(self, node: int = 1) -> None:
        self._processes[node].kill()

    def stop_node(self, node: int = 1) -> None:
        """Ends one node in order, so that it hands over what it leads."""
        self._processes[node].terminate(60)

    def start_node(self, node: int = 1) -> None:
        """Starts one node again on what it had; returns at once, see wait_ready."""
        self._processes[node].start()

    def pause(self, node: int = 1) -> None:
        self._processes[node].pause()

    def resume(self, node: int = 1) -> None:
        self._processes[node].resume()

    def revive(self, node: int = 1) -> None:
        """Brings it back, whether it was paused or killed."""
        self.resume(node) if self._processes[node].running else self.start_node(node)

    def pause_all(self) -> None:
        for node in self.nodes:
            self.pause(node)

    def resume_all(self) -> None:
        for node in self.nodes:
            self.resume(node)

    def kill_all(self) -> None:
        for node in self.nodes:
            self.kill(node)

    def start_all(self, timeout: float = 60) -> None:
        for node in self.nodes:
            if not self._processes[node].running:
                self.start_node(node)
        self.wait_ready(timeout)

    def log(self, node: int = 1, lines: int = 100) -> str:
        return self._processes[node].tail(lines)

    # -- topics and rights

    @property
    def bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self._client_ports.values())

    @property
    def admin(self) -> AdminClient:
        """A new one at each use; the tests' faults would otherwise make it back off."""
        settings = {"bootstrap.servers": self.bootstrap, "reconnect.backoff.max.ms": 200}
        return AdminClient({**settings, "log_level": 0})

    def create_topic(
        self,
        name: str,
        partitions: int = 3,
        replication: int | None = None,
        config: Mapping[str, object] | None = None,
    ) -> str:
        """Makes a topic (replication: 3, or as many as there are nodes) and returns its name."""
        factor = replication or min(3, len(self.nodes))
        settings = {key: str(value) for key, value in (config or {}).items()}
        topic = NewTopic(name, partitions, factor, config=settings)
        admin = self.admin
        _await(admin.create_topics([topic], request_timeout=30))

        def led() -> bool:
            parts = admin.list_topics(name, timeout=5).topics[name].partitions
            return len(parts) == partitions and all(part.leader >= 0 for part in parts.values())

        wait_for(led, f"topic {name}")
        return name

    def delete_topic(self, name: str) -> None:
        admin = self.admin
        _await(admin.delete_topics([name], request_timeout=30))
        wait_for(lambda: name not in admin.list_topics(timeout=5).topics, f"{name} to be gone")

    def alter_topic(self, name: str, config: Mapping[str, object]) -> None:
        """Sets some of the topic's settings, leaving the others."""
        changes = [
            ConfigEntry(key, str(value), incremental_operation=AlterConfigOpType.SET)
            for key, value in config.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=changes)
        admin = self.admin  # its calls end with it
        _await(admin.incremental_alter_configs([resource], request_timeout=30))

    def deny(self, topic: str, operations: Sequence[AclOperation] = (AclOperation.WRITE,)) -> None:
        """Forbids everybody these operations on the topic, and allows all others."""
        bindings = [_binding(topic, AclOperation.ALL, AclPermissionType.ALLOW)]
        bindings += [_binding(topic, each, AclPermissionType.DENY) for each in operations]
        admin = self.admin
        _await(admin.create_acls(bindings, request_timeout=30))

    def allow(self, topic: str) -> None:
        """Takes back all that deny() said of the topic."""
        every = AclBindingFilter(
            ResourceType.TOPIC,
            topic,
            ResourcePatternType.LITERAL,
            None,
            None,
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        admin = self.admin
        _await(admin.delete_acls([every], request_timeout=30))

    # -- files

    def _folder(self, node: int) -> Path:
        return self.data_dir / f"node-{node}"

    def _format(self, node: int) -> Process:
        config = self._config(node)
        config.write_text("".join(f"{k}={v}\n" for k, v in self._settings(node).items()))
        argv = java("kafka.tools.StorageTool", "format", "-t", self.cluster_id, "-c", str(config))
        process = Process(argv, self.data_dir / f"format-{node}.log")
        process.start()
        return process

    def _config(self, node: int) -> Path:
        return self.data_dir / f"node-{node}.properties"

    def _settings(self, node: int) -> dict[str, object]:
        count = len(self.nodes)
        copies = min(3, count)
        voters = ",".join(f"{n}@127.0.0.1:{port}" for n, port in self._controller_ports.items())
        client = f"CLIENT://127.0.0.1:{self._client_ports[node]}"
        settings: dict[str, object] = {
            "process.roles": "broker,controller",
            "node.id": node,
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "listeners": f"{client},CONTROLLER://127.0.0.1:{self._controller_ports[node]}",
            "advertised.listeners": client,
            "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "CLIENT",
            "log.dirs": self._folder(node),
            "auto.create.topics.enable": "false",
            "default.replication.factor": copies,
            "min.insync.replicas": max(1, copies - 1),
            "offsets.topic.replication.factor": copies,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": max(1, copies - 1),
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": max(1, copies - 1),
            "group.initial.rebalance.delay.ms": 0,
            # A killed node may come back, and another lead in its place, this long after.
            "broker.session.timeout.ms": 3000,
            "broker.heartbeat.interval.ms": 500,
            "log.cleaner.dedupe.buffer.size": 8 << 20,
            "controlled.shutdown.enable": str(count > 1).lower(),
        }
        if self._acl:
            settings |= self._acl_settings()
        if self.proxied:
            front, behind = self.proxied[node]
            settings["listeners"] = f"{settings['listeners']},PROXIED://127.0.0.1:{behind}"
            settings["advertised.listeners"] = f"{client},PROXIED://127.0.0.1:{front}"
            settings["listener.security.protocol.map"] = f"{settings['listener.security.protocol.map']},PROXIED:PLAINTEXT"
        return settings | self._properties

    def _acl_settings(self) -> dict[str, object]:
        # A controller may not ask another one for the rules before it knows them, unless it is a super user: so
        # controllers have a name and a password. Clients have none, and are ANONYMOUS.
        login = (
            "org.apache.kafka.common.security.plain.PlainLoginModule required"
            ' username="node" password="node" user_node="node";'
        )
        return {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
            "super.users": "User:node",
            "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:SASL_PLAINTEXT",
            "sasl.mechanism.controller.protocol": "PLAIN",
            "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.controller.plain.sasl.jaas.config": login,
        }


def _binding(topic: str, operation: AclOperation, permission: AclPermissionType) -> AclBinding:
    literal = ResourcePatternType.LITERAL
    return AclBinding(ResourceType.TOPIC, topic, literal, EVERYBODY, "*", operation, permission)


def _await(futures: Mapping[object, Future]) -> None:
    wait(futures.values(), timeout=60)
    for future in futures.values():
        future.result(timeout=0)
