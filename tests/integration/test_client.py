"""The publishing library against the real server and Kafka: results, order, exactly once, replicas."""

from __future__ import annotations

import random

import pytest

from client_program import CutProxy, acks
from harness.client import SOURCE
from harness.consumer import read_all
from harness.process import wait_for
from harness.verify import check_exactly_once, check_sequences


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


@pytest.mark.timeout(3600)
def test_order_and_exactly_once_through_kills_and_cuts(kafka, server, client, driver, scale):
    it = server(kafka)
    proxy = CutProxy(it.target)
    kills, cuts, events = scale(3, 50), scale(2, 20), scale(40_000, 1_000_000)
    load = driver(proxy.target, "load", threads=4, keys=scale(400, 4000), events=events, bad=500, timeout_ms=600_000)
    plan = ["kill"] * kills + ["cut"] * cuts
    random.shuffle(plan)
    for number, what in enumerate(plan):
        wait_for(lambda: load.answered() >= events * (number + 1) / (len(plan) + 2), "some load", 300)
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


def test_an_event_too_large_for_this_server_hurts_no_other(kafka, server, driver):
    it = server(kafka, {"limits": {"max_event_bytes": "4KiB", "max_message_bytes": "4KiB"}})
    one = driver(it.target)
    for number in range(5):
        one.say("k - create_user -", 'k - create_user {"a": "%s"}' % ("x" * (3900 + 200 * number)))
    results = one.wait()
    assert [result.status for result in results[::2]] == ["OK"] * 5
    assert [result.status for result in results[1::2]] == ["OK"] + ["INVALID"] * 4
    assert not any(result.maybe_stored for result in results)


def test_keys_stay_with_their_replica_and_move_when_it_dies(kafka, server, client, driver):
    """Two real servers. One is killed under load and stays away: its events move, and those that it may have stored
    are flagged."""
    one, two = server(kafka), server(kafka)
    load = driver(
        f"{one.target},{two.target}", "load", threads=4, keys=64, events=20_000, linger_ms=1, failover_ms=1000
    )
    wait_for(lambda: load.answered() > 4000, "some load")
    one.kill9()
    results = load.wait()
    assert {result.status for result in results} == {"OK"} and len(results) == 20_000
    stores = {}
    for result in results:
        stores.setdefault(result.key, []).append(result.store)
    assert len({store for each in stores.values() for store in each}) == 2
    two_is = client(two).status().store
    changes = {key: sum(a != b for a, b in zip(each, each[1:])) for key, each in stores.items()}
    moved_keys = {key for key, count in changes.items() if count}
    assert max(changes.values()) == 1 and all(stores[key][-1] == two_is for key in stores)
    assert 16 <= len(moved_keys) <= 48, "the keys are not spread"
    moved = [result for result in results if result.moved]
    assert len(moved) == load.stats()["moved"] and {result.key for result in moved} <= moved_keys
    assert moved and all(result.attempts > 1 for result in moved)
    check_sequences(acks([result for result in results if result.store == two_is]))
