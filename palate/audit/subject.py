"""What is audited: a running server, by either protocol, or a folder that a server of this machine serves meanwhile."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from palate.audit.endpoints import OipScorer, PalateScorer
from palate.audit.scorer import Scorer
from palate.bulk.calls import Calls
from palate.bulk.commands import limits_of
from palate.bulk.revision import ModelChanged, OneRevision
from palate.client import ChannelOptions, PalateError, RewardClient
from palate.client.types import Aggregate, ScoreOptions, Truncation
from palate.local_server import local_server
from palate.oip.client import OipClient, Tensors
from palate.verify.subject import COMPUTED, check_folder
from palate.waiting import when_ready

_HOW = ScoreOptions(truncation=Truncation.MODEL_DEFAULT, aggregate=Aggregate.MODEL_DEFAULT)
_READY_SECONDS = 600.0


class Protocol(StrEnum):
    """How a server is spoken with."""

    PALATE = "palate"
    OIP = "oip"


@dataclass(frozen=True, slots=True)
class Way:
    """How the calls are made.

    Attributes:
        timeout: Seconds of a call.
        wait: Seconds for which a server that still starts is waited for.
        batch: Most texts of a call.
        waiting: Is told that a server is waited for.
        options: Access and sizes.
        keep: Folder in which scores are kept.
    """

    timeout: float
    wait: float
    batch: int
    waiting: Callable[[PalateError], None]
    options: ChannelOptions
    keep: Path


@dataclass(frozen=True, slots=True)
class Source:
    """What gave the scores.

    Attributes:
        model: Name of the model.
        revision: Its revision, or version; empty where the server names none.
        engine: What computed.
        dtype: In which number format; empty where the server does not say.
        endpoint: Where it was asked.
        tells_cuts: Whether it says which texts were cut; where it does not, those that are counted are none.
    """

    model: str
    revision: str
    engine: str
    dtype: str
    endpoint: str
    tells_cuts: bool = True

    @property
    def key(self) -> str:
        """A name for files with its scores, which are never mixed with those of another."""
        endpoint = "" if self.revision else self.endpoint
        cuts = "cuts told" if self.tells_cuts else "cuts not told"
        parts = (self.model, self.revision, self.engine, self.dtype, endpoint, cuts)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Server:
    """A server somewhere.

    Attributes:
        target: Its address.
        model: Name of the model; empty = its default.
        revision: Revision, or version, to insist on; empty = any.
        tensors: What a server of the Open Inference Protocol calls them; None = it speaks palate.v1.
    """

    target: str
    model: str = ""
    revision: str = ""
    tensors: Tensors | None = None


def opened(subject: Server | Path, way: Way) -> AbstractContextManager[tuple[Scorer, Source]]:
    """What scores, and what it is; a path is a folder to serve meanwhile.

    Raises:
        FolderError: The folder holds no reward model.
        ServerStartError: It cannot be served.
        ModelChanged: The server has another revision.
        Incompatible: A server of the Open Inference Protocol has other inputs and outputs.
        CallError: The server does not answer.
    """
    if isinstance(subject, Path):
        return _served(subject, way)
    return _running(subject, way) if subject.tensors is None else _running_oip(subject, subject.tensors, way)


@contextmanager
def _running(server: Server, way: Way) -> Iterator[tuple[Scorer, Source]]:
    target, model = server.target, server.model
    with RewardClient(target, timeout=way.timeout, model=model, options=way.options) as client:
        served = when_ready(client.model_info, way.wait).provenance
    _insist(server, served.revision)
    pinned = RewardClient(target, timeout=way.timeout, model=model, revision=served.revision, options=way.options)
    with pinned as client:
        limits = limits_of(client.model_info(), way.options, _HOW, way.batch)
        calls = Calls(client, _HOW, OneRevision((), way.keep, served.revision), way.waiting)
        yield PalateScorer(calls, limits), Source(served.model, served.revision, served.engine, served.dtype, target)


@contextmanager
def _running_oip(server: Server, tensors: Tensors, way: Way) -> Iterator[tuple[Scorer, Source]]:
    target, model = server.target, server.model
    with OipClient(target, model=model, timeout=way.timeout, tensors=tensors, options=way.options) as client:
        info = when_ready(client.model_info, way.wait)
        _insist(server, info.version)
        source = Source(info.name, info.version, info.platform, "", target, info.tells_cuts)
        yield OipScorer(client, info, way.batch, way.waiting), source


@contextmanager
def _served(folder: Path, way: Way) -> Iterator[tuple[Scorer, Source]]:
    """By a process that ends with the context and remembers no score."""
    check_folder(folder)
    command = ["-m", "services.reward", "--model", str(folder), *COMPUTED]
    with (
        local_server(command, ready_seconds=_READY_SECONDS) as process,
        _running(Server(process.target), way) as found,
    ):
        yield found


def _insist(server: Server, revision: str) -> None:
    if server.revision not in ("", revision):
        raise ModelChanged(f"{server.target} serves revision {revision}, not {server.revision}; serve that one")
