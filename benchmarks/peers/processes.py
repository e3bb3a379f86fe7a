"""The other servers: an environment for each, and its process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.bench import Bench, Unavailable
from benchmarks.environments import environment
from benchmarks.load import OK, Target, closed_loop
from benchmarks.offline import CORES
from benchmarks.peers import kserve, scorer
from benchmarks.ports import free_port
from benchmarks.wire import Pair

_READY_SECONDS = 120.0
_COMMON = ("onnxruntime", "tokenizers", "numpy")


@dataclass(frozen=True, slots=True)
class Peer:
    """Another server.

    Attributes:
        name: What it is called.
        packages: What it needs beside ONNX Runtime and the tokenizer, as pip takes them.
        batch_sizes: What is tried; the quickest is compared.
        scheme: How it is spoken to.
        path: gRPC method or HTTP path.
        batches: Whether it batches.
    """

    name: str
    packages: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    path: str
    scheme: Literal["grpc", "http"] = "http"
    batches: bool = True

    @property
    def request(self) -> Callable[[Pair], bytes]:
        """A pair as the peer takes it."""
        return kserve.infer_request if self.scheme == "grpc" else _json_request

    @property
    def score(self) -> Callable[[bytes], float]:
        """The score in its answer."""
        return kserve.infer_score if self.scheme == "grpc" else _json_score


PEERS = (
    Peer("mosec", ("mosec==0.9.8",), (8, 32), "/inference"),
    Peer("litserve", ("litserve==0.2.19",), (8, 32), "/predict"),
    Peer(
        "pytriton", ("nvidia-pytriton==0.7.0", "numpy<2"), (8, 32), "/inference.GRPCInferenceService/ModelInfer", "grpc"
    ),
    Peer("fastapi", ("fastapi==0.165.0", "uvicorn==0.54.0"), (1, 2), "/score", batches=False),
)


def environment_of(peer: Peer, cache: Path) -> Path:
    """The peer's interpreter; its environment is made where it is not there yet.

    Raises:
        Unavailable: It cannot be installed.
    """
    return environment(peer.name, (*_COMMON, *peer.packages), cache)


@contextmanager
def running(peer: Peer, interpreter: Path, bench: Bench, batch_size: int) -> Iterator[Target]:
    """The peer, ready; its processes are ended at the end.

    Raises:
        Unavailable: It does not start.
    """
    log, port = bench.logs / f"{peer.name}-{batch_size}.log", free_port()
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [str(interpreter), "-m", f"benchmarks.peers.{peer.name}_server"]
    if peer.name == "mosec":
        command += ["--address", "127.0.0.1", "--port", str(port), "--timeout", str(scorer.PATIENCE_SECONDS * 1000)]
    with log.open("wb") as sink:
        settings = _settings(bench.served, batch_size, port)
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=settings, start_new_session=True
        )
    try:
        target = Target(peer.scheme, f"127.0.0.1:{port}", peer.path)
        _wait_until_ready(peer, bench, process, target, log)
        yield target
    finally:
        _end(process)


def _settings(model: Path, batch_size: int, port: int) -> dict[str, str]:
    return {
        **os.environ,
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        # PyTriton's stub embeds Python, and must find this interpreter's library before the system's.
        "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR")),
        scorer.MODEL: str(model.resolve()),
        scorer.THREADS: str(CORES),
        scorer.BATCH: str(batch_size),
        scorer.PORT: str(port),
    }


def _wait_until_ready(peer: Peer, bench: Bench, process: subprocess.Popen[bytes], target: Target, log: Path) -> None:
    request, deadline = peer.request(("a question", "an answer")), time.monotonic() + _READY_SECONDS
    while True:
        try:
            if bench.load(closed_loop, target, [request], 1).answers[0].status == OK:
                return
        except (OSError, EOFError):
            pass  # not there yet
        if process.poll() is not None or time.monotonic() > deadline:
            tail = " ".join(log.read_text(errors="replace").splitlines()[-4:])
            raise Unavailable(f"{peer.name} did not start ({log}): {tail}")
        time.sleep(0.2)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kindly, then for good: the whole group, for some leave workers behind."""
    for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _json_request(pair: Pair) -> bytes:
    return json.dumps({"prompt": pair[0], "completion": pair[1]}).encode()


def _json_score(body: bytes) -> float:
    return float(json.loads(body)["score"])
