"""Checkpoints that hold everything a run needs to go on, written so that a killed run leaves a whole one behind."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.optim import Optimizer

from palate.models.weights import untied_state_dict
from trainer.ppo.errors import CheckpointRefused
from trainer.ppo.model import ActorCritic
from trainer.ppo.rewards import ScoreScale
from trainer.ppo.state import RunIdentity, RunState

_FORMAT = 1
_MODEL, _TRAINER, _STATE = "model.safetensors", "trainer.pt", "state.json"
_PREFIX = "step-"


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
        optimizer: Optimizer,
        shuffler: torch.Generator,
        state: RunState,
        identity: RunIdentity,
    ) -> Path:
        """Writes a checkpoint beside the others, then makes it count by renaming it; returns its folder."""
        target = self._path / f"{_PREFIX}{state.step:06d}"
        draft = self._path / f".draft-{os.getpid()}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        save_file({k: v.contiguous() for k, v in untied_state_dict(model).items()}, draft / _MODEL)
        generators = {"torch": torch.get_rng_state(), "shuffler": shuffler.get_state()}
        torch.save({"optimizer": optimizer.state_dict(), "generators": generators}, draft / _TRAINER)
        document = {"format": _FORMAT, "state": asdict(state), "identity": asdict(identity)}
        (draft / _STATE).write_text(json.dumps(document, indent=2) + "\n")
        for file in [*draft.iterdir(), draft]:
            _sync(file)
        if target.exists():  # a resumed run passes steps that were done before
            shutil.rmtree(target)
        draft.rename(target)
        _sync(self._path)
        self._rotate()
        return target

    def newest(self) -> Path | None:
        """The last checkpoint; None where there is none."""
        return max(self._all(), default=None)

    def _all(self) -> list[Path]:
        return sorted(self._path.glob(f"{_PREFIX}*")) if self._path.is_dir() else []

    def _rotate(self) -> None:
        for old in self._all()[: -self._keep]:
            shutil.rmtree(old)
        for draft in self._path.glob(".draft-*"):  # of a process that was killed
            shutil.rmtree(draft, ignore_errors=True)


def restore(folder: Path, model: ActorCritic, optimizer: Optimizer, shuffler: torch.Generator) -> Restored:
    """Puts a checkpoint's tensors back into their places.

    Raises:
        CheckpointRefused: It is of another format or another model.
    """
    try:
        document = json.loads((folder / _STATE).read_text())
        tensors = load_file(folder / _MODEL)
        trainer = torch.load(folder / _TRAINER, weights_only=True)
    except (OSError, ValueError, RuntimeError, UnpicklingError, SafetensorError) as error:
        raise CheckpointRefused(f"{folder} cannot be read: {error}. Remove it to resume from the one before") from error
    if document.get("format") != _FORMAT:
        raise CheckpointRefused(f"{folder} has format {document.get('format')}; this version reads {_FORMAT}")
    _load_weights(folder, model, tensors)
    optimizer.load_state_dict(trainer["optimizer"])
    torch.set_rng_state(trainer["generators"]["torch"])
    shuffler.set_state(trainer["generators"]["shuffler"])
    return Restored(_state(document["state"]), RunIdentity(**document["identity"]))


def _load_weights(folder: Path, model: ActorCritic, tensors: dict[str, Any]) -> None:
    """Every tensor of the model comes from the checkpoint; tied ones stand for each other."""
    expected = untied_state_dict(model)
    if expected.keys() != tensors.keys() or any(expected[k].shape != v.shape for k, v in tensors.items()):
        raise CheckpointRefused(f"{folder} is of another model than --policy and --ppo.critic-init make")
    model.load_state_dict(tensors, strict=False)


def _state(values: dict[str, Any]) -> RunState:
    scale = values.pop("scale")
    return RunState(**values, scale=None if scale is None else ScoreScale(**scale))


def _sync(path: Path) -> None:
    """Waits until a file, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
