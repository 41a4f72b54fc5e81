"""ingestctl consume against a real server and Kafka: a shell command runs for each effect."""

from __future__ import annotations

import random
import re
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.client import informative, transaction
from harness.consuming import GROUP, SESSION
from harness.kafka import KafkaCluster
from harness.paths import BUILD
from harness.process import Process, wait_for
from harness.tools import run

INGESTCTL = str(BUILD / "release/ingestctl")
EFFECTS = 8  # of create_user
USAGE, IO_ERROR = 64, 74


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaCluster]:
    with KafkaCluster(properties=GROUP) as cluster:
        yield cluster


@pytest.fixture
def consume(kafka, tmp_path) -> Iterator[Callable[..., Process]]:
    """consume(topics, shell command, option...): one that runs; all of a test share group and data folder."""
    made: list[Process] = []
    group = f"g-{uuid.uuid4().hex[:8]}"

    def make(topics: list[str], command: str, *options: str) -> Process:
        words = [INGESTCTL, "consume", f"--kafka={kafka.bootstrap}", f"--group={group}", f"--data-dir={tmp_path / 'data'}"]
        words += [f"--topic={topic}" for topic in topics] + [f"--set={name}={value}" for name, value in SESSION.items()]
        made.append(Process([*words, *options, "--", "sh", "-c", command], tmp_path / f"consume-{len(made)}.log"))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.kill()


def events(client, it, count: int) -> list[str]:
    ids = [f"e-{number}" for number in range(count)]
    client(it).publish_batch([transaction("create_user", id=id, key=f"k{n % 5}", data={"n": n}) for n, id in enumerate(ids)])
    return ids


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def failed(tmp_path: Path, *words: str) -> str:
    return run(INGESTCTL, "failed", words[0], f"--data-dir={tmp_path / 'data'}", *words[1:]).stdout


def test_every_effect_once_with_its_payload(server, kafka, client, consume, tmp_path):
    it, log = server(kafka), tmp_path / "log"
    ids = events(client, it, 10)
    client(it).publish(informative("generate_otp", id="otp", key="otp", data=b"\x01raw"))
    one = consume(
        [it.transactions, it.informative],
        f'echo "$INGEST_EVENT_ID $INGEST_KEY $INGEST_OPERATION $INGEST_EFFECT_KIND/$INGEST_EFFECT $(cat | tr -d "\\001")" >> {shlex.quote(str(log))}',
    )
    wait_for(lambda: len(lines(log)) >= len(ids) * EFFECTS + 1, "all effects", 60)
    assert one.terminate(20) == 0
    done = lines(log)
    assert len(done) == len(set(done)) == len(ids) * EFFECTS + 1
    assert "otp otp generate_otp notice/generate_otp raw" in done
    assert [line.split()[3] for line in done if line.startswith("e-3 ")][:3] == ["index/user", "index/userprofilevisibility", "table/user"]
    assert all(line.endswith('{"n":3}') for line in done if line.startswith("e-3 "))
    assert re.search(r"^11 events, 81 effects done", one.log.read_text(), re.M)


def test_kills(server, kafka, client, consume, tmp_path):
    """kill -9 at random: nothing is missing, and only commands that were under way ran twice."""
    it, log = server(kafka), tmp_path / "log"
    ids = events(client, it, 40)
    command = f'sleep 0.01; echo "$INGEST_IDEMPOTENCY_KEY" >> {shlex.quote(str(log))}'
    chance, kills = random.Random(), 0
    one = consume([it.transactions], command, "--set=group.instance.id=one")
    while len(set(lines(log))) < len(ids) * EFFECTS:
        time.sleep(chance.uniform(0.5, 2.0))
        if not one.running:
            pytest.fail(one.tail(40))
        one.kill()
        kills += 1
        one.start()
    assert kills >= 2
    time.sleep(0.5)
    assert one.terminate(20) == 0
    assert len(lines(log)) - len(set(lines(log))) <= 4 * kills, "one of each worker at most"


def test_what_fails_is_kept_and_retried(server, kafka, client, consume, tmp_path):
    it, log, cure = server(kafka), tmp_path / "log", tmp_path / "cure"
    ids = events(client, it, 10)
    command = f"""
        if [ "$INGEST_EVENT_ID" = e-4 ] && [ "$INGEST_EFFECT_KIND" = table ] && [ ! -e {cure} ]; then echo no such table >&2; exit 65; fi
        if [ "$INGEST_EVENT_ID" = e-7 ] && [ "$INGEST_ATTEMPT" = 1 ]; then exit 75; fi
        echo "$INGEST_IDEMPOTENCY_KEY" >> {log}"""
    one = consume([it.transactions], command, "--backoff-ms=50", "--quiet")
    wait_for(lambda: len(lines(log)) >= (len(ids) - 1) * EFFECTS + 2, "all but what fails", 60)
    listed = failed(tmp_path, "list")
    assert re.search(r"given up +tests +e-4 +create_user +2/8 +exit_65 .*no such table", listed), listed
    assert "e-4" in one.log.read_text() and "no such table" in one.log.read_text()
    cure.touch()
    failed(tmp_path, "retry", "--all")
    wait_for(lambda: len(lines(log)) >= len(ids) * EFFECTS, "the rest", 30)
    wait_for(lambda: "e-4" not in failed(tmp_path, "list"), "the store to be empty")
    assert one.terminate(20) == 0
    assert len(lines(log)) == len(set(lines(log))) == len(ids) * EFFECTS


def test_bad_options(tmp_path):
    def said(*words: str, expect: int) -> str:
        done = subprocess.run([INGESTCTL, "consume", *words], capture_output=True, text=True, timeout=20)
        assert done.returncode == expect, done.stderr
        return done.stderr

    folder = f"--data-dir={tmp_path / 'data'}"
    assert "takes -- COMMAND" in said("--group=g", folder, expect=USAGE)
    assert "--group is required" in said(folder, "--", "true", expect=USAGE)
    assert "--data-dir is required" in said("--group=g", "--", "true", expect=USAGE)
    assert "not a number from 1 to 256" in said("--group=g", folder, "--workers=0", "--", "true", expect=USAGE)
    assert "group.id is not to be set" in said("--group=g", folder, "--set=group.id=x", "--", "true", expect=USAGE)
    assert "catalogue: /nowhere" in said("--group=g", folder, "--catalogue=/nowhere", "--", "true", expect=IO_ERROR)
