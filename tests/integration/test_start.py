"""Listening on a unix socket, flags and refusals at the start."""

from __future__ import annotations

import subprocess

import pytest

from harness.client import IngestClient, transaction
from harness.paths import SERVER

NOWHERE = "127.0.0.1:1"


def test_a_unix_socket(server, tmp_path):
    socket = tmp_path / "ingest.sock"
    it = server(NOWHERE, {"listen": {"address": f"unix:{socket}"}})
    with IngestClient(f"unix:{socket}") as client:
        assert client.publish(transaction("create_user")).sequence == 1
    it.terminate()


@pytest.mark.parametrize(
    "flags, says",
    [
        (["--listen", "0.0.0.0:50051", "--kafka", NOWHERE, "--data-dir", "d"], "listen.insecure"),
        (["--kafka", NOWHERE], "data_dir"),
        (["--data-dir", "d"], "kafka.brokers"),
        (["--nonsense"], "--help"),
        (["--log-level", "loud", "--kafka", NOWHERE, "--data-dir", "d"], "log.level"),
    ],
)
def test_a_bad_start_says_what_is_wrong(flags, says):
    done = subprocess.run([SERVER, *flags], capture_output=True, text=True, timeout=10)
    assert done.returncode == 78 and says in done.stderr, done


@pytest.mark.parametrize(
    "text, says",
    [
        ("limits: {max_event_bytes: 99}", ["limits.max_event_bytes", "99", "1KiB"]),
        ("limits: {max_event_byte: 99}", ["limits.max_event_byte", "max_event_bytes"]),
        ("kafka: {properties: {acks: 1}}", ["acks"]),
    ],
)
def test_a_bad_file_says_key_value_and_bound(tmp_path, text, says):
    file = tmp_path / "bad.yaml"
    file.write_text(text + "\n")
    done = subprocess.run([SERVER, "--config", file, "--kafka", NOWHERE, "--data-dir", "d"], capture_output=True,
                          text=True, timeout=10)
    assert done.returncode == 78 and all(word in done.stderr for word in says), done.stderr


def test_a_second_server_on_the_same_folder_is_refused(server):
    it = server(NOWHERE)
    done = subprocess.run([SERVER, "--kafka", NOWHERE, "--data-dir", it.data_dir, "--listen", "127.0.0.1:0", "--http", ""],
                          capture_output=True, text=True, timeout=10)
    assert done.returncode != 0 and "in use" in done.stderr or "locked" in done.stderr, done.stderr


def test_version():
    assert subprocess.run([SERVER, "--version"], capture_output=True, text=True).stdout.startswith("ingestd ")
