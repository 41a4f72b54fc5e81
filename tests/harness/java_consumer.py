"""Kafka's own console consumer: a reader of committed records that shares no code with what wrote them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

from .consumer import Record
from .kafka import KafkaCluster, java

LINE = re.compile(r"Partition:(\d+)\tOffset:(\d+)\t(.*?)\t([^\t]*)")


def each_record(kafka: KafkaCluster, topics: str, silence_s: float = 10) -> Iterator[Record]:
    """The records of the topics that match this expression, read with read_committed to the end: until none came for so
    long. Neither topic nor value is told."""
    shown = [f"--property=print.{what}=true" for what in ("partition", "offset", "headers", "key")]
    command = java(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        *("--bootstrap-server", kafka.bootstrap, "--include", topics, "--from-beginning"),
        *("--isolation-level", "read_committed", f"--timeout-ms={silence_s * 1000:.0f}"),
        *(*shown, "--property=print.value=false"),
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            for line in child.stdout:
                yield _record(line.rstrip("\n"))
            said = child.stderr.read()
        finally:
            child.kill()
    assert "Processed a total of" in said, f"the console consumer failed:\n{said}"


def _record(line: str) -> Record:
    found = LINE.fullmatch(line)
    assert found, f"the console consumer printed {line!r}"
    partition, offset, headers, key = found.groups()
    pairs = (pair.partition(":") for pair in headers.split(","))
    values = {name: value.encode() for name, _, value in pairs}
    return Record("", int(partition), int(offset), key.encode(), None, values, None)
