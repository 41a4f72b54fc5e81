"""A hostile network between the server and Kafka: a TCP proxy before each broker that knows Kafka's framing.

    with KafkaCluster(nodes=3, proxied=True) as kafka, KafkaProxy(kafka.proxied) as network:
        it = server(network.bootstrap)
        with network.rule("steal", Api.END_TXN, times=1) as stolen: ...

Whole connections: partition() and heal(), half_open(), reset(). Single messages, by what they are: see Rule.
The loop has a thread of its own; every method may be called from any other thread.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

from .gate import LoopThread


class Api(IntEnum):
    """The first two bytes of a request (https://kafka.apache.org/protocol#protocol_api_keys)."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    FIND_COORDINATOR = 10
    API_VERSIONS = 18
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    END_TXN = 26


# From this version on the header ends with tags, of which nobody sends any, and the body's strings are compact.
COMPACT_FROM = {Api.PRODUCE: 9, Api.ADD_PARTITIONS_TO_TXN: 3, Api.END_TXN: 3}


class Message(NamedTuple):
    """A request, or the answer to it (answer=True; then `body` is the request's still)."""

    broker: int
    api: int
    version: int
    correlation: int
    body: bytes
    answer: bool = False

    @property
    def transactional_id(self) -> str:
        """Of a Produce, AddPartitionsToTxn or EndTxn request, which begin with it; "" if there is none."""
        begin, end = self._id_place()
        return self.body[begin:end].decode()

    @property
    def commits(self) -> bool:
        """Of an EndTxn: commit, rather than abort. Behind the id stand the producer's id and epoch."""
        assert self.api == Api.END_TXN
        return self.body[self._id_place()[1] + 10] != 0

    def _id_place(self) -> tuple[int, int]:
        if self.version < COMPACT_FROM[Api(self.api)]:
            return 2, 2 + max(struct.unpack_from(">h", self.body)[0], 0)
        assert self.body[0] == 0 and self.body[1] < 128, "a tag, or an id of more bytes than we make"
        return 2, 2 + max(self.body[1] - 1, 0)


@dataclass(eq=False)
class Rule:
    """What befalls the messages of some kinds. Of several rules the one added first has a message.

    delay   it waits for `seconds`, and what follows it on its connection too
    drop    it vanishes, the connection stays
    cut     it vanishes, and its connection is reset
    hold    it waits for release(), and what follows it too
    steal   a request: its connection is reset towards the client, and it waits for release(): then it reaches its
            broker late, on the connection on which it was sent
    """

    do: str
    apis: frozenset[int]  # none given: every
    answers: bool = False  # instead of requests
    brokers: frozenset[int] = frozenset()  # none given: every
    seconds: float = 0
    times: int | None = None
    where: Callable[[Message], bool] = lambda _: True
    hits: int = 0
    taken: list[Message] = field(default_factory=list)  # by hold and steal
    hit: threading.Event = field(default_factory=threading.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)  # a stolen request was answered, or never will be

    def takes(self, message: Message) -> bool:
        return (
            message.answer == self.answers
            and (self.times is None or self.hits < self.times)
            and (not self.apis or message.api in self.apis)
            and (not self.brokers or message.broker in self.brokers)
            and self.where(message)
        )


class KafkaProxy(LoopThread):
    """`brokers`: number -> (port to listen on, port of the broker). Usable as a context."""

    def __init__(self, brokers: Mapping[int, tuple[int, int]]):
        super().__init__()
        self.bootstrap = ",".join(f"127.0.0.1:{port}" for port, _ in brokers.values())
        self.seen: Counter[int] = Counter()  # requests, by API
        self._brokers = dict(brokers)
        self._rules: list[Rule] = []
        self._ambushes: list[_Ambush] = []
        self._links: set[_Link] = set()

    # -- connections

    def partition(self, brokers: Iterable[int] = ()) -> None:
        """Nothing passes, either way, to and from these brokers (default: all), until heal(). Nothing is lost either:
        what was sent meanwhile arrives then, even from a client that has given up, as from a network's buffers."""
        self._run(self._connect(brokers, False))

    def heal(self) -> None:
        self._run(self._connect((), True))

    def half_open(self, brokers: Iterable[int] = ()) -> int:
        """The brokers' ends of all connections are closed, and the clients are not told. How many there were."""
        return self._run(self._each_link(brokers, _Link.go_silent))

    def reset(self, brokers: Iterable[int] = ()) -> int:
        """All connections are reset at both ends. How many there were."""
        return self._run(self._each_link(brokers, _Link.abort))

    # -- messages

    def rule(
        self,
        do: str,
        *apis: Api,
        answers: bool = False,
        brokers: Iterable[int] = (),
        seconds: float = 0,
        times: int | None = None,
        where: Callable[[Message], bool] = lambda _: True,
    ) -> Rule:
        """A rule in force from now on; see Rule and remove()."""
        assert do in ("delay", "drop", "cut", "hold", "steal"), do
        assert not (answers and do == "steal"), "an answer cannot be stolen"
        made = Rule(do, frozenset(apis), answers, frozenset(brokers), seconds, times, where)
        self._run(self._change(lambda: self._rules.append(made)))
        return made

    def remove(self, rule: Rule) -> None:
        """Ends a rule; what it holds is released."""
        self._run(self._change(lambda: (self._rules.remove(rule), rule.released.set())))

    def release(self, rule: Rule) -> None:
        """Lets go what the rule holds."""
        self._run(self._change(rule.released.set))

    def ambush(self, rule: Rule, api: Api, number: int, timeout: float) -> bool:
        """Releases a stolen EndTxn inside a later transaction of its transactional id: when the transaction's
        `number`th Produce has been answered (api=PRODUCE), or before its `number`th AddPartitionsToTxn, once the requests
        before that are answered. All else waits until the late one has had its answer, and the coordinator some time to
        write its markers. False: no such transaction came in time."""
        return self._run(self._lie_in_wait(rule, api, number, timeout))

    # -- in the loop

    async def _open(self) -> None:
        self._connected = {broker: asyncio.Event() for broker in self._brokers}
        await self._connect((), True)
        self._quiet = asyncio.Event()  # no ambush is being sprung
        self._quiet.set()
        self._servers = []
        for broker, (port, _) in self._brokers.items():
            accept = lambda *client, broker=broker: self._accept(broker, *client)  # noqa: E731
            self._servers.append(await asyncio.start_server(accept, "127.0.0.1", port))

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        await self._each_link((), _Link.abort)

    async def _connect(self, brokers: Iterable[int], connected: bool) -> None:
        for broker in set(brokers) or self._brokers:
            (self._connected[broker].set if connected else self._connected[broker].clear)()

    async def _each_link(self, brokers: Iterable[int], what: Callable[[_Link], None]) -> int:
        chosen = [link for link in self._links if link.broker in (set(brokers) or self._brokers)]
        for link in chosen:
            what(link)
        return len(chosen)

    async def _change(self, what: Callable[[], object]) -> None:
        what()

    async def _accept(self, broker: int, *client: Any) -> None:
        await self._connected[broker].wait()
        try:
            link = _Link(self, broker, client, await asyncio.open_connection("127.0.0.1", self._brokers[broker][1]))
        except OSError:
            client[1].transport.abort()
            return
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)

    async def _passes(self, link: _Link, message: Message) -> bool:
        """Applies the first rule that takes the message; whether it goes on. Takes as long as the rule says."""
        rule = next((rule for rule in self._rules if rule.takes(message)), None)
        if rule:
            rule.hits += 1
            rule.taken.append(message)
            rule.hit.set()
            if rule.do == "delay":
                await asyncio.sleep(rule.seconds)
            elif rule.do == "cut":
                link.abort()
            elif rule.do == "steal":
                link.steal(message, rule)
            if rule.do in ("hold", "steal"):
                await rule.released.wait()
        await self._connected[message.broker].wait()
        if not (rule and rule.do == "steal"):
            await self._quiet.wait()
        return not rule or rule.do not in ("drop", "cut")

    async def _observe(self, message: Message) -> None:
        """Springs the ambush for which this message is the one."""
        for ambush in [each for each in self._ambushes if each.is_at(message)]:
            self._ambushes.remove(ambush)
            if not message.answer:
                await asyncio.sleep(0.2)
            self._quiet.clear()
            try:
                ambush.rule.released.set()
                await asyncio.wait_for(ambush.rule.arrived.wait(), 10)
                await asyncio.sleep(0.1)
            finally:
                self._quiet.set()
                ambush.sprung.set()

    async def _lie_in_wait(self, rule: Rule, api: Api, number: int, timeout: float) -> bool:
        ambush = _Ambush(rule, rule.taken[0].transactional_id, api, number)
        self._ambushes.append(ambush)
        try:
            await asyncio.wait_for(ambush.sprung.wait(), timeout)
            return True
        except TimeoutError:
            return False
        finally:
            if ambush in self._ambushes:
                self._ambushes.remove(ambush)


