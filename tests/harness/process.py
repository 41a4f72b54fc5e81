"""Child processes that never outlive the test, and free ports for them to listen on."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from .paths import tool

T = TypeVar("T")


def free_port() -> int:
    """A free port below the range from which the system takes the ports of outgoing connections."""
    for _ in range(1000):
        port = random.randint(12000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


def wait_for(condition: Callable[[], T], what: str, timeout: float = 30, interval: float = 0.05) -> T:
    """Asks until the answer is true and returns it; an exception counts as no, until the time is over."""
    end = time.monotonic() + timeout
    while True:
        problem = None
        try:
            answer = condition()
            if answer:
                return answer
        except Exception as error:  # the next try may do better
            problem = error
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout:g} s for {what}") from problem
        time.sleep(interval)


class Process:
    """One child, its output in a file. The system kills it when the thread that started it dies."""

    def __init__(self, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None):
        self.argv, self.log, self.env = list(argv), log, dict(env or {})
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert not self.running, f"{self.argv[0]} is running already"
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(
                [tool("setpriv"), "--pdeathsig", "KILL", "--", *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.env},
                start_new_session=True,  # ^C at the terminal goes to the test alone, which then cleans up
            )

    @property
    def running(self) -> bool:
        return self.child is not None and self.child.poll() is None

    @property
    def pid(self) -> int:
        assert self.child is not None, f"{self.argv[0]} was never started"
        return self.child.pid

    def signal(self, number: signal.Signals) -> None:
        assert self.running, f"{self.argv[0]} is not running:\n{self.tail()}"
        os.kill(self.pid, number)

    def pause(self) -> None:
        """Returns when all of its threads stand still: one that was in a system call, or waited for a core, goes on a
        little, and could still write."""
        self.signal(signal.SIGSTOP)
        threads = Path(f"/proc/{self.pid}/task")

        def all_stopped() -> bool:
            return all((each / "stat").read_text().rpartition(")")[2].split()[0] == "T" for each in threads.iterdir())

        wait_for(all_stopped, "the process to be stopped", 10, interval=0.002)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def wait(self, timeout: float = 30) -> int:
        """Its exit code, negative if a signal ended it."""
        assert self.child is not None
        try:
            return self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.argv[0]} still runs after {timeout:g} s:\n{self.tail()}") from None

    def kill(self) -> None:
        """SIGKILL, also to one that is paused; no complaint when it is gone already."""
        if self.running:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def terminate(self, timeout: float = 30) -> int:
        """SIGTERM; its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def tail(self, lines: int = 40) -> str:
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
