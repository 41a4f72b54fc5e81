"""Dead letters from poison to the end: list, show, replay exactly once, purge, ledger, budget, kills."""

from __future__ import annotations

import http.client
import os
import random
import threading
import time
from collections import Counter

import grpc
import pytest

from harness.client import (
    PUBLISHED,
    admin_service_pb2 as admin,
    details,
    informative,
    operation,
    transaction,
    violations,
)
from harness.consumer import read_all
from harness.process import wait_for
from harness.tools import grpcurl

SERVICE = "ingest.v1.AdminService/"
NOWHERE = "127.0.0.1:1"
SMALL = 20000  # max.message.bytes of a topic that refuses poison()
ROUTE = "transactions"


def poison(id, key="k", size=40000):
    """Too large for SMALL, and cannot be compressed."""
    return transaction(operation("create_user", "e", os.urandom(size)), id=id, key=key)


def settled(it, client, dead=None, timeout=120):
    def done():
        route = client(it).route(ROUTE)
        return route.position == route.last_sequence and (dead is None or route.dead == dead)

    wait_for(done, "the route to settle", timeout)
    return client(it).route(ROUTE)


def check_identity(metrics, route=ROUTE):
    def value(name):
        return metrics[f'{name}{{route="{route}"}}']

    parts = [value(f"ingest_events_{name}") for name in ("published_total", "pending", "dead", "purged_total", "lost_total")]
    assert value("ingest_events_accepted_total") == sum(parts), parts


def ids_of(kafka, it, until=None):
    return [record.headers["ce_id"].decode() for record in read_all(kafka.bootstrap, it.transactions, until=until)]


def refusing(kafka, server, config=None):
    """A server whose topic for transactions has got too small for poison() since it was made."""
    it = server(kafka, config, start=False)
    kafka.create_topic(it.transactions)
    it.start()
    kafka.alter_topic(it.transactions, {"max.message.bytes": SMALL})
    return it


def replay(client, it, sequences=(), all=False):
    request = admin.ReplayDeadLettersRequest(route=ROUTE, sequences=sequences, all=all)
    return client(it).admin.ReplayDeadLetters(request, timeout=30)


def purge(client, it, sequences=(), all=False):
    request = admin.PurgeDeadLettersRequest(route=ROUTE, sequences=sequences, all=all)
    return client(it).admin.PurgeDeadLetters(request, timeout=30)


def pages(client, it, size, route=""):
    token = ""
    while True:
        request = admin.ListDeadLettersRequest(route=route, page_size=size, page_token=token)
        page = client(it).admin.ListDeadLetters(request, timeout=30)
        yield list(page.dead_letters)
        token = page.next_page_token
        if not token:
            return


