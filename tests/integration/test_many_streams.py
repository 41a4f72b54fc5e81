"""More streams than one queue of the server takes: each is served, places are given again, and a stop ends them all."""

from __future__ import annotations

import queue

import grpc
import pytest

from harness.client import PublishRequest, transaction

MANY = 700  # a queue takes 256 itself


class Stream:
    """One open PublishStream."""

    def __init__(self, it):
        self._requests: queue.SimpleQueue = queue.SimpleQueue()
        self._answers = it.ingest.PublishStream(iter(self._requests.get, None), timeout=100)

    def publish(self, id: str) -> None:
        self._requests.put(PublishRequest(event=transaction("create_user", id=id, key=id)))

    def answer(self) -> object:
        return next(self._answers)

    def close(self) -> None:
        self._requests.put(None)
        assert list(self._answers) == []


def all_answer(streams: list[Stream], prefix: str) -> None:
    for n, each in enumerate(streams):
        each.publish(f"{prefix}-{n}")
    for each in streams:
        assert each.answer().results[0].HasField("response")


def test_many_streams(server, kafka, client):
    it = server(kafka)
    one = client(it)
    streams = [Stream(one) for _ in range(MANY)]
    all_answer(streams, "first")
    for each in streams[::2]:
        each.close()
    streams[::2] = [Stream(one) for _ in streams[::2]]
    all_answer(streams, "again")
    one.publish(transaction("create_user", id="unary"))
    assert it.process.terminate(30) == 0
    for each in streams:
        with pytest.raises(grpc.RpcError):
            each.answer()
