"""What is verified: a running server, or one that is started for an engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

from palate.client import ChannelOptions, RewardClient
from palate.local_server import local_server
from palate.models.ensemble import is_ensemble, read_ensemble
from palate.models.folder import FolderError
from palate.models.manifest import load_manifest

_READY_SECONDS = 600.0


class EngineChoice(StrEnum):
    """An engine, and the number format it is told."""

    TORCH = "torch"
    ONNX = "onnx"
    TORCH_BFLOAT16 = "torch-bfloat16"


@dataclass(frozen=True, slots=True)
class Running:
    """A server somewhere."""

    target: str
    model: str
    options: ChannelOptions

    @property
    def title(self) -> str:
        """As the table names it."""
        return self.target


@dataclass(frozen=True, slots=True)
class Started:
    """A server of this machine, as long as it is needed."""

    folder: Path
    engine: EngineChoice
    strict: bool

    @property
    def title(self) -> str:
        """As the table names it."""
        return f"{self.engine.value}{', strict' if self.strict else ''}"


Subject = Running | Started


COMPUTED = ("--cache-items", "0", "--no-deduplicate")
"""Flags of a server that computes every score: one that is remembered proves nothing."""


def check_folder(folder: Path) -> None:
    """Reads what a server would read first, so that a wrong folder is told before one is started.

    Raises:
        FolderError: It, or a member of the ensemble that it is, is no reward model.
    """
    for part in _parts(folder):
        if load_manifest(part).manifest.kind != "reward":
            raise FolderError(f"{part} holds a policy; what is verified is the scores of a reward model")


def engines_here(folder: Path) -> list[EngineChoice]:
    """The engines that this machine and folder have; PyTorch, the usual reference, first.

    Raises:
        FolderError: It is an ensemble that cannot be read.
    """
    engines = [EngineChoice.TORCH] if find_spec("torch") and find_spec("transformers") else []
    has_onnx = find_spec("onnxruntime") and all((part / "model.onnx").is_file() for part in _parts(folder))
    return [*engines, *([EngineChoice.ONNX] if has_onnx else [])]


def _parts(folder: Path) -> list[Path]:
    return [folder / member.path for member in read_ensemble(folder).members] if is_ensemble(folder) else [folder]


@contextmanager
def open_subject(subject: Subject, timeout: float) -> Iterator[RewardClient]:
    """A client of it; `timeout` in seconds is every call's.

    Raises:
        ServerStartError: The server could not be started, or refuses to serve the folder.
    """
    if isinstance(subject, Running):
        with RewardClient(subject.target, timeout=timeout, model=subject.model, options=subject.options) as client:
            yield client
        return
    with (
        local_server(_command(subject), ready_seconds=_READY_SECONDS) as server,
        RewardClient(server.target, timeout=timeout) as client,
    ):
        yield client


def _command(subject: Started) -> list[str]:
    engine, _, dtype = subject.engine.value.partition("-")
    flags = [*(["--dtype", dtype] if dtype else []), *(["--strict"] if subject.strict else [])]
    return ["-m", "services.reward", "--model", str(subject.folder), "--engine", engine, *COMPUTED, *flags]
