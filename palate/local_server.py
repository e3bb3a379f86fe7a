"""Servers as child processes, for whoever needs one on this machine: the demo, an audit of a local folder, tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from palate.client.channel import ChannelOptions, Tls, open_channel

_STOP_SECONDS = 20.0
"""How long a server may drain before it is killed."""

_NOT_YET = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
"""What a server says that is starting, busy, or just ending because it could not start."""


class ServerStartError(Exception):
    """A server process ended, or was not ready in time; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A running server.

    Attributes:
        target: Its gRPC address.
        metrics_target: host:port of its Prometheus endpoint.
        process: Its process.
        log: The file with its log.
    """

    target: str
    metrics_target: str
    process: subprocess.Popen[bytes]
    log: Path

    def stop(self) -> int:
        """Drains and ends the process; returns its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@contextmanager
def local_server(
    command: Sequence[str],
    *,
    log: Path | None = None,
    ready_seconds: float = 120.0,
    probe_tls: Tls | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
) -> Iterator[LocalServer]:
    """Starts a server on loopback, yields it when it is ready, and always ends it.

    Args:
        command: What follows the interpreter, e.g. ("-m", "services.reward", "--model", folder).
        log: File for the server's log; default is a temporary one.
        ready_seconds: How long it may take to load.
        probe_tls: How to ask for its health, where it was told to use TLS.
        host: Loopback address to listen on.
        port: Port for gRPC; 0 = a free one.

    Raises:
        ServerStartError: It ended, or took too long.
    """
    with tempfile.TemporaryDirectory(prefix="palate-") as folder:
        announce, log = Path(folder) / "ports.json", log or Path(folder) / "server.log"
        process = _start([*command, "--host", host, "--port", str(port)], announce, log)
        try:
            ports = _wait_for_ports(process, announce, log, time.monotonic() + ready_seconds)
            target = f"{host}:{ports['port']}"
            server = LocalServer(target, f"127.0.0.1:{ports['metrics_port']}", process, log)
            _wait_until_ready(server, time.monotonic() + ready_seconds, ChannelOptions(tls=probe_tls))
            yield server
            server.stop()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _start(command: Sequence[str], announce: Path, log: Path) -> subprocess.Popen[bytes]:
    ports = ["--metrics-port", "0", "--announce", str(announce)]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as sink:
        return subprocess.Popen(
            [sys.executable, *command, *ports, "--exit-with-parent"],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,  # Ctrl-C reaches the parent, which then ends its servers in order
            # Idle threads sleep instead of spin: servers and their parent share the processors.
            env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONUNBUFFERED": "1"},
        )


def _wait_for_ports(process: subprocess.Popen[bytes], announce: Path, log: Path, deadline: float) -> dict[str, int]:
    while not announce.exists():
        if process.poll() is not None:
            raise ServerStartError(f"the server ended with exit code {process.returncode}:\n{_tail(log)}")
        if time.monotonic() > deadline:
            raise ServerStartError(f"the server did not listen in time:\n{_tail(log)}")
        time.sleep(0.02)
    ports: dict[str, int] = json.loads(announce.read_text())
    return ports


def _wait_until_ready(server: LocalServer, deadline: float, options: ChannelOptions) -> None:
    """Asks the health service until it says SERVING; the answer's one field is read without its stubs."""
    with open_channel(server.target, options) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        while True:
            try:
                if check(b"", timeout=5.0) == b"\x08\x01":
                    return
            except grpc.RpcError as error:
                if error.code() not in _NOT_YET:
                    raise
            if server.process.poll() is not None:
                code = server.process.returncode
                raise ServerStartError(f"the server ended with exit code {code} while loading:\n{_tail(server.log)}")
            if time.monotonic() > deadline:
                raise ServerStartError(f"the server was not ready in time:\n{_tail(server.log)}")
            time.sleep(0.05)


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
