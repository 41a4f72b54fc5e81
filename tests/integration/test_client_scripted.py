"""The publishing library against a server as the test wants it: refusals, silence, rubbish, streams that break, health,
addresses, TLS. The library is built with the address sanitizer: each test also finds leaks."""

from __future__ import annotations

import functools
import json
import random
import socket
import time

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from grpc import StatusCode

from harness.client import ingest_service_pb2
from harness.process import wait_for
from harness.tools import run
from scripted_server import End, ok, refusal


@pytest.fixture
def driver(driver):
    return functools.partial(driver, build="asan")


def one_event(driver, target, **options):
    it = driver(target, **{"timeout_ms": 3000, **options})
    it.say("k a create_user -")
    started = time.monotonic()
    [result] = it.wait()
    return result, time.monotonic() - started


CODES = [
    (StatusCode.INVALID_ARGUMENT, "", "INVALID", False),
    (StatusCode.ALREADY_EXISTS, "", "CONFLICT", False),
    (StatusCode.PERMISSION_DENIED, "", "DENIED", False),
    (StatusCode.UNAUTHENTICATED, "", "DENIED", False),
    (StatusCode.FAILED_PRECONDITION, "DEAD_LETTER", "DEAD", True),
    (StatusCode.UNIMPLEMENTED, "", "UNSUPPORTED", False),
    (StatusCode.INTERNAL, "", "FAILED", True),
    (StatusCode.DATA_LOSS, "", "FAILED", True),
]


@pytest.mark.parametrize("code, reason, status, maybe_stored", CODES, ids=lambda value: getattr(value, "name", ""))
def test_what_is_never_retried(scripted, driver, code, reason, status, maybe_stored):
    it = scripted(lambda event: refusal(code, "said the script", reason=reason))
    result, _ = one_event(driver, it.target)
    assert (result.status, result.maybe_stored, result.retry) == (status, maybe_stored, False)
    assert result.reason == "said the script" and result.attempts == 1 and len(it.events) == 1


def test_a_refusal_is_retried_when_the_server_says_and_nothing_overtakes(scripted, driver):
    refused = {}

    def answer(event):
        if refused.get(event.id, 0) == 0:
            return ok(event)
        refused[event.id] -= 1
        return refusal(StatusCode.RESOURCE_EXHAUSTED, "full", retry_ms=400)

    it = scripted(answer)
    load = driver(it.target, "load", events=50, keys=2, prefix="x")
    load.wait()
    assert len(it.events) == 50
    it.events.clear(), it.at.clear()
    refused["x0.0-3"] = 2
    load = driver(it.target, "load", events=50, keys=2, prefix="x")
    results = {result.id: result for result in load.wait()}
    assert results["x0.0-3"].attempts == 3 and results["x0.0-4"].attempts == 1
    order = [event.id for event in it.events if event.key == "x0.0"]
    assert order == [f"x0.0-{n}" for n in (1, 2, 3, 3, 3, *range(4, 26))]
    times = [at for event, at in zip(it.events, it.at) if event.id == "x0.0-3"]
    assert all(0.4 <= later - sooner < 1.5 for sooner, later in zip(times, times[1:])), times
    others = [at for event, at in zip(it.events, it.at) if event.key == "x0.1"]
    assert max(others) < times[1], "the other key had to wait"


def test_no_time_left_for_another_attempt(scripted, driver):
    it = scripted(lambda event: refusal(StatusCode.RESOURCE_EXHAUSTED, "full", retry_ms=10_000))
    result, took = one_event(driver, it.target)
    assert result.status == "TIMEOUT" and result.retry and not result.maybe_stored and took < 2
    assert "full" in result.reason and "no time left" in result.reason


def test_a_server_that_never_answers(scripted, driver):
    it = scripted(lambda event: None)
    result, _ = one_event(driver, it.target, timeout_ms=1000)
    assert (result.status, result.maybe_stored, result.retry) == ("TIMEOUT", True, True)
    assert "did not answer" in result.reason and len(it.events) == 1


