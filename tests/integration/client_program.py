"""Runs tests/client_driver.c, the publishing library at work."""

from __future__ import annotations

import os
import re
import socket
import struct
import subprocess
import threading
from pathlib import Path
from typing import NamedTuple

from harness.load import Ack
from harness.paths import BUILD, ROOT

STATUSES = "OK INVALID CONFLICT DENIED DEAD TIMEOUT WINDOW_FULL CLOSED UNSUPPORTED FAILED".split()


class Result(NamedTuple):
    id: str
    key: str
    status: str
    route: str
    sequence: int
    duplicate: bool
    store: str
    maybe_stored: bool
    retry: bool
    moved: bool
    attempts: int
    reason: str


def read_result(line: str) -> Result:
    id, key, status, route, sequence, duplicate, store, maybe, retry, moved, attempts, reason = line.split("\t", 11)
    return Result(
        id, key, STATUSES[int(status)], route, int(sequence), duplicate == "1", store,
        maybe == "1", retry == "1", moved == "1", int(attempts), reason,
    )


class Driver:
    """client_driver TARGET NAME=VALUE... WHAT, of a build; under sanitizers it must have found nothing."""

    def __init__(self, folder: Path, target: str, what: str, build: str = "release", wrapper: tuple[str, ...] = (), **options: object):
        self.out, self.err = folder / "driver.out", folder / "driver.err"
        folder.mkdir(parents=True, exist_ok=True)
        program = BUILD / build / "client_driver"
        assert program.exists(), f"{program} is missing: build it first (script/test does)"
        arguments = [f"{name}={value}" for name, value in options.items()]
        self.argv = [*wrapper, str(program), target, *arguments, what]
        self.env = {
            "GRPC_VERBOSITY": "NONE",
            "ASAN_OPTIONS": "detect_leaks=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "TSAN_OPTIONS": f"suppressions={ROOT / 'tests/tsan.supp'}",
        }
        self.child: subprocess.Popen[bytes] | None = None
        self._read = self._lines = 0

    def start(self) -> Driver:
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.child = subprocess.Popen(
                self.argv, stdin=subprocess.PIPE, stdout=out, stderr=err, env={**os.environ, **self.env}
            )
        return self

    def say(self, *lines: str) -> None:
        assert self.child and self.child.stdin
        self.child.stdin.write("".join(f"{line}\n" for line in lines).encode())
        self.child.stdin.flush()

    def end(self, timeout: float = 120) -> int:
        """Closes its input and waits; the exit code."""
        assert self.child and self.child.stdin
        if not self.child.stdin.closed:
            self.child.stdin.close()
        try:
            ended = self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the driver still runs after {timeout:g} s:\n{self.log()}") from None
        assert not re.search(r"(Address|Leak|Thread)Sanitizer|runtime error:", self.log()), self.log()
        return ended

    def wait(self, timeout: float = 120) -> list[Result]:
        code = self.end(timeout)
        assert code == 0, f"the driver ended with {code}:\n{self.log()}"
        return self.results()

    def results(self) -> list[Result]:
        lines = self.out.read_text().split("\n")
        return [read_result(line) for line in lines[:-1]]

    def answered(self) -> int:
        """How many results there are, cheaply."""
        with open(self.out, "rb") as out:
            out.seek(self._read)
            data = out.read()
        self._read += len(data)
        self._lines += data.count(b"\n")
        return self._lines

    def log(self) -> str:
        return self.err.read_text(errors="replace")[-8000:]

    def stats(self) -> dict[str, int]:
        words = re.search(r"^stats (.*)$", self.log(), re.M)[1].split()
        return dict(zip(words[::2], map(int, words[1::2])))

    def kill(self) -> None:
        if self.child and self.child.poll() is None:
            self.child.kill()
            self.child.wait()


def acks(results: list[Result]) -> list[Ack]:
    """For harness.verify: what was told of the load's events, "<key>-<counter>"."""
    found = []
    for each in results:
        counter = int(each.id.rpartition("-")[2])
        if each.status == "OK":
            found.append(Ack(each.id, each.key, counter, each.route, each.sequence, each.duplicate, each.store))
    return found


class CutProxy:
    """A TCP proxy in front of `target` whose connections can be cut, all at once, or that lets nothing through."""

    def __init__(self, target: str):
        host, _, port = target.rpartition(":")
        self._to = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.target = "127.0.0.1:%d" % self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> int:
        """Resets every connection; how many there were."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR) if end.fileno() >= 0 else None
                end.close()
        self.cuts += len(pairs)
        return len(pairs)

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._to, timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._pairs.append((near, far))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        with self._lock:
            self._pairs = [pair for pair in self._pairs if source not in pair]
