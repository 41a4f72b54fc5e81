"""The README's commands, run as they are printed; only addresses are put in the place of the printed ones."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
import yaml

from harness.client import PUBLISHED, transaction
from harness.paths import BUILD, ROOT, SERVER
from harness.process import Process, free_port, wait_for
from harness.server import Ingestd

README = (ROOT / "README.md").read_text()
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.S))


def commands() -> list[str]:
    """Those of the tools, each with all its lines: to where its quotes are closed and no backslash ends the line."""
    found, open_command = [], ""
    for line in SHELL.splitlines():
        if open_command or (line.startswith(("grpcurl ", "kcat ", "ingestctl ")) and not line.startswith(("ingestctl store", "ingestctl consume", "ingestctl failed"))):
            open_command += line + "\n"
            if open_command.count("'") % 2 == 0 and not line.endswith("\\"):
                found.append(open_command)
                open_command = ""
    return found


@pytest.fixture
def trial(tmp_path):
    """The server as script/run starts it without Kafka. Returns the replacements for the printed addresses."""
    target, file = f"127.0.0.1:{free_port()}", tmp_path / "kafka-address"
    flags = ["--trial", "--trial-address-file", str(file), "--listen", target, "--http", f"127.0.0.1:{free_port()}"]
    process = Process([str(SERVER), *flags], tmp_path / "ingestd.log")
    process.start()
    wait_for(lambda: file.exists() and file.read_text(), "the trial's address")
    yield {"localhost:50051": target, "build/trial/kafka-address": str(file)}
    assert process.terminate() == 0
    data = re.search(r"/\S*ingest-trial-\w+", process.log.read_text())
    assert data is None or not (ROOT / data[0]).exists(), "the throwaway folder is still there"


def shell(command: str, replacements: dict[str, str]) -> str:
    for old, new in replacements.items():
        command = command.replace(old, new)
    path = f"PATH={BUILD / 'tools/bin'}:{BUILD / 'release'}:$PATH INGEST_SERVER={replacements.get('localhost:50051', '')}"
    done = subprocess.run(["bash", "-c", f"export {path}; {command}"], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_every_command_in_order(trial):
    assert len(commands()) == 12, commands()
    said = {command: shell(command, trial) for command in commands()}
    read = next(text for command, text in said.items() if command.startswith("kcat"))
    assert '"name":"Ada"' in read
    status = next(text for command, text in said.items() if "GetEventStatus" in command)
    assert re.search("PENDING|PUBLISHED", status)
    assert "2 stored" in next(text for command, text in said.items() if command.startswith("ingestctl publish"))


def test_a_command_consumes(server, kafka, client, tmp_path):
    """The lines as printed, until ^C."""
    [consume, failed] = re.findall(r"^(ingestctl (?:consume.*?ends it|failed.*?))$", SHELL, re.M | re.S)
    it, file, folder = server(kafka), tmp_path / "kafka-address", tmp_path / "scripts"
    file.write_text(kafka.bootstrap)
    client(it).publish(transaction("block_user", id="b-1", data={"n": 1}), PUBLISHED)
    addresses = {"build/trial/kafka-address": str(file), "/tmp/scripts": str(folder), "--group": f"--topic {it.transactions} --group"}
    words = consume
    for old, new in addresses.items():
        words = words.replace(old, new)
    one = Process(["bash", "-c", "exec " + words], tmp_path / "consume.log", {"PATH": f"{BUILD / 'release'}:{os.environ['PATH']}"})
    one.start()
    wait_for(lambda: one.log.read_text().count('tests/b-1/0/') == 2, "both effects", 60)
    assert 'tests/b-1/0/index/user: {"n":1}' in one.log.read_text()
    assert "CODE" in shell(failed, addresses)
    assert one.terminate(20) == 0


def test_the_configuration_shown_is_accepted(tmp_path):
    [shown] = re.findall(r"```yaml\n(.*?)```", README, re.S)
    file = tmp_path / "ingestd.yaml"
    file.write_text(shown)
    done = subprocess.run([SERVER, "--config", file, "--check-config"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["routes"][0]["format"] == "json"


def test_the_methods_named_exist(kafka, server, client):
    it: Ingestd = server(kafka)
    client(it).publish(transaction("create_user"), PUBLISHED)
    listed = shell(f"grpcurl -plaintext {it.target} describe", {})
    for service, method in re.findall(r"`(\w+Service)/(\w+)`", README):
        assert f"rpc {method} " in listed, f"{service}/{method}"
