"""C: three Kafka nodes that are killed and paused, a server that is killed, and a server that wakes up as a zombie.

Full: 150 kills of the server, 20 of brokers (killed, or paused for longer than the cluster waits), 30 zombies; 500,000
events and 50,000 groups. Callers reach the server by a gate, as they reach a service, for it moves: a zombie is a server
that stops in the middle (SIGSTOP) while its volume is taken over, and goes on when its successor publishes. It has to
see that it is one, publish nothing, go on accepting, and name the way out. On the volume itself no second one may start.
Afterwards all of it is read twice, by librdkafka and by Kafka's own console consumer.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import ExitStack

from harness import java_consumer
from harness.client import IngestClient, RouteStatus, admin_service_pb2, informative, transaction
from harness.gate import Gate
from harness.kafka import KafkaCluster
from harness.load_worker import SPLIT
from harness.process import wait_for
from harness.server import Ingestd

from .service import Callers, drain, records, server, verify
from .stage import Summary, Torture, Violation

LETTER = "C"
TITLE = "three Kafka nodes: servers and brokers killed and paused, zombies"
SHORT = 0.02
MUTANTS = ["contradiction-ignored"]

SERVER_KILLS, BROKER_FAULTS, ZOMBIES = 150, 20, 30
EVENTS = 500_000
HALTED = admin_service_pb2.PUBLISHER_STATE_HALTED
RATE = 1500
PAUSE_S = (0.05, 1.0)  # between two deeds


class World:
    def __init__(self, it: Torture, kafka: KafkaCluster):
        self.it, self.kafka = it, kafka
        self.born = 0
        self.server = self._server()
        self.server.start()
        self.gate = Gate(self.server.target)
        self.away: int | None = None  # the broker that is
        self.zombie_count = 0

    def stop(self) -> None:
        self.server.stop()

    def _server(self) -> Ingestd:
        self.born += 1
        return server(self.it, f"server-{self.born}", self.kafka.bootstrap)

    # -- what befalls it

    def server_kills(self) -> None:
        self.server.kill9()
        if self.it.random.random() < 0.2:
            time.sleep(self.it.random.uniform(0, 1))
        self.server.start()

    def broker_faults(self) -> None:
        """One broker goes; whatever is next befalls the other two and the server, then it comes back."""
        self.bring_back()
        self.away = self.it.random.choice(list(self.kafka.nodes))
        self.it.random.choice([self.kafka.kill, self.kafka.pause])(self.away)
        time.sleep(self.it.random.uniform(0.2, 5))

    def bring_back(self) -> None:
        if self.away:
            self.kafka.revive(self.away)
            self.kafka.wait_ready()
        self.away = None

    def zombies(self) -> None:
        self.zombie_count += 1
        self.second_on_the_volume() if self.zombie_count % 4 == 0 else self.taken_over()

    def second_on_the_volume(self) -> None:
        """While it sleeps another one is started on its volume, and must not."""
        self.server.pause()
        again = subprocess.run(self.server.process.argv, capture_output=True, text=True, timeout=30)
        said = again.stdout + again.stderr
        if again.returncode <= 0 or "in use by another process" not in said:
            raise Violation(f"a second server on the same volume ended with {again.returncode}:\n{said}")
        time.sleep(self.it.random.uniform(0, 4))
        self.server.resume()

    def taken_over(self) -> None:
        zombie, heir = self.server, self._server()
        zombie.pause()
        shutil.copytree(zombie.data_dir, heir.data_dir)
        self.server = heir.start()
        self.gate.switch(heir.target)
        wait_until_all_publish(heir)
        zombie.resume()
        try:
            expect_halted(zombie)
        finally:
            zombie.stop()
        shutil.rmtree(zombie.folder)


def wait_until_all_publish(heir: Ingestd) -> None:
    """Until each route has published an event that the heir has accepted itself."""
    with IngestClient(heir.target) as client:
        inherited = {route.route: route.last_sequence for route in client.status().routes}

        def all_do() -> bool:
            return all(route.position > inherited[route.route] for route in client.status().routes)

        wait_for(all_do, "the heir to publish on every route", 90)


def expect_halted(zombie: Ingestd) -> None:
    """It accepts on every route (what only it has, and nobody was told), publishes nothing, and says why."""
    kinds = [transaction("create_user"), transaction(*SPLIT), informative("generate_otp")]

    with IngestClient(zombie.target) as client:
        wait_for(lambda: client.status(timeout=5), "the zombie to answer", 20)
        before = {route.route: route.position for route in client.status().routes}

        def halted() -> bool:
            routes = client.status().routes
            return any(published(route) for route in routes) or all(route.state == HALTED for route in routes)

        def published(route: RouteStatus) -> bool:
            return route.position > before[route.route]

        for event in kinds:
            client.publish(event)
        try:
            wait_for(halted, "the zombie to see that it is one", 60)
        except AssertionError as error:
            raise Violation(f"{error}\n{zombie.log()}") from error
        for event in kinds:
            event.id += "-later"
            client.publish(event)
        for route in client.status().routes:
            if published(route):
                raise Violation(f"the zombie's position of {route.route} went from {before[route.route]} to {route.position}")
            if "rolled back or cloned" not in route.last_error or "restore" not in route.last_error:
                raise Violation(f"{route.route} does not name the way out: {route.last_error}")


def deeds(it: Torture) -> list[str]:
    """What happens, in what order."""
    counts = {"server_kills": SERVER_KILLS, "broker_faults": BROKER_FAULTS, "zombies": ZOMBIES}
    drawn = [name for name, count in counts.items() for _ in range(it.full(count))]
    it.random.shuffle(drawn)
    return drawn


def run(it: Torture) -> Summary:
    todo = deeds(it)
    with ExitStack() as stack:
        kafka = stack.enter_context(KafkaCluster(nodes=3))
        world = World(it, kafka)
        stack.callback(world.stop)
        stack.enter_context(world.gate)
        callers = stack.enter_context(Callers(it, world.gate.target, RATE))
        callers.reach(1000, timeout=60)  # a zombie has a past
        for number, deed in enumerate(todo, 1):
            time.sleep(it.random.uniform(*PAUSE_S))
            getattr(world, deed)()
            it.progress(number, len(todo), f"{deed}, {callers.count()} acknowledged")
        world.bring_back()
        callers.reach(it.full(EVENTS), timeout=600 * it.scale + 60)
        callers.finish()
        routes = drain(world.server)
        summary = verify(callers, routes, records(kafka))
        by_java = verify(callers, routes, java_consumer.each_record(kafka, "ingest[.](?!positions).*"))
    if by_java.events != summary.events:
        raise Violation(f"librdkafka reads {summary.events} events, Kafka's consumer {by_java.events}")
    summary.cycles = summary.faults = len(todo)
    summary.notes = {deed: todo.count(deed) for deed in sorted(set(todo))} | {"volumes_moved": world.born - 1}
    return summary
