"""G: a network between the server and three Kafka nodes that is cut, slow, one-sided, and late.

Full: 200 faults. The worst is an EndTxn that comes late: the proxy keeps it, the client loses its connection and sends it
again, Kafka answers that one; the first arrives in the middle of a later transaction. It must find that transaction
under another epoch, whether it was a commit or an abort.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import ExitStack

from harness.client import IngestClient
from harness.kafka import KafkaCluster
from harness.kafka_proxy import Api, KafkaProxy, Rule
from harness.process import wait_for
from harness.server import Ingestd

from .service import Callers, drain, records, server, verify
from .stage import Summary, Torture, Violation

LETTER = "G"
TITLE = "a network that is cut, slow, one-sided and late"
SHORT = 0.05
MUTANTS = ["producer-kept-after-doubt", "doubt-believed"]

FAULTS = 200
RATE = 1000
POSITIONS = "ingest.positions"
# Small batches, so that a transaction has many requests to come late among; answers are not waited for too long.
PROPERTIES = {"batch.num.messages": "20", "socket.timeout.ms": "2000"}
LOSABLE = [Api.PRODUCE, Api.FETCH, Api.LIST_OFFSETS, Api.INIT_PRODUCER_ID, Api.ADD_PARTITIONS_TO_TXN, Api.END_TXN]


class Hostile:
    """One fault after the other; each method is one, and waits until it has had its effect."""

    def __init__(self, random: random.Random, kafka: KafkaCluster, network: KafkaProxy, victim: Ingestd):
        self.random, self.kafka, self.network, self.victim = random, kafka, network, victim
        self.did: Counter[str] = Counter()
        self._client = IngestClient(victim.target)

    def late_commit(self) -> None:
        self._come_late(self.network.rule("steal", Api.END_TXN, times=1, where=lambda message: message.commits), 0.9)

    def late_abort(self) -> None:
        """The position may not be written for a while, so that transactions are aborted that have events already."""
        stolen = self.network.rule("steal", Api.END_TXN, times=1, where=lambda message: not message.commits)
        self.kafka.deny(POSITIONS)
        stolen.hit.wait(60)
        self.kafka.allow(POSITIONS)
        self._come_late(stolen, 0.2)

    def partition(self) -> None:
        self.network.partition(self._some_brokers())
        self._sleep(0.2, 6)
        self.network.heal()

    def half_open(self) -> None:
        self.did["connections"] += self.network.half_open(self._some_brokers())

    def reset(self) -> None:
        for _ in range(self.random.randint(1, 5)):
            self.did["connections"] += self.network.reset(self._some_brokers())
            self._sleep(0, 0.3)

    def delay(self) -> None:
        rule = self.network.rule("delay", *self._apis(), answers=self.random.random() < 0.5, seconds=self.random.uniform(0.01, 0.7))
        self._sleep(0.5, 2)
        self.network.remove(rule)
        self.did["messages"] += rule.hits

    def lost(self) -> None:
        """Requests or answers vanish, with their connection or without."""
        do = self.random.choice(["drop", "cut"])
        rule = self.network.rule(do, *self._apis(), answers=self.random.random() < 0.7, times=self.random.randint(1, 3))
        self._sleep(0.5, 2)
        self.network.remove(rule)
        self.did["messages"] += rule.hits

    def run(self, name: str) -> None:
        getattr(self, name)()
        self.did[name] += 1

    def progress(self) -> None:
        """The routes publish again."""
        before = {route.route: route.position for route in self._client.status().routes}

        def all_do() -> bool:
            return all(route.position > before[route.route] for route in self._client.status().routes)

        try:
            wait_for(all_do, "every route to publish", 120)
        except AssertionError as error:
            raise Violation(f"{error}\n{self.victim.log()}") from error

    def _come_late(self, stolen: Rule, among_events: float) -> None:
        """Among the events of a transaction, which hurts most by a commit, or between them and the position, by an abort."""
        api = Api.PRODUCE if self.random.random() < among_events else Api.ADD_PARTITIONS_TO_TXN
        number = self.random.randint(1, 4) if api == Api.PRODUCE else 2
        try:
            if not stolen.hit.wait(60):
                raise Violation("no EndTxn came by")
            if self.network.ambush(stolen, api, number, timeout=60):
                self.did["came_late"] += 1
        finally:
            self.network.remove(stolen)

    def _some_brokers(self) -> list[int]:
        return self.random.sample(self.kafka.nodes, self.random.randint(1, len(self.kafka.nodes)))

    def _apis(self) -> list[Api]:
        return self.random.sample(LOSABLE, self.random.randint(1, 3))

    def _sleep(self, least: float, most: float) -> None:
        time.sleep(self.random.uniform(least, most))


def faults(it: Torture) -> list[str]:
    """Decks of all kinds, each shuffled, so that a short run has them all."""
    deck = ["late_commit"] * 4 + ["late_abort", "partition", "half_open", "reset", "delay", "lost"]
    drawn: list[str] = []
    while len(drawn) < it.full(FAULTS):
        drawn += it.random.sample(deck, len(deck))
    return drawn[: it.full(FAULTS)]


def run(it: Torture) -> Summary:
    todo = faults(it)
    with ExitStack() as stack:
        kafka = stack.enter_context(KafkaCluster(nodes=3, proxied=True, acl=True))
        network = stack.enter_context(KafkaProxy(kafka.proxied))
        victim = server(it, "server", network.bootstrap, properties=PROPERTIES)
        stack.callback(victim.stop)
        victim.start()
        callers = stack.enter_context(Callers(it, victim.target, RATE))
        hostile = Hostile(it.random, kafka, network, victim)
        for number, fault in enumerate(todo, 1):
            hostile.progress()
            hostile.run(fault)
            it.progress(number, len(todo), f"{fault}, {callers.count()} acknowledged")
        callers.finish()
        routes = drain(victim)
        summary = verify(callers, routes, records(kafka))
    if not it.mutant and hostile.did["came_late"] * 2 < hostile.did["late_commit"] + hostile.did["late_abort"]:
        raise Violation(f"most of what should have come late did not: {hostile.did}")
    summary.cycles = summary.faults = len(todo)
    summary.notes = dict(hostile.did)
    return summary
