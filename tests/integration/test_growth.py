"""Nothing grows with the number of requests: memory and descriptors after the first and after the last part of a load."""

from __future__ import annotations

from harness.client import PublishRequest, transaction
from harness.process import wait_for
from harness.tools import h2load


def test_no_growth(kafka, server, client, scale):
    it = server(kafka)
    requests = scale(60_000, 500_000)
    body = PublishRequest(event=transaction("create_user", id="", data=b"x" * 200)).SerializeToString()
    sizes = []
    for _ in range(3):
        h2load(it.target, "ingest.v1.IngestService/Publish", body, requests, clients=16, streams=64)
        wait_for(lambda: it.metrics().total("ingest_events_pending") == 0, "the backlog to drain", 120)
        wait_for(lambda: it.metrics()["ingest_grpc_calls_in_flight"] == 0, "calls to end")
        sizes.append((it.rss_kib(), it.fd_count()))
    print(f"KiB and descriptors after each {requests} requests: {sizes}")
    assert it.metrics().total("ingest_events_published_total") == 3 * requests
    assert sizes[2][0] < sizes[1][0] + 20_000 and sizes[2][0] < 300_000
    assert sizes[2][1] <= sizes[0][1] + 5
    it.terminate()
