"""One ingestd process with its configuration, ports and data folder; all of them survive a restart."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from .paths import SERVER
from .process import Process, free_port, wait_for


class Ingestd:
    """`config` is laid over the defaults below, key by key: {"limits": {"max_calls": 10}}, {"routes": [...]}."""

    def __init__(
        self,
        folder: Path,
        kafka: str,
        config: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        binary: Path = SERVER,
        flags: tuple[str, ...] = (),
    ):
        assert Path(binary).exists(), f"{binary} is missing: build it first (script/test does)"
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.data_dir = folder / "data"
        self.target = f"127.0.0.1:{free_port()}"
        self.http = f"127.0.0.1:{free_port()}"
        self.config: dict[str, Any] = {
            "listen": {"address": self.target},
            "http": {"address": self.http},
            "data_dir": str(self.data_dir),
            "kafka": {"brokers": kafka},
        }
        _merge(self.config, config or {})
        self._config_file = folder / "ingestd.yaml"
        argv = [str(binary), "--config", str(self._config_file), *flags]
        self.process = Process(argv, folder / "ingestd.log", env)

    def start(self, ready: bool = True, timeout: float = 30) -> Ingestd:
        """Starts it and waits until it is ready; with ready=False until it answers at all."""
        self._config_file.write_text(yaml.safe_dump(self.config, sort_keys=False))
        self.process.start()
        try:
            self.wait("/readyz" if ready else "/livez", timeout)
        except BaseException:
            self.process.kill()
            raise
        return self

    def wait(self, path: str = "/readyz", timeout: float = 30) -> None:
        def ok() -> bool:
            return not self.process.running or self.get(path)[0] == 200

        try:
            wait_for(ok, f"{path} of {self.http}", timeout)
            assert self.process.running, f"ingestd ended with {self.process.wait()}"
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from error

    def stop(self) -> None:
        """Ends it in any case; for the end of a test. A build with sanitizers must have found nothing."""
        self.process.kill()
        self._check_sanitizers()

    def kill9(self) -> None:
        assert self.process.running, f"ingestd is gone:\n{self.log()}"
        self.process.kill()

    def terminate(self, timeout: float = 40) -> None:
        """SIGTERM; it has to end with 0."""
        code = self.process.terminate(timeout)
        self._check_sanitizers()
        assert code == 0, f"ingestd ended with {code}:\n{self.log()}"

    def _check_sanitizers(self) -> None:
        said = self.process.log.read_text(errors="replace") if self.process.log.exists() else ""
        report = re.search(r"(ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|runtime error:).*", said, re.S)
        assert not report, report[0][:6000]

    def restart(self, ready: bool = True) -> Ingestd:
        """Starts it again on the same data and ports; killed first (-9) if it runs."""
        self.process.kill()
        return self.start(ready)

    def pause(self) -> None:
        self.process.pause()

    def resume(self) -> None:
        self.process.resume()

    @property
    def running(self) -> bool:
        return self.process.running

    def log(self, lines: int = 60) -> str:
        return self.process.tail(lines)

    def rss_kib(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])

    def fd_count(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def disk_bytes(self) -> int:
        """What the data folder takes on disk, files deleted while we look left out."""
        total = 0
        for path in self.data_dir.rglob("*"):
            try:
                total += path.stat().st_blocks * 512
            except FileNotFoundError:
                pass
        return total

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an HTTP request."""
        try:
            with urllib.request.urlopen(f"http://{self.http}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self) -> Metrics:
        status, text = self.get("/metrics")
        assert status == 200, text
        return Metrics(text)


class Metrics(dict[str, float]):
    """Samples by name and labels as exposed: 'ingest_events_pending{route="transactions"}'."""

    def __init__(self, text: str):
        super().__init__()
        for line in text.splitlines():
            if line and not line.startswith("#"):
                sample = re.fullmatch(r"(\w+(?:\{.*\})?)\s+(\S+)(?:\s+\d+)?", line)
                assert sample, f"not a sample: {line}"
                self[sample[1]] = float(sample[2])

    def total(self, name: str, **labels: str) -> float:
        """The sum over all samples of this name that have these labels; 0 when there is none."""
        want = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            value
            for sample, value in self.items()
            if sample.partition("{")[0] == name and all(label in sample for label in want)
        )


def _merge(into: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