def test_a_silent_stream_is_given_up_unless_kafka_may_be_away(scripted, driver):
    servers = {ack: scripted(lambda event: None) for ack in ("persisted", "published")}
    drivers = [driver(it.target, ack=ack, timeout_ms=10_500) for ack, it in servers.items()]
    for one in drivers:
        one.say("k a create_user -")
    wait_for(lambda: all(one.results() for one in drivers), "the time-outs", 20)
    wait_for(lambda: servers["persisted"].streams == 2, "another stream")
    assert servers["published"].streams == 1


def test_closing_with_events_under_way(scripted, driver):
    it = scripted(lambda event: None if event.id.endswith("-3") else ok(event))
    load = driver(it.target, "load", events=30, keys=3, window=100, close_ms=300)
    results = {result.id: result for result in load.wait(10)}
    assert len(results) == 30
    kinds = {(result.status, result.maybe_stored, result.attempts) for result in results.values()}
    assert kinds == {("OK", False, 1), ("CLOSED", True, 1), ("CLOSED", False, 0)}
    assert results["k0.0-2"].status == "OK" and results["k0.0-3"].maybe_stored and not results["k0.0-4"].attempts


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"\x0a\x02\x12\xff", b"\x0a\x00"], ids=["bytes", "inside", "empty"])
def test_a_server_that_answers_garbage(scripted, driver, garbage):
    it = scripted(lambda event: garbage)
    result, _ = one_event(driver, it.target, timeout_ms=1000)
    assert result.status in ("TIMEOUT", "FAILED") and result.maybe_stored and "the server's answer" in result.reason


def test_more_answers_than_events(scripted, driver):
    def answer(event):
        twice = ingest_service_pb2.PublishStreamResponse(results=[ok(event), ok(event)])
        return twice.SerializeToString()

    it = scripted(answer)
    load = driver(it.target, "load", events=5, keys=1)
    assert {result.status for result in load.wait()} == {"OK"}
    assert "more events than it was sent" in load.log()


def test_a_stream_that_ends_after_every_third_event(scripted, driver):
    """Each event is answered once, and of a key they arrive in order, repeated or not."""
    seen = []

    def answer(event):
        seen.append(event.id)
        if len(seen) % 3 == 0:
            raise End(StatusCode.UNAVAILABLE, "again")
        return ok(event)

    it = scripted(answer)
    load = driver(it.target, "load", events=60, keys=6, backoff_first_ms=5, backoff_last_ms=20)
    results = load.wait()
    assert len(results) == 60 and {result.status for result in results} == {"OK"}
    assert it.streams >= 20 and not any(result.moved for result in results)
    for key in {result.key for result in results}:
        first = list(dict.fromkeys(int(event.id.rpartition("-")[2]) for event in it.events if event.key == key))
        assert first == list(range(1, 11))


@pytest.mark.parametrize("code, status", [(StatusCode.UNAUTHENTICATED, "DENIED"), (StatusCode.UNIMPLEMENTED, "UNSUPPORTED")])
def test_a_stream_refused_as_a_whole(scripted, driver, code, status):
    def answer(event):
        raise End(code, "go away")

    result, took = one_event(driver, scripted(answer).target)
    assert (result.status, result.retry, result.reason) == (status, False, "go away") and took < 2


def test_no_ingest_server(scripted, driver):
    result, took = one_event(driver, scripted(with_service=False, with_health=False).target)
    assert result.status == "UNSUPPORTED" and took < 2


def test_no_grpc_server(driver):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result, _ = one_event(driver, "127.0.0.1:%d" % silent.getsockname()[1], timeout_ms=1000)
    assert (result.status, result.maybe_stored, result.attempts) == ("TIMEOUT", False, 0)
    assert "it waits for its server; connects, and waits" in result.reason


