"""What is verified: a running server, or one that is started for an engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

PROCESSOR = "cpu"


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
    device: str = PROCESSOR

    @property
    def title(self) -> str:
        """As the table names it."""
        place = "" if self.device == PROCESSOR else f" on {self.device}"
        return f"{self.engine.value}{place}{', strict' if self.strict else ''}"


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
            raise FolderError(f"{part} holds a policy, which gives no scores; give the folder of a reward model")


def servers(folder: Path, engines: Sequence[EngineChoice], device: str, *, strict: bool) -> list[Started]:
    """A server for each engine on the device; where that is a GPU, after one in float32 on the processor.

    Args:
        folder: The reward model.
        engines: Which; empty = every one that machine and folder have there.
        device: As `palate serve reward` is told it: auto, cpu, cuda, cuda:1 and so on.
        strict: Whether they promise the same bits in any company.

    Raises:
        FolderError: It is no device, an engine has none of the kind here, or an ensemble cannot be read.
    """
    chosen = engines or engines_here(folder, device)
    found = [Started(folder, each, strict, _place(folder, each, device)) for each in chosen]
    if all(each.device == PROCESSOR for each in found):
        return found
    references = engines_here(folder, PROCESSOR)
    if not references:
        raise FolderError(f"nothing here computes {folder} on the processor, to compare with: install torch or export")
    reference = Started(folder, references[0], strict)
    return list(dict.fromkeys([reference, *found]))


def engines_here(folder: Path, device: str = PROCESSOR) -> list[EngineChoice]:
    """The engines that this machine and folder have on a device; PyTorch, the usual reference, first.

    Raises:
        FolderError: None of them computes there, or it is an ensemble that cannot be read.
    """
    installed = [EngineChoice.TORCH] if find_spec("torch") and find_spec("transformers") else []
    if find_spec("onnxruntime") and all((part / "model.onnx").is_file() for part in _parts(folder)):
        installed.append(EngineChoice.ONNX)
    places: dict[EngineChoice, str] = {}
    problems: list[FolderError] = []
    for each in installed:
        try:
            places[each] = _place(folder, each, device)
        except FolderError as problem:
            problems.append(problem)
    if problems and not places:
        raise problems[0]
    has_bfloat16 = EngineChoice.TORCH in places and _has_bfloat16(places[EngineChoice.TORCH])
    return [*places, *([EngineChoice.TORCH_BFLOAT16] if has_bfloat16 else [])]


def _place(folder: Path, engine: EngineChoice, device: str) -> str:
    """Where the engine computes: "cpu", "cuda:0" and so on; as it was given where nobody here can say.

    Raises:
        FolderError: It is no device, or the engine has no such GPU here.
    """
    if device == PROCESSOR or not find_spec("onnxruntime" if engine is EngineChoice.ONNX else "torch"):
        return device
    if engine is EngineChoice.ONNX:
        from palate.models.onnx_device import onnx_gpu

        number = onnx_gpu(device, _precision(folder))
        return PROCESSOR if number is None else f"cuda:{number}"
    from palate.models.torch_device import torch_device

    return str(torch_device(device))


def _precision(folder: Path) -> str:
    """Of the folder's model.onnx; of an ensemble int8 where a member's is."""
    exports = [load_manifest(part).manifest.onnx for part in _parts(folder)]
    return "int8" if any(each is not None and each.precision == "int8" for each in exports) else "float32"


def _has_bfloat16(place: str) -> bool:
    from palate.models.torch_device import has_bfloat16, torch_device

    return has_bfloat16(torch_device(place))


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
    flags += ["--device", subject.device]
    return ["-m", "services.reward", "--model", str(subject.folder), "--engine", engine, *COMPUTED, *flags]
