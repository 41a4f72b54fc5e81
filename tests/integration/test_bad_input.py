"""Input that no honest client sends: the server answers or closes, and never dies, leaks or hangs."""

from __future__ import annotations

import gzip
import os
import random
import socket
import threading

import grpc
import pytest

from harness.client import CHANNEL_OPTIONS, IngestClient, PublishRequest, transaction, violations
from harness.process import wait_for
from harness.raw_http2 import RawConnection, frame
from harness.server import Ingestd

PUBLISH = "/ingest.v1.IngestService/Publish"
STREAM = "/ingest.v1.IngestService/PublishStream"
METHODS = (PUBLISH, STREAM, "/ingest.v1.IngestService/PublishBatch", "/ingest.v1.IngestService/GetEventStatus",
           "/ingest.v1.AdminService/GetStatus", "/grpc.health.v1.Health/Check",
           "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")


@pytest.fixture(scope="module")
def target_server(tmp_path_factory):
    """One server for the whole file; Kafka is away, which is nobody's business here."""
    it = Ingestd(tmp_path_factory.mktemp("bad-input"), "127.0.0.1:1").start()
    yield it
    it.terminate()


@pytest.fixture(autouse=True)
def still_well(target_server):
    """After each test the server still works, holds no more descriptors, and no call is left over."""
    with IngestClient(target_server.target) as client:
        client.publish(transaction("create_user"))
    fds = target_server.fd_count()
    yield
    assert target_server.running, target_server.log()
    with IngestClient(target_server.target) as client:  # it may still be busy with what the test left
        wait_for(lambda: client.publish(transaction("create_user")), "an answer after the test")
    wait_for(lambda: target_server.fd_count() <= fds, "descriptors to be closed", 30)
    wait_for(lambda: target_server.metrics()["ingest_grpc_calls_in_flight"] == 0, "calls to end", 30)


@pytest.fixture
def raw(target_server):
    connection = RawConnection(target_server.target)
    yield connection
    connection.close()


def call(target: str, method: str, payload: bytes, timeout: float = 10) -> grpc.RpcError:
    with grpc.insecure_channel(target, CHANNEL_OPTIONS) as channel:
        with pytest.raises(grpc.RpcError) as refusal:
            channel.unary_unary(method)(payload, timeout=timeout)
    return refusal.value


def struct_nested(depth: int) -> bytes:
    """PublishRequest bytes whose data holds a list in a list in a list..."""
    value = b"\x08\x00"  # null_value
    for _ in range(depth):
        body = b"\x0a" + varint(len(value)) + value
        value = b"\x32" + varint(len(body)) + body
    entry = b"\x0a\x01x\x12" + varint(len(value)) + value
    struct = b"\x0a" + varint(len(entry)) + entry
    operation = b"\x0a\x0bcreate_user\x1a" + varint(len(struct)) + struct
    body = b"\x12" + varint(len(operation)) + operation
    event = b"\x12\x01s\x52" + varint(len(body)) + body
    return b"\x0a" + varint(len(event)) + event


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def test_random_bytes_as_messages(target_server):
    chance = random.Random(1)
    good = PublishRequest(event=transaction("create_user", data={"a": [1, {"b": "c"}]})).SerializeToString()
    with grpc.insecure_channel(target_server.target, CHANNEL_OPTIONS) as channel:
        pending = []
        for number in range(3000):
            if number % 2:
                payload = chance.randbytes(chance.randrange(1, 400))
            else:
                mutated = bytearray(good)
                for _ in range(chance.randrange(1, 6)):
                    mutated[chance.randrange(len(mutated))] = chance.randrange(256)
                payload = bytes(mutated[: chance.randrange(len(mutated) + 1)])
            pending.append(channel.unary_unary(chance.choice(METHODS[:1] + METHODS[2:6])).future(payload, timeout=30))
        for one in pending:
            assert one.code() in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND), one


def test_random_bytes_on_the_wire(target_server):
    host, port = target_server.target.split(":")
    chance = random.Random(2)
    for number in range(300):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            try:
                if number % 3:
                    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                if number % 3 == 2:
                    connection.sendall(bytes(9))
                connection.sendall(chance.randbytes(chance.randrange(1, 3000)))
            except ConnectionError:
                pass


def test_invalid_utf8_and_nul(target_server):
    for text in (b"\xff\xfe", b"\xed\xa0\x80", b"a\0b", b"\xc0\xaf"):
        event = b"\x12" + varint(len(text)) + text
        refusal = call(target_server.target, PUBLISH, b"\x0a" + varint(len(event)) + event)
        assert refusal.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert list(violations(refusal)) == ["event.source"]


