"""What is audited: a running server, by either protocol, or a folder that a server of this machine serves meanwhile."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        batch: Most texts of a call.
        waiting: Is told that a server is waited for.
        options: Access and sizes.
        keep: Folder in which scores are kept.
    """

    timeout: float
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
    """

    model: str
    revision: str
    engine: str
    dtype: str
    endpoint: str

    @property
    def key(self) -> str:
        """A name for files with its scores, which are never mixed with those of another."""
        parts = (self.model, self.revision, self.engine, self.dtype, "" if self.revision else self.endpoint)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@contextmanager
def running(target: str, model: str, revision: str, way: Way) -> Iterator[tuple[Scorer, Source]]:
    """A reward service.

    Raises:
        ModelChanged: It serves another revision.
        CallError: It does not answer.
    """
    with RewardClient(target, timeout=way.timeout, model=model, options=way.options) as client:
        served = client.model_info().provenance
    if revision not in ("", served.revision):
        raise ModelChanged(f"{target} serves revision {served.revision}, not {revision}; serve that one")
    pinned = RewardClient(target, timeout=way.timeout, model=model, revision=served.revision, options=way.options)
    with pinned as client:
        limits = limits_of(client, way.options, _HOW, way.batch)
        calls = Calls(client, _HOW, OneRevision((), way.keep, served.revision), way.waiting)
        yield PalateScorer(calls, limits), Source(served.model, served.revision, served.engine, served.dtype, target)


@contextmanager
def served_folder(folder: Path, way: Way) -> Iterator[tuple[Scorer, Source]]:
    """A folder, served by a process that ends with the context and remembers no score.

    Raises:
        FolderError: It is no reward model.
        ServerStartError: It cannot be served.
    """
    check_folder(folder)
    command = ["-m", "services.reward", "--model", str(folder), *COMPUTED]
    with local_server(command, ready_seconds=_READY_SECONDS) as server, running(server.target, "", "", way) as opened:
        yield opened


@contextmanager
def running_oip(target: str, model: str, tensors: Tensors, way: Way) -> Iterator[tuple[Scorer, Source]]:
    """A server of the Open Inference Protocol.

    Raises:
        Incompatible: The model's inputs and outputs are others.
        CallError: It does not answer.
    """
    client = OipClient(target, model=model, timeout=way.timeout, tensors=tensors, options=way.options)
    with client:
        info = client.model_info()
        yield (
            OipScorer(client, info, way.batch, way.waiting),
            Source(info.name, info.version, info.platform, "", target),
        )