def test_health_decides(scripted, driver):
    it = scripted()
    it.set_health("NOT_SERVING")
    one = driver(it.target, timeout_ms=20000, failover_ms=0)
    one.say("k a create_user -")
    time.sleep(1)
    assert not it.events
    it.set_health("SERVING")
    wait_for(lambda: one.results(), "the answer")
    it.set_health("NOT_SERVING")
    time.sleep(0.5)
    one.say("k b create_user -")
    time.sleep(1)
    assert len(it.events) == 1
    it.set_health("SERVING")
    assert [result.status for result in one.wait()] == ["OK", "OK"] and it.streams == 1


# -- replicas


def test_an_event_waits_for_the_replica_that_may_have_it(scripted, driver):
    """Never to another with failover_ms=0, though one is there; when its own comes back it is the same event."""

    def lost(event):
        raise End(StatusCode.UNAVAILABLE, "lost")

    servers = [scripted(), scripted()]
    targets = ",".join(it.target for it in servers)
    probe = driver(targets)
    probe.say("k probe create_user -")
    probe.wait()
    home, other = servers if servers[0].events else servers[::-1]
    home.answer = lost
    one = driver(targets, failover_ms=0, timeout_ms=20000)
    one.say("k a create_user -")
    time.sleep(1.5)
    home.answer = ok
    [result] = one.wait()
    assert result.status == "OK" and not result.moved and not other.events and result.attempts > 1
    home.answer = lost
    one = driver(targets, failover_ms=700, timeout_ms=8000, backoff_last_ms=100)
    one.say("k b create_user -")
    [result] = one.wait()
    assert result.status == "OK" and result.moved and [event.id for event in other.events] == ["b"]


def test_an_event_in_doubt_does_not_follow_its_key_home(scripted, driver):
    """Its own replica is back before the one that it was sent to instead has answered: it waits for that one."""
    servers = [scripted(), scripted()]
    targets = ",".join(it.target for it in servers)
    probe = driver(targets)
    probe.say("k probe create_user -")
    probe.wait()
    home, other = servers if servers[0].events else servers[::-1]
    home.close()
    again = []

    def lost_once(event):
        if again:
            return ok(event)
        again.append(scripted(address=home.target))
        wait_for(lambda: "%s: takes events" % home.target in one.log(), "the return of the first replica")
        raise End(StatusCode.UNAVAILABLE, "lost")

    other.answer = lost_once
    one = driver(targets, failover_ms=1500, timeout_ms=20000, backoff_last_ms=100)
    one.say("k a create_user -", "k b create_user -")
    first, second = one.wait()
    assert (first.status, first.attempts, first.moved) == ("OK", 2, False)
    assert [event.id for event in other.events] == ["a", "a"] and [event.id for event in again[0].events] == ["b"]
    assert second.status == "OK" and not second.moved


