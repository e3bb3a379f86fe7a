"""Checkpoints that hold everything a run needs to go on, written so that a killed run leaves a whole one behind."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from palate.models.weights import untied_state_dict
from trainer.ppo import points
from trainer.ppo.errors import CheckpointDamaged, CheckpointNotWritten, CheckpointRefused
from trainer.ppo.model import ActorCritic
from trainer.ppo.rewards import ScoreScale
from trainer.ppo.state import RunIdentity, RunState

_LOG = logging.getLogger(__name__)
_FORMAT = 3
_MODEL, _TRAINER, _STATE, _CHECKSUMS = "model.safetensors", "trainer.pt", "state.json", "checksums.json"
_FILES = frozenset({_MODEL, _TRAINER, _STATE})
_PREFIX = "step-"


class Stateful(Protocol):
    """What has a state to keep: an optimiser, or whatever stands for those of several ranks."""

    def state_dict(self) -> dict[str, Any]:
        """The state."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes back to a state."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a checkpoint says beside the tensors, which are back in their places."""

    state: RunState
    identity: RunIdentity


class CheckpointFolder:
    """The checkpoints of a run, newest kept.

    Args:
        path: Their folder; made when the first is written.
        keep: How many stay.
    """

    def __init__(self, path: Path, keep: int) -> None:
        self._path = path
        self._keep = keep

    def save(
        self,
        model: ActorCritic,
        optimizer: Stateful,
        shuffler: torch.Generator,
        state: RunState,
        identity: RunIdentity,
    ) -> Path:
        """Writes a checkpoint beside the others, then makes it count by renaming it; returns its folder.

        Raises:
            CheckpointNotWritten: There is no room, or the disk takes nothing; the checkpoints before it stay.
        """
        points.reach("checkpoint")
        target = self._path / f"{_PREFIX}{state.step:06d}"
        draft = self._path / f".draft-{os.getpid()}"
        shutil.rmtree(draft, ignore_errors=True)
        try:
            self._write(draft, model, optimizer, shuffler, {"state": asdict(state), "identity": asdict(identity)})
            self._put(draft, target)
        except (OSError, SafetensorError, RuntimeError) as error:  # torch says RuntimeError of a disk that is full
            shutil.rmtree(draft, ignore_errors=True)
            raise CheckpointNotWritten(_explain(target, error)) from error
        self._rotate()
        return target

    def _write(
        self,
        draft: Path,
        model: ActorCritic,
        optimizer: Stateful,
        shuffler: torch.Generator,
        document: dict[str, Any],
    ) -> None:
        """All files, on the disk."""
        draft.mkdir(parents=True)
        save_file({k: v.contiguous() for k, v in _learnt(model).items()}, draft / _MODEL)
        points.reach("checkpoint-half")
        generators = {"torch": torch.get_rng_state(), "shuffler": shuffler.get_state()}
        torch.save({"optimizer": optimizer.state_dict(), "generators": generators}, draft / _TRAINER)
        (draft / _STATE).write_text(json.dumps({"format": _FORMAT, **document}, indent=2) + "\n")
        seal(draft)
        for file in [*draft.iterdir(), draft]:
            _sync(file)
        points.reach("checkpoint-whole")

    def _put(self, draft: Path, target: Path) -> None:
        """Gives what is whole its name."""
        if target.exists():  # written by an earlier start that was gone back on; the one before it is still there
            shutil.rmtree(target)
        draft.rename(target)
        _sync(self._path)
        points.reach("checkpoint-counts")

    def restore(self, model: ActorCritic, optimizer: Stateful, shuffler: torch.Generator) -> Restored | None:
        """Goes back to the newest checkpoint that is whole; None where there is none at all.

        Damaged ones are named, and set aside so that they neither count nor push others out.

        Raises:
            CheckpointDamaged: There are checkpoints, and not one of them is whole.
            CheckpointRefused: The newest whole one is of another format or another model.
        """
        damaged: dict[Path, CheckpointDamaged] = {}
        for folder in reversed(self._all()):
            try:
                restored = restore(folder, model, optimizer, shuffler)
            except CheckpointDamaged as error:
                damaged[folder] = error
            else:
                _set_aside(damaged, folder)
                return restored
        if damaged:
            told = "; ".join(map(str, damaged.values()))
            raise CheckpointDamaged(f"no checkpoint is whole: {told}. Begin anew with another --out")
        return None

    def _all(self) -> list[Path]:
        return sorted(self._path.glob(f"{_PREFIX}*")) if self._path.is_dir() else []

    def _rotate(self) -> None:
        for old in self._all()[: -self._keep]:
            shutil.rmtree(old)
        for draft in self._path.glob(".draft-*"):  # of a process that was killed
            shutil.rmtree(draft, ignore_errors=True)


def restore(folder: Path, model: ActorCritic, optimizer: Stateful, shuffler: torch.Generator) -> Restored:
    """Puts a checkpoint's tensors back into their places.

    Raises:
        CheckpointDamaged: Its files are not those that were written; nothing was changed.
        CheckpointRefused: It is of another format or another model.
    """
    _check_seal(folder)
    document = json.loads((folder / _STATE).read_text())
    if document.get("format") != _FORMAT:
        raise CheckpointRefused(f"{folder} has format {document.get('format')}; this version reads {_FORMAT}")
    _load_weights(folder, model, load_file(folder / _MODEL))
    trainer = torch.load(folder / _TRAINER, weights_only=True)
    optimizer.load_state_dict(trainer["optimizer"])
    torch.set_rng_state(trainer["generators"]["torch"])
    shuffler.set_state(trainer["generators"]["shuffler"])
    return Restored(_state(document["state"]), RunIdentity(**document["identity"]))


def _set_aside(damaged: Mapping[Path, CheckpointDamaged], used: Path) -> None:
    for folder, problem in damaged.items():
        aside = folder.with_name(f"damaged-{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        _LOG.error("%s; going on from %s, and keeping the damaged one as %s", problem, used.name, aside.name)


def seal(folder: Path) -> None:
    """Writes the digests of a checkpoint's files beside them."""
    digests = {name: _digest(folder / name) for name in sorted(_FILES)}
    (folder / _CHECKSUMS).write_text(json.dumps(digests, indent=2) + "\n")