def test_deep_nesting(target_server):
    for depth in (60, 200, 5000, 100000):
        refusal = call(target_server.target, PUBLISH, struct_nested(depth))
        assert refusal.code() == grpc.StatusCode.INVALID_ARGUMENT, depth
    with grpc.insecure_channel(target_server.target, CHANNEL_OPTIONS) as channel:
        channel.unary_unary(PUBLISH)(struct_nested(30), timeout=10)


def test_oversize_messages(target_server):
    refusal = call(target_server.target, PUBLISH, os.urandom(5 << 20))
    assert refusal.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_truncated_and_lying_frames(raw):
    good = PublishRequest(event=transaction("create_user")).SerializeToString()
    for body in (b"", b"\0", b"\0\0\0", frame(good)[:-1], frame(good, length=len(good) + 5), frame(good, length=0xFFFFFFFF)):
        answer = raw.answer(raw.request(PUBLISH, body))
        assert answer.get("grpc-status", "reset") != "0", (body[:8], answer)
    # The core is generous with these; what counts is that they are answered.
    for body in (frame(good, compressed=1), frame(good, compressed=7), frame(good) + frame(good), frame(good) + b"\0\0"):
        assert raw.answer(raw.request(PUBLISH, body))


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", "", "application/grpc+x"])
def test_wrong_content_type(raw, content_type):
    good = frame(PublishRequest(event=transaction("create_user")).SerializeToString())
    answer = raw.answer(raw.request(PUBLISH, good, content_type=content_type))
    assert answer


def test_unknown_methods(raw):
    for path in ("/", "/nothing", "/ingest.v1.IngestService/Nothing", "/" + "x" * 5000, "no-slash"):
        answer = raw.answer(raw.request(path, frame(b"")))
        assert answer.get("grpc-status") == "12" or "closed" in answer or "reset" in answer, (path[:40], answer)
        if "closed" in answer:
            break


def test_half_closed_streams(raw):
    for path in METHODS:
        stream = raw.request(path, None)
        assert raw.answer(stream)
    good = frame(PublishRequest(event=transaction("create_user")).SerializeToString())
    answer = raw.answer(raw.request(STREAM, good))
    assert answer["grpc-status"] == "0"


def test_streams_left_open_and_reset(target_server):
    good = frame(PublishRequest(event=transaction("create_user")).SerializeToString())
    for number in range(100):
        connection = RawConnection(target_server.target)
        streams = [connection.request(path, good if number % 2 else good[:7], end=False) for path in (PUBLISH, STREAM) * 5]
        if number % 3 == 0:
            for stream in streams:
                connection.h2.reset_stream(stream)
            connection.flush()
        connection.close()


def test_a_compressed_bomb(raw):
    bomb = frame(gzip.compress(bytes(64 << 20)), compressed=1)
    answer = raw.answer(raw.request(PUBLISH, bomb, headers=(("grpc-encoding", "gzip"),)))
    assert answer["grpc-status"] == "12"


def test_large_metadata(raw):
    good = frame(PublishRequest(event=transaction("create_user")).SerializeToString())
    answer = raw.answer(raw.request(PUBLISH, good, headers=(("x-large", "x" * 60000),)))
    assert answer.get("grpc-status", "") != "0"


def test_cancelled_calls_and_short_deadlines(target_server):
    with grpc.insecure_channel(target_server.target, CHANNEL_OPTIONS) as channel:
        publish = channel.unary_unary(PUBLISH, PublishRequest.SerializeToString)
        pending = []
        for number in range(3000):
            request = PublishRequest(event=transaction("create_user"), ack=2 if number % 5 == 0 else 1)
            one = publish.future(request, timeout=0.001 if number % 2 else 20)
            if number % 3 == 0 or number % 5 == 0:
                one.cancel()
            pending.append(one)
        for one in pending:
            assert one.cancelled() or one.code() in (grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED), one


def test_connections_opened_and_dropped(target_server):
    host, port = target_server.target.split(":")
    failed = []

    def storm(count: int) -> None:
        for number in range(count):
            try:
                with socket.create_connection((host, int(port)), timeout=10) as connection:
                    if number % 2:
                        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            except OSError as error:
                failed.append(error)

    threads = [threading.Thread(target=storm, args=(2500,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failed) < 10, failed[:3]