def test_addresses_that_come_and_go(scripted, driver, tmp_path):
    """dns:/// with a name whose addresses change, looked up by the system's own resolver."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 replicas.test\n")
    first = scripted()
    port = first.target.rpartition(":")[2]
    second = scripted(address=f"127.0.0.2:{port}")
    inside = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts))
    one = driver(f"dns:///replicas.test:{port}", wrapper=inside, failover_ms=0, timeout_ms=20000)

    def publish(count, name):
        before = len(one.results())
        one.say(*(f"{name}-{number} - create_user -" for number in range(count)))
        wait_for(lambda: len(one.results()) == before + count, "the answers")

    publish(20, "a")
    assert len(first.events) == 20 and not second.events
    hosts.write_text("127.0.0.1 replicas.test\n127.0.0.2 replicas.test\n::1 replicas.test\n")
    first.answer = End  # the stream breaks: the name is looked up again
    wait_for(lambda: "127.0.0.2" in one.log() or one.say("b - create_user -"), "the second address", interval=1.5)
    first.answer = ok
    assert "::1" not in one.log()
    wait_for(lambda: one.results()[-1].key == "b" and len(one.results()) > 20, "the answer")
    publish(40, "c")
    assert 10 <= len([event for event in second.events if event.key.startswith("c")]) <= 30
    hosts.write_text("127.0.0.2 replicas.test\n")
    first.close()
    publish(40, "d")
    assert {result.status for result in one.wait()} == {"OK"}
    assert "127.0.0.1:%s is no replica any more" % port in one.log()


# -- TLS and tokens


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """A CA, and certificates of a server called ingest.test and of a client."""
    folder = tmp_path_factory.mktemp("pki")

    def openssl(*arguments):
        run("openssl", *arguments)

    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=test CA",
            "-keyout", f"{folder}/ca.key", "-out", f"{folder}/ca.pem", "-days", "2")
    for name, names in (("server", "DNS:ingest.test"), ("client", "DNS:client.test")):
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.csr")
        (folder / "extensions").write_text(f"subjectAltName={names}\n")
        openssl("x509", "-req", "-in", f"{folder}/{name}.csr", "-CA", f"{folder}/ca.pem", "-CAkey", f"{folder}/ca.key",
                "-out", f"{folder}/{name}.pem", "-days", "2", "-extfile", f"{folder}/extensions")
    return folder


def test_tls_and_token(scripted, driver, pki):
    pair = [((pki / "server.key").read_bytes(), (pki / "server.pem").read_bytes())]
    mutual = grpc.ssl_server_credentials(pair, (pki / "ca.pem").read_bytes(), require_client_auth=True)
    it = scripted(credentials=mutual)
    ours = {"certificate_file": pki / "client.pem", "key_file": pki / "client.key"}
    right = {"ca_file": pki / "ca.pem", "server_name": "ingest.test", "token": "secret", **ours}
    result, _ = one_event(driver, it.target, **right)
    assert result.status == "OK" and it.metadata[0]["authorization"] == "Bearer secret"
    for wrong in ({"server_name": "other.test"}, {"ca_file": "/etc/ssl/certs/ca-certificates.crt"}):
        result, _ = one_event(driver, it.target, **{**right, **wrong}, timeout_ms=1000)
        assert (result.status, result.attempts) == ("TIMEOUT", 0) and len(it.events) == 1
    result, _ = one_event(driver, it.target, ca_file=pki / "ca.pem", server_name="ingest.test", timeout_ms=1000)
    assert result.status == "TIMEOUT" and len(it.events) == 1
    result, _ = one_event(driver, it.target, timeout_ms=1000)  # in the clear
    assert result.status == "TIMEOUT" and len(it.events) == 1


# -- JSON


def test_json_as_others_read_it(driver):
    """The Struct from our parser is the one from Python's, for texts of any shape."""
    chance = random.Random(seed := random.randrange(1 << 32))
    print(f"seed {seed}")

    def text():
        ranges = ((1, 128), (1, 0xD800), (0xE000, 0x110000))
        return "".join(chr(chance.randrange(*chance.choice(ranges))) for _ in range(chance.randrange(8)))

    def value(depth):
        kind = chance.randrange(8 if depth else 5)
        if kind == 0:
            return chance.choice((None, True, False))
        if kind == 1:
            return chance.choice((0, 1, -1, 1e308, 5e-324, -0.0, chance.uniform(-1e6, 1e6), chance.randrange(2**53)))
        if kind < 5:
            return text()
        count = range(chance.randrange(4))
        return [value(depth - 1) for _ in count] if kind == 5 else {text(): value(depth - 1) for _ in count}

    documents = [{text(): value(6) for _ in range(chance.randrange(5))} for _ in range(3000)]
    lines = [json.dumps(each, ensure_ascii=chance.random() < 0.5) for each in documents]
    one = driver("-", "json")
    one.say(*lines)
    assert one.end(30) == 0
    for document, line, packed in zip(documents, lines, one.out.read_text().split("\n")):
        assert not packed.startswith("error"), f"{line}: {packed}"
        assert Struct.FromString(bytes.fromhex(packed)) == json_format.ParseDict(document, Struct()), line
