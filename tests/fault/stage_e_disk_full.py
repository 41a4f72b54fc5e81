"""Stage E: the volume fills up and is freed, over and over, under load and with kill -9 in between.

The server's data is on a small tmpfs. It is filled either by events, with Kafka not answering, or by a file of somebody
else's, to the last byte and past every reserve. While it is full an event must be refused with RESOURCE_EXHAUSTED and a
hint when to come again, or the server must end by itself with exit code 74; this stage is the supervisor that starts it
again. On a volume that is full it must start. When there is room again it must take events without anybody's help.
The ledger of acknowledgements is on another volume.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc

from harness.client import IngestClient, details, error_details_pb2, transaction
from harness.consumer import read_all
from harness.kafka import KafkaCluster
from harness.load import Ack, Load
from harness.process import wait_for
from harness.server import Ingestd
from harness.verify import check_exactly_once, check_sequences

from .stage import Summary, Torture, Violation

LETTER = "E"
TITLE = "the disk is full, and is freed"
SHORT = 0.13
MUTANTS = ["ack-without-room", "ack-of-a-failed-write", "no-reserve"]

CYCLES = 30
MIB = 1 << 20
VOLUME, RESERVE, BALLAST = 256 * MIB, 16 * MIB, 64 * MIB
EVENT_BYTES = 24_000
EX_IOERR = 74
# A RocksDB built with its assertions, as Debian's is, may be faster than we are: it aborts when one of its threads comes
# back to a file on which a write has failed.
ROCKSDB_ABORTS = "WritableFileWriter::AssertFalseAndGetStatusForPrevError"


class Volume:
    """A tmpfs, gone at the end."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.hog = folder / "somebody-elses-file"

    def __enter__(self) -> Volume:
        self.folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={VOLUME}", "tmpfs", str(self.folder)], check=True)
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=True)

    def fill(self) -> None:
        """To the last byte, and fast."""
        with open(self.hog, "ab", buffering=0) as file:
            free = os.statvfs(self.folder)
            try:
                os.posix_fallocate(file.fileno(), file.tell(), free.f_bavail * free.f_frsize)
                file.seek(0, os.SEEK_END)
            except OSError:
                pass  # the server was faster
            for size in (MIB, 4096, 1):
                try:
                    while file.write(b"\0" * size) == size:
                        pass
                except OSError:
                    pass

    def listing(self) -> str:
        return subprocess.run(["ls", "-lsR", str(self.folder)], capture_output=True, text=True).stdout

    def free(self) -> None:
        self.hog.unlink(missing_ok=True)


class Supervisor:
    """Starts the server again whenever it ends; it may end by our kill, with EX_IOERR, or by RocksDB's abort."""

    def __init__(self, server: Ingestd):
        self.server = server
        self.exits = self.aborts = 0
        self.wrong: str | None = None
        self._killed = False
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Supervisor:
        self.server.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.server.stop()

    def kill9(self) -> None:
        with self._lock:
            self._killed = True
            self.server.process.kill()

    def before_a_start(self, action: Callable[[], object]) -> None:
        """Does it while no server is started: one that ends meanwhile finds it done, and all of its ballast its own."""
        with self._lock:
            action()

    @property
    def ends(self) -> int:
        """How often it ended by itself."""
        return self.exits + self.aborts

    def check(self) -> None:
        if self.wrong:
            raise Violation(self.wrong)

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            with self._lock:
                if self.server.running:
                    continue
                code = self.server.process.wait()
                aborted = code == -signal.SIGABRT and ROCKSDB_ABORTS in self.server.log(5)
                if code != EX_IOERR and not aborted and not self._killed:
                    self.wrong = f"the server ended with {code}:\n{self.server.log()}"
                    return
                self.exits += code == EX_IOERR
                self.aborts += aborted
                self._killed = False
                self.server.process.start()


