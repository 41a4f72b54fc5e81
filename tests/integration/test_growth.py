"""Nothing grows with the number of requests: memory and descriptors over rounds of load.

RocksDB's memtables are kept small: they fill and are flushed many times in a round, or their filling would look like
growth. Medians are compared, as a flush may be under way.
"""

from __future__ import annotations

import statistics

from harness.client import PublishRequest, transaction
from harness.process import wait_for
from harness.tools import h2load

ROUNDS = 6


def test_no_growth(kafka, server, client, scale):
    it = server(kafka, {"storage": {"memtable": "2MiB"}})
    requests = scale(30_000, 250_000)
    body = PublishRequest(event=transaction("create_user", id="", data=b"x" * 200)).SerializeToString()
    sizes = []
    for _ in range(ROUNDS):
        h2load(it.target, "ingest.v1.IngestService/Publish", body, requests, clients=16, streams=64)
        wait_for(lambda: it.metrics().total("ingest_events_pending") == 0, "the backlog to drain", 120)
        wait_for(lambda: it.metrics()["ingest_grpc_calls_in_flight"] == 0, "calls to end")
        sizes.append((it.rss_kib(), it.fd_count()))
    print(f"KiB and descriptors after each {requests} requests: {sizes}")
    assert it.metrics().total("ingest_events_published_total") == ROUNDS * requests
    early, late = ([kib for kib, _ in half] for half in (sizes[: ROUNDS // 2], sizes[ROUNDS // 2 :]))
    assert statistics.median(late) < statistics.median(early) + 12_000 and max(late) < 300_000
    assert sizes[-1][1] <= sizes[0][1] + 5
    it.terminate()
