"""One load worker, a process: python -m harness.load_worker. What it promises is told in load.py.

SIGTERM: nothing new, end when what is under way is acknowledged. SIGINT: end at once.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import time
from collections import deque
from collections.abc import AsyncIterator

import grpc

from . import client

SHAPES = ("transaction", "group", "split", "informative")
# A group whose operations have topics of their own, in a catalogue that has them; see fault/service.py.
SPLIT = ("split_user", "split_org", "split_member")
SYNC_S = 0.2


class Lane:
    """A key, and its event that is sent now."""

    def __init__(self, worker: Worker, number: int):
        self.worker, self.key, self.counter = worker, f"{worker.name}.{number}", 0
        self.shape = worker.shapes[number % len(worker.shapes)]
        self.request: client.PublishRequest | None = None

    def more(self) -> bool:
        """Whether there is an event to send: the one not yet acknowledged, or a next one."""
        if self.request is None and self.worker.take():
            self.counter += 1
            event = self._event(f"{self.key}-{self.counter}")
            self.request = client.PublishRequest(event=event, ack=self.worker.ack)
        return self.request is not None

    def _event(self, id: str) -> client.Event:
        common = {"id": id, "key": self.key, "data": self.worker.filler}
        common["attributes"] = {"counter": str(self.counter)}
        if self.shape == "group":
            return client.transaction("create_user", "create_org", "add_user_to_org", **common)
        if self.shape == "split":
            return client.transaction(*SPLIT, **common)
        if self.shape == "informative":
            return client.informative("generate_otp", **common)
        return client.transaction("create_user", **common)

    def acknowledged(self, answer: client.PublishResponse | None) -> None:
        route, sequence, duplicate, store = "", 0, False, ""
        if answer is not None:
            route, sequence, duplicate, store = answer.route, answer.sequence, answer.duplicate, answer.store
            assert answer.id == self.request.event.id, f"{self.request.event.id} answered as {answer.id}"
        fields = (self.request.event.id, self.key, self.counter, route, sequence, int(duplicate), store)
        self.worker.ledger.write("\t".join(map(str, fields)) + "\n")
        self.request = None


class Worker:
    PASSING = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "CANCELLED", "ABORTED"}
    PAUSE_S = 0.1
    BROKEN_STREAM = "Internal error from Core"  # of the Python client, when the connection ends as it writes

    def __init__(self, options: argparse.Namespace):
        self.name, self.shapes = options.name, options.shapes.split(",")
        assert set(self.shapes) <= set(SHAPES), f"shapes are {SHAPES}"
        self.ack = {"persisted": client.PERSISTED, "published": client.PUBLISHED}[options.ack]
        self.left = options.events or float("inf")
        self.rate, self.slot = options.rate, time.monotonic()
        self.timeout = options.timeout
        self.filler = random.Random(self.name).randbytes(options.size)  # which nothing can compress
        self.ledger = open(options.ledger, "w", buffering=1)
        self.lanes = [Lane(self, number) for number in range(options.lanes)]
        self.stub: client.ingest_service_pb2_grpc.IngestServiceStub

    def take(self) -> bool:
        """Whether one more event may be made."""
        if self.left <= 0:
            return False
        self.left -= 1
        return True

    async def run(self, target: str, mode: str) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._finish)
        async with grpc.aio.insecure_channel(target, client.CHANNEL_OPTIONS) as channel:
            self.stub = client.ingest_service_pb2_grpc.IngestServiceStub(channel)
            if mode == "unary":
                work = asyncio.gather(*map(self._unary, self.lanes))
            else:
                work = asyncio.ensure_future({"batch": self._batches, "stream": self._streams}[mode]())
            loop.add_signal_handler(signal.SIGINT, work.cancel)
            syncing = asyncio.ensure_future(self._sync())
            try:
                await work
            except asyncio.CancelledError:
                for lane in self.lanes:
                    if lane.request is not None:
                        lane.acknowledged(None)
            finally:
                syncing.cancel()
        self.ledger.flush()
        os.fsync(self.ledger.fileno())
        self.ledger.close()

    async def _sync(self) -> None:
        while True:
            await asyncio.sleep(SYNC_S)
            await asyncio.get_running_loop().run_in_executor(None, os.fsync, self.ledger.fileno())

    def _finish(self) -> None:
        self.left = 0

    async def _pace(self, events: int = 1) -> None:
        if self.rate:
            self.slot = max(self.slot + events / self.rate, time.monotonic() - 1)
            await asyncio.sleep(max(0, self.slot - time.monotonic()))

    async def _refused(self, code: str, message: str) -> None:
        """Waits a little after a refusal that passes; any other ends the worker."""
        if code not in self.PASSING:
            raise AssertionError(f"refused for good: {code}: {message}")
        await asyncio.sleep(self.PAUSE_S)

    async def _unary(self, lane: Lane) -> None:
        while lane.more():
            await self._pace()
            try:
                lane.acknowledged(await self.stub.Publish(lane.request, timeout=self.timeout))
            except grpc.aio.AioRpcError as error:
                await self._refused(error.code().name, error.details())

    async def _batches(self) -> None:
        while lanes := [lane for lane in self.lanes if lane.more()]:
            await self._pace(len(lanes))
            events = [lane.request.event for lane in lanes]
            request = client.ingest_service_pb2.PublishBatchRequest(events=events, ack=self.ack)
            try:
                answer = await self.stub.PublishBatch(request, timeout=3 * self.timeout)
            except grpc.aio.AioRpcError as error:
                await self._refused(error.code().name, error.details())
                continue
            assert len(answer.results) == len(lanes), f"{len(answer.results)} results for {len(lanes)} events"
            for lane, result in zip(lanes, answer.results):
                await self._settle(lane, result)

    async def _streams(self) -> None:
        """One stream after the other: each lives until nothing is left or it breaks."""
        while lanes := [lane for lane in self.lanes if lane.more()]:
            try:
                await self._one_stream(lanes)
            except grpc.aio.AioRpcError as error:
                broken = error.code() is grpc.StatusCode.INTERNAL and error.details() == self.BROKEN_STREAM
                await self._refused("UNAVAILABLE" if broken else error.code().name, error.details())

    async def _one_stream(self, lanes: list[Lane]) -> None:
        waiting: asyncio.Queue[Lane | None] = asyncio.Queue()
        flying: deque[Lane] = deque()

        async def requests() -> AsyncIterator[client.PublishRequest]:
            while lane := await waiting.get():
                await self._pace()
                flying.append(lane)
                yield lane.request

        for lane in lanes:
            waiting.put_nowait(lane)
        call = self.stub.PublishStream(requests())
        async for answer in call:
            for result in answer.results:
                lane = flying.popleft()
                await self._settle(lane, result)
                if lane.more():
                    waiting.put_nowait(lane)
            if not flying and waiting.empty():
                waiting.put_nowait(None)
        assert not flying, "the stream ended well with requests unanswered"

    async def _settle(self, lane: Lane, result: client.PublishResult) -> None:
        """What a result of a batch or stream says: acknowledged, or to be sent again."""
        if result.HasField("response"):
            lane.acknowledged(result.response)
        else:
            name = next(code.name for code in grpc.StatusCode if code.value[0] == result.error.code)
            await self._refused(name, result.error.message)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="one load worker")
    parser.add_argument("target")
    parser.add_argument("ledger")
    parser.add_argument("name")
    parser.add_argument("--mode", choices=("unary", "batch", "stream"), default="unary")
    parser.add_argument("--lanes", type=int, default=64)
    parser.add_argument("--events", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--timeout", type=float, default=10)
    parser.add_argument("--size", type=int, default=200)
    parser.add_argument("--shapes", default="transaction")
    parser.add_argument("--ack", choices=("persisted", "published"), default="persisted")
    return parser.parse_args()


if __name__ == "__main__":
    chosen = _options()
    asyncio.run(Worker(chosen).run(chosen.target, chosen.mode))
