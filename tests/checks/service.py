"""A server that is ended in every way, and comes back at the same address."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from palate.client import Tls
from palate.local_server import LocalServer, local_server

READY_SECONDS = 600.0
"""How long a server may take to be ready on a busy machine."""


class Service:
    """A server process at one address."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        probe_tls: Tls | None = None,
    ) -> None:
        self.name = name
        self.kills = 0
        self._command = command
        self._log = log
        self._host = host
        self._probe_tls = probe_tls
        self._stack = ExitStack()
        self._server = self._start(port)

    @property
    def target(self) -> str:
        """Its address."""
        return self._server.target

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._server.process.pid

    @property
    def log(self) -> Path:
        """What it says."""
        return self._log

    @property
    def ended(self) -> bool:
        """Whether its process is over."""
        return self._server.process.poll() is not None

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.target.rpartition(":")[2])

    def kill(self) -> None:
        """Ends it as kill -9 does."""
        self.kills += 1
        self._server.process.kill()
        self._server.process.wait()
        self._stack.close()

    def send(self, number: int) -> None:
        """Sends it a signal."""
        self._server.process.send_signal(number)

    def drain(self) -> int:
        """Ends it as Kubernetes does, by SIGTERM; gives its exit code."""
        code = self._server.stop()
        self._stack.close()
        return code

    def restart(self) -> None:
        """Starts it again where it was, and waits until it is ready."""
        self._server = self._start(self.port)

    @property
    def metrics_target(self) -> str:
        """Where its metrics are."""
        return self._server.metrics_target

    def samples(self, name: str, **labels: str) -> float:
        """Sum of a metric's samples that have these labels."""
        with urlopen(f"http://{self.metrics_target}/metrics", timeout=30) as page:
            families = text_string_to_metric_families(page.read().decode())
        found = (sample for family in families for sample in family.samples if sample.name == name)
        return sum(sample.value for sample in found if labels.items() <= sample.labels.items())

    def close(self) -> None:
        """Ends it for good."""
        self._stack.close()

    def _start(self, port: int) -> LocalServer:
        return self._stack.enter_context(
            local_server(
                self._command,
                port=port,
                log=self._log,
                ready_seconds=READY_SECONDS,
                host=self._host,
                probe_tls=self._probe_tls,
            )
        )
