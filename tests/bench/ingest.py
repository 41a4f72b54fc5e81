"""How fast events are accepted while Kafka is away: calls, batches and streams, how long an ack takes, idle streams."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.client import PublishRequest, transaction
from harness.paths import BUILD
from harness.process import Process, free_port, wait_for
from harness.server import Ingestd
from harness.tools import h2load, run

from .figures import Figure

METHOD = "ingest.v1.IngestService/Publish"
NOWHERE = "127.0.0.1:1"  # no Kafka
EVENT_BYTES = 300
CONNECTIONS, STREAMS = 16, 64
ID_MARK = "00000000-0000-7000-8000-000000000000"  # the loader puts each event's id there
PROGRAMS = BUILD / "release"
ROUTES = [{"name": "transactions", "topic": "bench-transactions"}, {"name": "informative", "topic": "bench-informative"}]


def event_of(size: int, id: str) -> bytes:
    filler = 0
    while (event := transaction("create_user", id=id, key="k" * 12, data=b"x" * filler)).ByteSize() < size:
        filler += 1
    return event.SerializeToString()


def server(folder: Path, kafka: str = NOWHERE) -> Ingestd:
    config = {"routes": ROUTES, "kafka": {"positions_topic": "bench-positions"}, "log": {"level": "error"}}
    return Ingestd(folder, kafka, config)


@contextmanager
def fresh_server(folder: Path, kafka: str = NOWHERE) -> Iterator[Ingestd]:
    with tempfile.TemporaryDirectory(dir=folder) as own:
        it = server(Path(own), kafka).start()
        try:
            yield it
        finally:
            it.stop()


@contextmanager
def echo(folder: Path) -> Iterator[Echo]:
    it = Echo(f"127.0.0.1:{free_port()}", folder / "echo.log")
    it.process.start()
    time.sleep(0.5)
    try:
        yield it
    finally:
        it.process.kill()


class Echo:
    """The bare C core: a server that answers Publish at once, and always the same."""

    def __init__(self, target: str, log: Path):
        self.target = target
        self.process = Process([str(PROGRAMS / "echo_server"), target], log)


class Loader:
    """The loader's runs, all with one event."""

    def __init__(self, folder: Path):
        self.event = folder / "event.bin"
        self.event.write_bytes(event_of(EVENT_BYTES, ID_MARK))

    def run(self, target: str, kind: str, connections: int, in_flight: int, events: int, batch: int = 1) -> dict[str, float]:
        words = [target, kind, str(connections), str(in_flight), str(events), str(self.event), str(batch)]
        said = run(str(PROGRAMS / "loader"), *words, timeout=600, check=False)
        figures = json.loads(said.stdout)
        assert figures["failed"] == 0, said
        return figures


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fdatasync_us(folder: Path, appends: int = 2000) -> dict[str, float]:
    """Of a 400-byte append."""
    took: list[float] = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(appends):
            began = time.perf_counter()
            file.write(b"x" * 400)
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - began) * 1e6)
    took.sort()
    return {"p50_us": statistics.median(took), "p99_us": took[len(took) * 99 // 100]}


# ---- the figures


def unary(folder: Path, pairs: int, requests: int) -> Figure:
    body = PublishRequest(event=transaction("create_user"))
    body.event.ParseFromString(event_of(EVENT_BYTES, ""))
    message = body.SerializeToString()

    def ours() -> float:
        with fresh_server(folder) as it:
            rate = h2load(it.target, METHOD, message, requests, CONNECTIONS, STREAMS)
            accepted = it.metrics().total("ingest_events_accepted_total")
            assert accepted == requests, f"{accepted:.0f} of {requests} accepted: h2load counts refusals as done"
            return rate

    def floor() -> float:
        with echo(folder) as it:
            return h2load(it.target, METHOD, message, requests, CONNECTIONS, STREAMS)

    return Figure("unary, ack persisted, over a bare C-core echo", "1/s", 0.80).run(ours, floor, pairs)


def unary_all(folder: Path, pairs: int, requests: int) -> Figure:
    load = Loader(folder)

    def ours() -> float:
        with fresh_server(folder) as it:
            return load.run(it.target, "unary", CONNECTIONS, STREAMS, requests)["per_s"]

    def floor() -> float:
        with echo(folder) as it:
            return load.run(it.target, "unary", CONNECTIONS, STREAMS, requests)["per_s"]

    return Figure("the same, each event with an id of its own", "1/s", 0.75).run(ours, floor, pairs)


def one_in_flight(folder: Path, pairs: int) -> Figure:
    load = Loader(folder)

    def ours() -> float:
        with fresh_server(folder) as it:
            return load.run(it.target, "unary", 1, 1, 4000)["p50_us"]

    def floor() -> float:
        with echo(folder) as it:
            return load.run(it.target, "unary", 1, 1, 4000)["p50_us"] + fdatasync_us(folder)["p50_us"]

    return Figure("one in flight: p50 of the ack over fdatasync + echo", "us", 1.3, less_is_better=True).run(ours, floor, pairs)


def some_in_flight(folder: Path, pairs: int) -> Figure:
    load = Loader(folder)

    def ours() -> float:
        with fresh_server(folder) as it:
            return load.run(it.target, "unary", 4, 16, 100_000)["p99_us"]

    def floor() -> float:
        with echo(folder) as it:
            return load.run(it.target, "unary", 4, 16, 100_000)["p99_us"] + 4 * fdatasync_us(folder)["p50_us"]

    return Figure("64 in flight: p99 of the ack over 4 fdatasyncs + echo's p99", "us", 1.5, less_is_better=True).run(ours, floor, pairs)


def streams(folder: Path, pairs: int, events: int) -> list[Figure]:
    load = Loader(folder)

    def stream() -> float:
        with fresh_server(folder) as it:
            return load.run(it.target, "stream", 4, 4096, events)["per_s"]

    def batches() -> float:
        with fresh_server(folder) as it:
            return load.run(it.target, "batch", 4, 16, events, 100)["per_s"]

    def bare() -> float:
        with echo(folder) as it:
            return load.run(it.target, "stream", 4, 4096, events)["per_s"]

    def raw() -> float:
        with tempfile.TemporaryDirectory(dir=folder) as own:
            said = run(str(PROGRAMS / "store_bench"), f"{own}/store", "raw", timeout=60).stdout
            return float(said.split("events/s")[0].split(":")[-1])

    over_raw = Figure("PublishStream over RocksDB's own synced batches of 1,000", "1/s", 0.5).run(stream, raw, pairs)
    over_bare = Figure("PublishStream over a bare C-core stream", "1/s", 0.5).run(stream, bare, pairs)
    over_stream = Figure("PublishBatch of 100 over PublishStream", "1/s", 0.5).run(batches, stream, pairs)
    return [over_raw, over_bare, over_stream]


def cpu(folder: Path, pairs: int, events: int) -> Figure:
    load = Loader(folder)

    def spent(it: Ingestd | Echo) -> float:
        began = cpu_seconds(it.process.pid)
        load.run(it.target, "unary", CONNECTIONS, STREAMS, events)
        return (cpu_seconds(it.process.pid) - began) / events * 1e6

    def ours() -> float:
        with fresh_server(folder) as it:
            return spent(it)

    def floor() -> float:
        with echo(folder) as it:
            return spent(it)

    return Figure("the server's CPU time an event, unary, over the echo's", "us", 1.5, less_is_better=True).run(ours, floor, pairs)


def idle(folder: Path, pairs: int, requests: int) -> Figure:
    """The rate beside 1,000 idle connections and 10,000 open streams, over the rate without them."""
    load = Loader(folder)

    def measure(beside: bool) -> float:
        with fresh_server(folder) as it:
            before = it.rss_kib()
            held = [hold(it.target, 1000, 1), hold(it.target, 90, 100)] if beside else []
            if beside:
                print(f"    10,000 open streams on 1,090 connections: {(it.rss_kib() - before) / 10_000:.1f} KiB each", flush=True)
            try:
                return load.run(it.target, "unary", CONNECTIONS, STREAMS, requests)["per_s"]
            finally:
                for each in held:
                    each.communicate()

    name = "unary beside 1,000 connections and 10,000 idle streams"
    return Figure(name, "1/s", 0.95).run(lambda: measure(True), lambda: measure(False), pairs)


def hold(target: str, connections: int, streams: int) -> subprocess.Popen[bytes]:
    words = [str(PROGRAMS / "loader"), target, "idle", str(connections), str(streams)]
    held = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert held.stdout
    assert wait_for(held.stdout.readline, "the streams to be open", 60) == b"open\n"
    return held
