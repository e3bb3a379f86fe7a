"""A real Envoy and a real nginx before two servers, with the configurations of examples/proxies."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.ports import free_port

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "proxies"
_PORTS = ("50051", "50061")
"""Of the two servers in the examples."""

WAYS = ("envoy", "nginx")


def program(name: str) -> str | None:
    """Where a proxy is; None where it is not installed. `make ops-env` brings Envoy, nginx-light of Debian nginx."""
    return shutil.which(name) or shutil.which(f"/usr/sbin/{name}") or shutil.which(ROOT / ".venv-ops" / "bin" / name)


@contextmanager
def proxy(name: str, ports: Sequence[int], folder: Path) -> Iterator[str]:
    """Runs it before servers at these two ports; gives its address, once it answers.

    Raises:
        RuntimeError: It ends, or does not listen.
    """
    target = f"127.0.0.1:{free_port()}"
    file = folder / ("envoy.yaml" if name == "envoy" else "nginx.conf")
    file.write_text(_configuration(file.name, ports, target, folder))
    path = program(name)
    assert path is not None
    command = {
        "envoy": [path, "-c", str(file), "--log-level", "warning", "--concurrency", "1", "--use-dynamic-base-id"],
        "nginx": [path, "-c", str(file), "-g", "daemon off;"],
    }[name]
    log = folder / f"{name}.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, start_new_session=True)
    try:
        _wait(process, target, log)
        yield target
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _configuration(name: str, ports: Sequence[int], target: str, folder: Path) -> str:
    """The example, with addresses and files of this run."""
    text = (EXAMPLES / name).read_text()
    port = target.rpartition(":")[2]
    changes = {"50050": port, "9901": str(free_port()), "/tmp/palate-nginx": str(folder / "nginx")}
    changes |= dict(zip(_PORTS, map(str, ports), strict=True))
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


def _wait(process: subprocess.Popen[bytes], target: str, log: Path, seconds: float = 60.0) -> None:
    host, _, port = target.rpartition(":")
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, int(port)), 1.0).close()
        except OSError as error:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{process.args!r} does not listen:\n{log.read_text()[-2000:]}") from error
            time.sleep(0.05)
        else:
            return