def test_from_poison_to_kafka_with_grpcurl_alone(kafka, server, client):
    it = refusing(kafka, server)
    events = [transaction("create_user", id=f"good-{n}", key="k") for n in range(40)]
    events[20:20] = [poison("bad-0"), poison("bad-1")]
    client(it).stream(events)
    route = settled(it, client, dead=2)
    assert (route.accepted, route.published) == (42, 40)

    listed = grpcurl(it.target, SERVICE + "ListDeadLetters", {"route": ROUTE})["deadLetters"]
    assert [(letter["id"], letter["sequence"]) for letter in listed] == [("bad-0", "21"), ("bad-1", "22")]
    assert all(letter["error"] == "MSG_SIZE_TOO_LARGE" and letter["errorCode"] == 10 for letter in listed)
    assert all("too large" in letter["reason"].lower() and letter["type"] == "create_user" for letter in listed)
    assert all(letter["firstAttemptAt"] <= letter["lastAttemptAt"] for letter in listed)
    shown = grpcurl(it.target, SERVICE + "GetDeadLetter", {"route": ROUTE, "sequence": 21})
    assert shown["event"]["id"] == "bad-0" and shown["deadLetter"] == listed[0]
    whole = client(it).admin.GetDeadLetter(admin.GetDeadLetterRequest(route=ROUTE, sequence=21)).event
    assert whole.transaction == events[20].transaction and whole.key == "k"
    assert client(it).state("bad-0") == "DEAD" and client(it).event_status("bad-0").reason

    # Replayed too early it dies again, as the same event.
    again = grpcurl(it.target, SERVICE + "ReplayDeadLetters", {"route": ROUTE, "sequences": [22]})
    assert again == {"replayed": 1, "remaining": "1", "results": [{"sequence": "22", "newSequence": "43"}]}
    assert settled(it, client, dead=2).accepted == 42

    kafka.alter_topic(it.transactions, {"max.message.bytes": 1 << 20})
    answer = grpcurl(it.target, SERVICE + "ReplayDeadLetters", {"route": ROUTE, "all": True})
    assert answer["replayed"] == 2 and [result["newSequence"] for result in answer["results"]] == ["44", "45"]
    route = settled(it, client, dead=0)
    assert (route.accepted, route.published, route.last_sequence) == (42, 42, 45)
    assert Counter(ids_of(kafka, it, until=42)) == Counter(event.id for event in events)
    assert client(it).state("bad-0") == "PUBLISHED"
    assert grpcurl(it.target, SERVICE + "ListDeadLetters") == {}
    check_identity(it.metrics())
    lines = [line for line in it.log(400).splitlines() if "dead letters replayed" in line]
    assert len(lines) == 2 and "sequences=21,43" in lines[1] and "count=2" in lines[1]


def test_a_replay_moves_nothing_twice_and_keeps_the_id(kafka, server, client):
    it = refusing(kafka, server)
    bad = poison("bad")
    client(it).publish(bad)
    settled(it, client, dead=1)
    kafka.alter_topic(it.transactions, {"max.message.bytes": 1 << 20})
    assert replay(client, it, [1]).results[0].new_sequence == 2
    [lost_answer] = replay(client, it, [1]).results
    assert lost_answer.error.code == grpc.StatusCode.NOT_FOUND.value[0]
    assert list(violations(lost_answer.error)) == ["sequences[0]"]
    retry = client(it).publish(bad, PUBLISHED)  # waits for the replay
    assert (retry.duplicate, retry.sequence) == (True, 2)
    assert client(it).event_status("bad").sequence == 2
    assert ids_of(kafka, it) == ["bad"]


def test_a_purged_event_is_not_sent_by_a_retry(kafka, server, client):
    it = refusing(kafka, server)
    bad = poison("bad")
    client(it).publish(bad)
    settled(it, client, dead=1)
    before = purge(client, it, [1, 2])
    assert (before.purged, before.refused, before.remaining) == (1, 1, 0)
    assert client(it).state("bad") == "PURGED"
    for _ in range(2):
        assert client(it).publish(bad).duplicate
        with pytest.raises(grpc.RpcError) as refusal:
            client(it).publish(bad, PUBLISHED)
        assert refusal.value.code() == grpc.StatusCode.FAILED_PRECONDITION and "purged" in refusal.value.details()
        it.restart()
    route = client(it).route(ROUTE)
    assert (route.accepted, route.purged, route.dead, route.pending) == (1, 1, 0, 0)
    assert it.metrics()[f'ingest_events_purged_total{{route="{ROUTE}"}}'] == 1
    check_identity(it.metrics())


def test_a_retry_of_a_dead_event_after_a_restart_is_told_so(kafka, server, client):
    """Before Kafka has said where the route stands, and when it has."""
    it = refusing(kafka, server)
    bad = poison("bad")
    client(it).publish(bad)
    settled(it, client, dead=1)
    for _ in range(3):
        it.restart()
        with pytest.raises(grpc.RpcError) as refusal:
            client(it).publish(bad, PUBLISHED)
        assert refusal.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert "too large" in refusal.value.details().lower()


