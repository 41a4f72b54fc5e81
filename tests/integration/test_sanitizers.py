"""The server and the publishing library under sanitizers with load, each kind of call and a stop: no report, no leak,
exit 0.

The builds are those of script/check (build/asan, build/tsan); script/test makes them when they are missing.
"""

from __future__ import annotations

import random

import pytest

from harness.client import PUBLISHED, PublishRequest, informative, transaction
from harness.consumer import read_all
from harness.load import Load
from harness.paths import BUILD, ROOT
from harness.process import wait_for
from harness.verify import check_exactly_once

OPTIONS = {
    "asan": {"ASAN_OPTIONS": "detect_leaks=1", "UBSAN_OPTIONS": "print_stacktrace=1"},
    "tsan": {"TSAN_OPTIONS": f"suppressions={ROOT / 'tests/tsan.supp'} halt_on_error=0 exitcode=0"},
}


@pytest.mark.parametrize("preset", OPTIONS)
def test_all_kinds_of_calls(kafka, server, client, tmp_path, preset):
    it = server(kafka, binary=BUILD / preset / "ingestd", env=OPTIONS[preset])
    loads = [
        Load(it.target, tmp_path, name=mode, mode=mode, lanes=24, events=1500, shapes=("transaction", "group", "informative"))
        for mode in ("unary", "batch", "stream")
    ]
    for load in loads:
        load.start()
    one = client(it)
    chance = random.Random(1)
    for number in range(300):
        request = PublishRequest(event=transaction("create_user", source="other"), ack=PUBLISHED)
        call = one.ingest.Publish.future(request, timeout=chance.choice((0.001, 0.01, 5)))
        if number % 3 == 0:
            call.cancel()
        call.exception(timeout=30) if not call.cancelled() else None
    one.stream([informative("generate_otp", source="other") for _ in range(200)], PUBLISHED)
    one.status()
    acks = [ack for load in loads for ack in load.wait(200)]
    wait_for(lambda: it.metrics().total("ingest_events_pending") == 0, "the backlog to drain", 100)
    records = read_all(kafka.bootstrap, [it.transactions, it.informative])
    assert check_exactly_once(acks, [record for record in records if record.headers["ce_source"] == b"tests"]) == 4500
    it.terminate(60)


@pytest.mark.parametrize("preset", OPTIONS)
def test_the_publishing_library(kafka, server, driver, preset):
    it = server(kafka)
    load = driver(it.target, "load", threads=4, keys=40, events=10_000, bad=100, timeout_ms=100_000, build=preset)
    wait_for(lambda: load.answered() > 1000, "some load")
    it.restart()
    assert sum(result.status == "OK" for result in load.wait()) == 10_000
