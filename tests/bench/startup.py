"""script/bench startup: how the cost grows with the backlog: from the start to the first acknowledgement, memory, and
how fast events are accepted and published beside it.

Each backlog is made by a process that is killed with the last events still in the log; Kafka is away until the drain.
The table goes to standard output, the same as JSON to build/startup.json.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
import time
from pathlib import Path

import grpc

from harness.client import IngestClient, transaction
from harness.paths import BUILD
from harness.process import wait_for
from harness.server import Ingestd
from harness.tools import run

from .ingest import EVENT_BYTES, ROUTES, Loader
from .publishing import PUBLISHED, broker

INGESTED, DRAINED = 500_000, 1_000_000  # events of a measurement, at most


def size_bytes(folder: Path, pattern: str = "*") -> int:
    return sum(each.stat().st_blocks * 512 for each in folder.rglob(pattern) if each.name != "ballast")


def measure(events: int, event_bytes: int, ids: bool) -> dict[str, float]:
    folder = Path(tempfile.mkdtemp(prefix="startup-", dir=BUILD))
    try:
        it = Ingestd(folder / "server", "127.0.0.1:1", {"routes": ROUTES, "storage": {"backlog_budget": "1TiB"}, "log": {"level": "error"}})
        filling = [str(BUILD / "release/fill_store"), str(it.data_dir), str(events), str(event_bytes), *["ids"] * ids]
        said = run(*filling, timeout=3600, check=False)  # it kills itself at the end
        assert re.fullmatch(rf"{events} events, 0 refused\n", said.stdout), said
        row: dict[str, float] = {"events": events, "event_bytes": event_bytes, "ids": ids}
        row |= {"disk_bytes": size_bytes(it.data_dir), "log_bytes": size_bytes(it.data_dir, "*.log")}
        began = time.monotonic()
        it.start(ready=False, timeout=120)
        with IngestClient(it.target) as client:
            wait_for(lambda: acknowledged(client), "an acknowledgement", 60, interval=0.002)
            row["first_ack_s"] = time.monotonic() - began
            pending = sum(route.pending for route in client.status().routes)
            assert pending == events + 1, f"{pending} pending of {events} and one"
        time.sleep(10)
        status = Path(f"/proc/{it.process.pid}/status").read_text()
        row["rss_mib"], row["peak_rss_mib"] = (int(re.search(rf"{key}:\s+(\d+)", status)[1]) / 1024 for key in ("VmRSS", "VmHWM"))
        if event_bytes == EVENT_BYTES:
            row["ingest_per_s"] = Loader(folder).run(it.target, "stream", 4, 4096, INGESTED)["per_s"]
            it.terminate()
            row["drain_per_s"] = drain_rate(it)
        it.stop()
        return row
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def drain_rate(it: Ingestd) -> float:
    """Of the first million, from the first transaction on."""
    with broker() as kafka:
        it.config["kafka"]["brokers"] = kafka.bootstrap
        it.start(timeout=120)
        wait_for(lambda: it.metrics()[PUBLISHED] > 0, "the first transaction", 60, interval=0.01)
        began, first = time.monotonic(), it.metrics()[PUBLISHED]
        pending = it.metrics().total("ingest_events_pending")
        wanted = first + min(pending, DRAINED)
        wait_for(lambda: it.metrics()[PUBLISHED] >= wanted, "the drain", 300, interval=0.02)
        rate = (it.metrics()[PUBLISHED] - first) / (time.monotonic() - began)
        it.stop()
        return rate


def acknowledged(client: IngestClient) -> bool:
    try:
        client.publish(transaction("create_user", id="the-first"), timeout=1)
    except grpc.RpcError:
        return False
    return True


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="script/bench startup", description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=[10**4, 10**5, 10**6, 10**7])
    parser.add_argument("--bytes", type=int, default=EVENT_BYTES, help="of an event")
    parser.add_argument("--ids", action="store_true", help="events with ids of callers, in no order")
    given = parser.parse_args(arguments)
    rows = []
    print(f"{'pending':>12} {'on disk, MiB':>13} {'in logs, MiB':>13} {'first ack, s':>13} {'RSS, MiB':>9} {'peak, MiB':>10} {'ingest/s':>10} {'drain/s':>10}")
    for events in given.events:
        row = measure(events, given.bytes, given.ids)
        rows.append(row)
        print(
            f"{events:12,} {row['disk_bytes'] / 2**20:13,.0f} {row['log_bytes'] / 2**20:13,.0f} "
            f"{row['first_ack_s']:13.2f} {row['rss_mib']:9.0f} {row['peak_rss_mib']:10.0f} "
            f"{row.get('ingest_per_s', 0):10,.0f} {row.get('drain_per_s', 0):10,.0f}",
            flush=True,
        )
    (BUILD / "startup.json").write_text(json.dumps(rows, indent=2) + "\n")