def test_lists_page_by_page(kafka, server, client):
    config = {"routes": {"informative": {}}}
    it = refusing(kafka, server, config)
    kafka.alter_topic(it.informative, {"max.message.bytes": SMALL})
    client(it).stream([poison(f"bad-{n}") for n in range(7)])
    client(it).stream([informative("generate_otp", id=f"i-{n}", data=os.urandom(40000)) for n in range(3)])
    settled(it, client, dead=7)
    wait_for(lambda: client(it).route("informative").dead == 3, "the other route to settle", 60)
    got = list(pages(client, it, 2))
    assert [len(page) for page in got] == [2, 2, 2, 2, 2]
    letters = [(letter.route, letter.sequence) for page in got for letter in page]
    assert letters == [(ROUTE, n) for n in range(1, 8)] + [("informative", n) for n in range(1, 4)]
    assert [len(page) for page in pages(client, it, 3, "informative")] == [3]
    assert [len(page) for page in pages(client, it, 0, ROUTE)] == [7]
    purge(client, it, [1, 2, 4])
    assert [letter.sequence for page in pages(client, it, 3, ROUTE) for letter in page] == [3, 5, 6, 7]


def test_bad_requests_are_told_precisely(kafka, server, client):
    it = server(kafka)
    stub = client(it).admin
    cases = [
        (stub.ListDeadLetters, admin.ListDeadLettersRequest(route="no"), "NOT_FOUND", "route"),
        (stub.ListDeadLetters, admin.ListDeadLettersRequest(page_token="x"), "INVALID_ARGUMENT", "page_token"),
        (stub.ListDeadLetters, admin.ListDeadLettersRequest(page_token=f"{ROUTE}:1x"), "INVALID_ARGUMENT", "page_token"),
        (stub.ListDeadLetters, admin.ListDeadLettersRequest(route="informative", page_token=f"{ROUTE}:1"),
         "INVALID_ARGUMENT", "page_token"),
        (stub.GetDeadLetter, admin.GetDeadLetterRequest(sequence=1), "INVALID_ARGUMENT", "route"),
        (stub.GetDeadLetter, admin.GetDeadLetterRequest(route=ROUTE, sequence=1), "NOT_FOUND", "sequence"),
        (stub.ReplayDeadLetters, admin.ReplayDeadLettersRequest(route=ROUTE), "INVALID_ARGUMENT", "sequences"),
        (stub.ReplayDeadLetters, admin.ReplayDeadLettersRequest(all=True), "INVALID_ARGUMENT", "route"),
        (stub.PurgeDeadLetters, admin.PurgeDeadLettersRequest(route=ROUTE), "INVALID_ARGUMENT", "sequences"),
        (stub.PurgeDeadLetters, admin.PurgeDeadLettersRequest(route=ROUTE, sequences=[1], all=True),
         "INVALID_ARGUMENT", "all"),
        (stub.PurgeDeadLetters, admin.PurgeDeadLettersRequest(route=ROUTE, sequences=range(1, 1002)),
         "INVALID_ARGUMENT", "sequences"),
    ]
    for method, request, code, field in cases:
        with pytest.raises(grpc.RpcError) as refusal:
            method(request, timeout=10)
        assert (refusal.value.code().name, list(violations(refusal.value))) == (code, [field]), request
        assert details(refusal.value)


def test_a_full_budget_makes_the_route_wait_and_a_purge_lets_it_go_on(kafka, server, client):
    it = refusing(kafka, server, {"storage": {"dead_budget": "1MiB"}})
    bad = [poison(f"bad-{n}", size=300_000) for n in range(4)]  # three fit
    good = [transaction("create_user", id=f"good-{n}", key="k") for n in range(20)]
    client(it).stream([*bad, *good])

    def blocked():
        return it.metrics()[f'ingest_route_blocked{{route="{ROUTE}"}}'] == 1

    wait_for(blocked, "the route to wait", 60)
    route = client(it).route(ROUTE)
    assert (route.dead, route.pending, route.published) == (3, 21, 0) and "budget" in route.last_error
    client(it).publish(transaction("create_user", id="late", key="k"))  # nothing is refused meanwhile
    client(it).publish(informative("generate_otp", id="other"), PUBLISHED)
    check_identity(it.metrics())
    assert purge(client, it, [1]).purged == 1
    route = settled(it, client, dead=3)
    assert (route.accepted, route.published, route.purged) == (25, 21, 1)
    assert ids_of(kafka, it, until=21) == [event.id for event in good] + ["late"]


