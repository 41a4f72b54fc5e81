"""Command-line tools that a user has: grpcurl, kcat, h2load. One that is missing fails the test."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from typing import Any

from .paths import tool


def run(*argv: str, stdin: str = "", timeout: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs a tool by its name; with check, failing fails the test and shows what it said."""
    done = subprocess.run([tool(argv[0]), *argv[1:]], input=stdin, capture_output=True, text=True, timeout=timeout)
    if check:
        assert done.returncode == 0, f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def grpcurl(target: str, method: str, request: object = None, *flags: str, check: bool = True) -> Any:
    """Calls a method by reflection. Returns the answer, or with check=False the finished process."""
    data = "" if request is None else json.dumps(request)
    done = run("grpcurl", "-plaintext", *flags, "-d", "@", target, method, stdin=data, check=check)
    return json.loads(done.stdout or "null") if check else done


def grpcurl_list(target: str, service: str = "") -> list[str]:
    """The services, or a service's methods, as reflection tells them."""
    return run("grpcurl", "-plaintext", target, "list", *filter(None, [service])).stdout.split()


def kcat_read(bootstrap: str, topic: str, isolation: str = "read_committed") -> list[dict[str, Any]]:
    """A topic's records as kcat prints them in JSON (key, payload, headers, partition, offset)."""
    settings = ["-X", f"isolation.level={isolation}"]
    done = run("kcat", "-b", bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-J", *settings)
    return [json.loads(line) for line in done.stdout.splitlines()]


def h2load(
    target: str, method: str, message: bytes, requests: int, clients: int = 4, streams: int = 16, threads: int = 1
) -> float:
    """Sends one unary request over and over; requests a second. It counts a gRPC error as done: look at the
    server's accepted count too."""
    frame = b"\0" + len(message).to_bytes(4, "big") + message
    with tempfile.NamedTemporaryFile() as body:
        body.write(frame)
        body.flush()
        done = run(
            "h2load",
            *("-n", str(requests), "-c", str(clients), "-m", str(streams), "-t", str(threads), "-d", body.name),
            *("-H", "content-type: application/grpc", "-H", "te: trailers"),
            f"http://{target}/{method}",
            timeout=300,
        )
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", done.stdout)
    counts = re.search(r"(\d+) done, (\d+) succeeded", done.stdout)
    assert rate and counts and int(counts[2]) == requests, done.stdout
    return float(rate[1])