class _Ambush:
    """Waits for the `number`th message of a transaction: an answer to Produce, or a request AddPartitionsToTxn."""

    def __init__(self, rule: Rule, transactional_id: str, api: Api, number: int):
        self.rule, self.transactional_id = rule, transactional_id
        self.api, self.number, self.count = api, number, 0
        self.sprung = asyncio.Event()

    def is_at(self, message: Message) -> bool:
        if message.api not in COMPACT_FROM or message.transactional_id != self.transactional_id:
            return False
        if message.api == Api.END_TXN:  # what follows belongs to another transaction
            self.count = 0
        if message.api != self.api or message.answer != (self.api == Api.PRODUCE):
            return False
        self.count += 1
        return self.count == self.number


class _Link:
    """One client's connection to one broker: two pumps, each of which closes the other side when its own has ended."""

    def __init__(self, proxy: KafkaProxy, broker: int, client: tuple[Any, Any], upstream: tuple[Any, Any]):
        self.proxy, self.broker = proxy, broker
        self._from_client, self._to_client = client
        self._from_broker, self._to_broker = upstream
        self._asked: dict[int, Message] = {}  # not yet answered, by correlation
        self._late: tuple[Message, Rule] | None = None  # a stolen request
        self._silent = False

    async def run(self) -> None:
        await asyncio.gather(self._requests(), self._answers())

    def abort(self) -> None:
        self._to_client.transport.abort()
        self._to_broker.transport.abort()

    def go_silent(self) -> None:
        self._silent = True
        self._to_broker.transport.abort()

    def steal(self, message: Message, rule: Rule) -> None:
        self._late = (message, rule)
        self._to_client.transport.abort()

    async def _requests(self) -> None:
        while frame := await _frame(self._from_client):
            if self._silent:
                continue
            message = _request(self.broker, frame)
            self.proxy.seen[message.api] += 1
            await self.proxy._observe(message)
            if await self.proxy._passes(self, message):
                self._asked[message.correlation] = message
                await _write(self._to_broker, frame)
        if self._late:  # its answer tells that the broker has taken it
            await asyncio.wait([asyncio.ensure_future(self._late[1].arrived.wait())], timeout=10)
        if not self._silent:
            self._to_broker.close()

    async def _answers(self) -> None:
        while frame := await _frame(self._from_broker):
            message = self._asked.pop(struct.unpack_from(">i", frame, 4)[0])._replace(answer=True)
            if self._late and self._late[0].correlation == message.correlation:
                self._late[1].arrived.set()
                continue
            await self.proxy._observe(message)
            if await self.proxy._passes(self, message):
                await _write(self._to_client, frame)
        if self._late:
            self._late[1].arrived.set()
        if not self._silent:
            self._to_client.close()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """A message with its length in front; nothing at the end of the connection, however it ends."""
    try:
        length = await reader.readexactly(4)
        return length + await reader.readexactly(struct.unpack(">i", length)[0])
    except (asyncio.IncompleteReadError, OSError):
        return b""


async def _write(writer: asyncio.StreamWriter, frame: bytes) -> None:
    """What cannot be written is lost; the pump that reads from there sees the end."""
    try:
        writer.write(frame)
        await writer.drain()
    except OSError:
        pass


def _request(broker: int, frame: bytes) -> Message:
    api, version, correlation, client_id = struct.unpack_from(">hhih", frame, 4)
    body = 14 + max(client_id, 0)
    return Message(broker, api, version, correlation, frame[body:])
