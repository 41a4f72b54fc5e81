"""B: kill -9 of the whole server under load, over and over; one kill in five hits it while it recovers from the last.

Full: 300 kills and 1,000,000 acknowledgements. Kafka runs on, so that what it holds at the end is the server's doing.
"""

from __future__ import annotations

import time

from harness.kafka import KafkaCluster
from harness.server import Ingestd

from .service import Callers, drain, records, server, verify
from .stage import Summary, Torture

LETTER = "B"
TITLE = "kill -9 of the whole server under load, and while it recovers"
SHORT = 0.02
MUTANTS = ["ids-unchecked"]

KILLS, ACKS = 300, 1_000_000
RATE = 6000
RUN_S = (0.05, 2.5)  # how long it lives between two kills


def kill(it: Torture, victim: Ingestd, recovering: bool, boot_s: float) -> float:
    """Kills it; then, perhaps, again at a moment between exec and serving. Starts it, and tells how long that took."""
    victim.kill9()
    if recovering:
        victim.process.start()
        time.sleep(it.random.uniform(0, boot_s))
        victim.kill9()
    began = time.monotonic()
    victim.start()
    return time.monotonic() - began


def run(it: Torture) -> Summary:
    kills, acks = it.full(KILLS), it.full(ACKS)
    with KafkaCluster() as kafka:
        victim = server(it, "server", kafka.bootstrap)
        began = time.monotonic()
        victim.start()
        boot_s = longest_s = time.monotonic() - began
        try:
            with Callers(it, victim.target, RATE) as callers:
                done = recoveries = 0
                while done < kills:
                    time.sleep(it.random.uniform(*RUN_S))
                    recovering = done % 5 == 3
                    boot_s = kill(it, victim, recovering, boot_s)
                    longest_s = max(longest_s, boot_s)
                    done += 1 + recovering
                    recoveries += recovering
                    it.progress(done, kills, f"kills, {callers.count()} acknowledged")
                callers.reach(acks, timeout=600 * it.scale + 60)
                callers.finish()
                routes = drain(victim)
                summary = verify(callers, routes, records(kafka))
        finally:
            victim.stop()
    summary.cycles = summary.faults = done
    summary.notes = {"during_recovery": recoveries, "longest_start_s": round(longest_s, 1)}
    return summary