def _check_seal(folder: Path) -> None:
    try:
        written = json.loads((folder / _CHECKSUMS).read_text())
        wrong = [name for name in sorted(_FILES) if _digest(folder / name) != written[name]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointDamaged(f"{folder} is damaged: {type(error).__name__}: {error}") from error
    if wrong:
        raise CheckpointDamaged(f"{folder} is damaged: {', '.join(wrong)} is not what was written (SHA-256)")


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _learnt(model: ActorCritic) -> dict[str, Tensor]:
    """Every tensor but those of frozen parameters, which are in the folder of --policy; tied ones once."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in untied_state_dict(model).items() if name not in frozen}


def _load_weights(folder: Path, model: ActorCritic, tensors: dict[str, Any]) -> None:
    """Every tensor that learns comes from the checkpoint; tied ones stand for each other."""
    expected = _learnt(model)
    if expected.keys() != tensors.keys() or any(expected[k].shape != v.shape for k, v in tensors.items()):
        raise CheckpointRefused(f"{folder} is of another model than --policy, --ppo.critic-init and --lora make")
    model.load_state_dict(tensors, strict=False)


def _state(values: dict[str, Any]) -> RunState:
    scale, window = values.pop("scale"), tuple(values.pop("drop_window"))
    scales = {name: ScoreScale(**each) for name, each in values.pop("reward_scales").items()}
    return RunState(
        **values,
        scale=None if scale is None else ScoreScale(**scale),
        drop_window=window,
        reward_scales=scales,
    )


def _explain(target: Path, error: Exception) -> str:
    room = f"{shutil.disk_usage(target.parent).free // 2**20} MiB are free" if target.parent.exists() else "no folder"
    return (
        f"{target} cannot be written ({error}; {room}). The run is whole up to the checkpoint before it: make room, or "
        "the disk writable, and go on with --resume"
    )


def _sync(path: Path) -> None:
    """Waits until a file, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