class Probe:
    """Sends one event after the other, each until it is acknowledged; what happens to a single call is told."""

    def __init__(self, target: str, volume: Volume):
        self.client = IngestClient(target)
        self.volume = volume
        self.acks: list[Ack] = []
        self.sent = self.last = self.bursts = 0

    def send(self) -> str:
        """OK, FULL, or the name of a code that passes (the server is away)."""
        number = self.sent + 1
        event = transaction("create_user", id=f"probe-{number}", key="probe")
        event.attributes["counter"] = str(number)
        try:
            answer = self.client.publish(event, timeout=5)
        except grpc.RpcError as refusal:
            if refusal.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                return refusal.code().name
            if not any(isinstance(each, error_details_pb2.RetryInfo) and each.retry_delay.ToMilliseconds() > 0 for each in details(refusal)):
                raise Violation(f"refused without a hint when to come again: {refusal.details()}") from None
            return "FULL"
        if answer.sequence <= self.last:
            raise Violation(f"acknowledged as {answer.sequence}, after {self.last}")
        self.sent, self.last = number, answer.sequence
        self.acks.append(Ack(answer.id, "probe", number, answer.route, answer.sequence, answer.duplicate, answer.store))
        return "OK"

    def burst(self, first: Callable[[], object] = lambda: None) -> None:
        """Does `first`, and sends more than a log has preallocated, so that the log itself would meet a full disk."""
        self.bursts += 1
        keys = [f"burst.{self.bursts}.{number}" for number in range(120)]
        events = [transaction("create_user", id=f"{key}-1", key=key, data=os.urandom(EVENT_BYTES)) for key in keys]
        first()
        try:
            results = self.client.publish_batch(events, timeout=10)
        except grpc.RpcError:
            results = [None] * len(keys)
        for key, result in zip(keys, results):
            it = result.response if result is not None and result.HasField("response") else None
            told = (it.route, it.sequence, it.duplicate, it.store) if it else ("", 0, False, "")
            self.acks.append(Ack(f"{key}-1", key, 1, *told))

    def until(self, outcome: str, supervisor: Supervisor, timeout: float = 40, filling: bool = False) -> float:
        """Waits for an outcome; the seconds it took. `filling`: with many events, and the server must not end."""
        began, ends = time.monotonic(), supervisor.ends
        seen: dict[str, int] = {}
        while (now := self.send()) != outcome:
            seen[now] = seen.get(now, 0) + 1
            supervisor.check()
            if filling and supervisor.ends > ends:
                raise Violation(f"the reserve was not kept, the server ran into the full disk:\n{supervisor.server.log(20)}")
            if time.monotonic() > began + timeout:
                log = f"{supervisor.server.log(20)}\n{self.volume.listing()}"
                raise Violation(f"waited {timeout:g} s for {outcome}, saw {seen}\n{log}")
            self.burst() if filling else time.sleep(0.05)
        supervisor.check()
        return time.monotonic() - began


def just_measured(server: Ingestd) -> None:
    """Waits until the server has just seen ample free space: what fills the volume now takes it by surprise."""

    def free() -> float:
        return server.metrics()["ingest_disk_free_bytes"]

    wait_for(lambda: free() > VOLUME / 3, "the last cycle's backlog to drain", 60)
    before = free()
    wait_for(lambda: free() != before, "the free space to be measured", interval=0.01)


def cycle(it: Torture, kafka: KafkaCluster, volume: Volume, supervisor: Supervisor, probe: Probe, number: int) -> float:
    """Fill, be refused, perhaps kill, free, be accepted. The seconds from the freeing to the first acknowledgement."""
    by_events, greedy = number % 2 == 0, number % 4 == 3
    if by_events:
        kafka.pause_all()
    else:
        probe.burst(lambda: (just_measured(supervisor.server), supervisor.before_a_start(volume.fill)))
    probe.until("FULL", supervisor, filling=by_events)
    for _ in range(it.random.randrange(by_events ^ 1, 3)):
        supervisor.kill9()
        probe.until("FULL", supervisor)  # it starts on the full volume
    if greedy:  # whatever the server gave up is taken: no promise that it starts, but it must come back
        for _ in range(2):
            supervisor.kill9()
            time.sleep(it.random.uniform(0, 1))
            volume.fill()
    if by_events:
        kafka.resume_all()
    else:
        volume.free()
    return probe.until("OK", supervisor)


def run(it: Torture) -> Summary:
    summary = Summary()
    slowest = 0.0
    config = {
        "storage": {"memtable": "1MiB", "reserve_free": RESERVE, "ballast": BALLAST},
        "kafka": {"topic_partitions": 3},
        "data_dir": str(it.folder / "volume" / "data"),
    }
    with Volume(it.folder / "volume") as volume, KafkaCluster() as kafka:
        server = Ingestd(it.folder / "server", kafka.bootstrap, config, binary=it.program("ingestd"))
        shapes = ("transaction", "group")
        with Supervisor(server) as supervisor, Load(server.target, it.folder, lanes=64, rate=200, size=EVENT_BYTES, shapes=shapes) as load:
            probe = Probe(server.target, volume)
            cycles = it.full(CYCLES)
            for number in range(cycles):
                slowest = max(slowest, cycle(it, kafka, volume, supervisor, probe, number))
                it.progress(number + 1, cycles, f"{load.count()} acknowledged, {supervisor.exits} exits")
            acks = load.stop() + probe.acks
            wait_for(lambda: sum(route.pending for route in probe.client.status().routes) == 0, "the drain", 120)
            wait_for(lambda: (volume.folder / "data" / "ballast").stat().st_size == BALLAST, "the ballast to be back", 60)
            summary.events = check_exactly_once(acks, read_all(kafka.bootstrap, "ingest.transactions", timeout=120))
            check_sequences(acks)
            supervisor.check()
    summary.cycles, summary.acks, summary.faults = cycles, len(acks), supervisor.ends
    summary.notes = {"slowest_recovery_s": round(slowest, 1), "exits": supervisor.exits, "aborts": supervisor.aborts}
    return summary