@pytest.mark.parametrize("poisons, most", [(1, 40), (10, 80), (100, 300)])
def test_poisons_that_come_together_are_found_in_few_transactions(kafka, server, client, poisons, most):
    """`most` bounds the transactions, the first position and those at the start of the backlog included."""
    it = server(NOWHERE, start=False)
    kafka.create_topic(it.transactions, config={"max.message.bytes": SMALL})
    it.start()
    total = 10_000
    chance = random.Random(poisons)
    places = sorted(chance.sample(range(total), poisons))
    events = [transaction("create_user", id=f"e-{n}", key=f"k-{n % 50}") for n in range(total)]
    for place in places:
        events[place] = poison(f"bad-{place}", size=chance.randrange(30000, 60000))
    client(it).stream(events)
    it.terminate()
    it.config["kafka"]["brokers"] = kafka.bootstrap
    it.start()
    start = time.monotonic()
    route = settled(it, client, dead=poisons, timeout=300)
    took = time.monotonic() - start
    assert route.published == total - poisons
    metrics = it.metrics()
    committed = metrics[f'ingest_transaction_duration_seconds_count{{route="{ROUTE}"}}']
    refused = metrics.total("ingest_producer_restarts_total", route=ROUTE)
    print(f"{poisons} poisons in {total}: {committed:g} committed, {refused:g} refused, {took:.1f} s")
    assert committed + refused <= most
    records = ids_of(kafka, it, until=total - poisons)
    assert Counter(records) == Counter(f"e-{n}" for n in set(range(total)) - set(places))


def test_a_topic_that_takes_no_large_batches_condemns_nobody_and_is_not_slow(kafka, server, client):
    it = server(kafka, start=False)
    kafka.create_topic(it.transactions, config={"max.message.bytes": 2000})
    it.start()
    client(it).stream([transaction("create_user", id=f"e-{n}", key="k", data=os.urandom(600)) for n in range(5000)])
    start = time.monotonic()
    route = settled(it, client, dead=0)
    refused = it.metrics().total("ingest_producer_restarts_total", route=ROUTE)
    print(f"5000 events: {refused:g} transactions refused, {time.monotonic() - start:.1f} s")
    assert route.published == 5000 and refused < 50


def test_kills_around_replays_double_and_lose_nothing(kafka, server, client, scale):
    """Poison dies, is replayed and dies again while the server is killed; in the end all is replayed for good."""
    it = refusing(kafka, server)
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    bad = [poison(f"bad-{n}", size=30000) for n in range(30)]
    client(it).stream(bad)
    ended = threading.Event()
    moved: Counter[int] = Counter()
    broken: list[AssertionError] = []

    def operate():
        while not ended.is_set():
            try:
                moved.update(result.sequence for result in replay(client, it, all=True).results if result.new_sequence)
                metrics = it.metrics()
            except (grpc.RpcError, OSError, http.client.HTTPException):
                continue  # killed
            try:
                check_identity(metrics)
            except AssertionError as error:
                broken.append(error)
            time.sleep(chance.uniform(0, 0.1))

    operator = threading.Thread(target=operate)
    operator.start()
    for kill in range(scale(5, 50)):
        wait_for(lambda: moved.total() > kill, "another replay", 60)
        time.sleep(chance.uniform(0, 0.3))
        it.kill9()
        it.start()
    ended.set()
    operator.join()
    assert not broken, broken
    kafka.alter_topic(it.transactions, {"max.message.bytes": 1 << 20})

    def gone():
        replay(client, it, all=True)
        route = client(it).route(ROUTE)
        return (route.pending, route.dead) == (0, 0)

    wait_for(gone, "all to be replayed", 120)
    route = client(it).route(ROUTE)
    assert (route.accepted, route.published) == (30, 30) and route.last_sequence >= 30 + moved.total()
    assert max(moved.values()) == 1  # no letter left twice
    assert Counter(ids_of(kafka, it, until=30)) == Counter(event.id for event in bad)
