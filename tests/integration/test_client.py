"""The publishing library against the real server: results, retries, order, replicas, and what goes wrong in between."""

from __future__ import annotations

import random
import time

import pytest

from client_program import CutProxy, Driver, acks
from harness.client import SOURCE
from harness.consumer import read_all
from harness.process import wait_for
from harness.verify import check_exactly_once, check_sequences


@pytest.fixture
def driver(tmp_path):
    """driver(target, what, option=value...): a started client_driver, which ends with the test."""
    made = []

    def make(target, what="publish", **options):
        made.append(Driver(tmp_path / f"driver-{len(made)}", target, what, **options).start())
        return made[-1]

    yield make
    for one in made:
        one.kill()


def drained(it, client, timeout=120):
    wait_for(lambda: sum(route.pending for route in client(it).status().routes) == 0, "the backlog to drain", timeout)


def test_results(kafka, server, client, driver):
    it = server(kafka)
    one = driver(it.target, ack="published")
    one.say('k a create_user {"name": "Ada", "n": 1.5, "deep": [{"x": null}, true]}', "k a create_user -")
    one.say("k b nothing_known -", "k c create_user {", "k - create_user -")
    stored, conflict, unknown, broken, made = one.wait()
    assert (stored.status, stored.route, stored.sequence, stored.attempts) == ("OK", "transactions", 1, 1)
    assert conflict.status == "CONFLICT" and not conflict.retry and "event.id" in conflict.reason
    assert unknown.status == "INVALID" and "event.transaction.operations[0].name" in unknown.reason
    assert not unknown.maybe_stored and not unknown.retry and unknown.attempts == 1
    assert broken.status == "INVALID" and "at byte" in broken.reason and broken.attempts == 0
    assert made.status == "OK" and len(made.id) == 36 and made.sequence == 2
    again = driver(it.target)
    again.say('k a create_user {"name": "Ada", "n": 1.5, "deep": [{"x": null}, true]}')
    assert again.wait()[0].duplicate
    records = read_all(kafka.bootstrap, it.transactions)
    assert [record.headers["ce_id"] for record in records] == [b"a", made.id.encode()]
    assert {record.headers["ce_source"] for record in records} == {SOURCE.encode()}


def test_order_and_exactly_once_through_kills_and_cuts(kafka, server, client, driver, scale):
    it = server(kafka)
    proxy = CutProxy(it.target)
    kills, cuts, events = scale(3, 50), scale(2, 20), scale(40_000, 1_000_000)
    load = driver(proxy.target, "load", threads=4, keys=scale(400, 4000), events=events, bad=500, timeout_ms=600_000)
    plan = ["kill"] * kills + ["cut"] * cuts
    random.shuffle(plan)
    for number, what in enumerate(plan):
        wait_for(lambda: len(load.results()) >= events * (number + 1) / (len(plan) + 2), "some load", 300)
        if what == "kill":
            it.restart()
        else:
            wait_for(proxy.cut, "a connection to cut")
    results = load.wait(scale(100, 3000))
    proxy.close()
    print(f"{kills} kills, {proxy.cuts} connections cut, {load.stats()}")
    refused = [result for result in results if result.status != "OK"]
    assert len(results) - len(refused) == events
    assert {(result.status, result.key.startswith("bad")) for result in refused} == {("INVALID", True)}
    assert not any(result.moved for result in results)
    assert load.stats()["retried"] > 0 and any(result.duplicate for result in results)
    drained(it, client, 600)
    records = read_all(kafka.bootstrap, it.transactions, timeout=300)
    assert check_exactly_once(acks(results), records) == events
    check_sequences(acks(results))
