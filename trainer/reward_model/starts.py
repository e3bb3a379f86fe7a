"""The models that an ensemble's members start from: alike in what they read, and the same when a run is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from palate.models.ensemble import check_alike
from palate.models.folder import FolderError
from palate.models.manifest import Manifest, digest_folder
from trainer.fit import prepare_process
from trainer.reward_model.config import RewardTrainConfig
from trainer.reward_model.pins import read_pins, write_pins
from trainer.reward_model.start import load_start
from trainer.run_folder import RunFolderError

_FILE = "starts.json"


@dataclass(frozen=True, slots=True)
class _Read:
    """What is kept of a model that was looked at, its weights not among it: all of them at once may be too many."""

    manifest: Manifest
    new_head: bool


def check_starts(config: RewardTrainConfig) -> dict[str, str]:
    """Looks at all models before any member learns; returns the digest of each one's weights, by its folder.

    Raises:
        FolderError: A model cannot be trained like this, two differ in tokenizer or template, or some have a head.
        RunFolderError: In a resumed run, one had other weights when the run began.
    """
    prepare_process(config)
    members = [config.member(number) for number in range(len(config.starts))]
    read = {str(member.model): _read(member) for member in members}
    _check_kinds({folder: found.new_head for folder, found in read.items()})
    digests = {folder: digest_folder(folder, found.manifest) for folder, found in read.items()}
    check_alike(digests)
    weights = {folder: found.weights for folder, found in digests.items()}
    if config.resume:
        _check_pins(config.out, weights)
    return weights


def write_starts(out: Path, weights: Mapping[str, str]) -> None:
    """Writes them down for when the run is resumed."""
    write_pins(out / _FILE, weights)


def _read(member: RewardTrainConfig) -> _Read:
    start = load_start(member)
    return _Read(start.manifest, start.new_head)


def _check_kinds(new: Mapping[str, bool]) -> None:
    if len(set(new.values())) > 1:
        trained = ", ".join(folder for folder, is_new in new.items() if not is_new)
        raise FolderError(
            f"{trained}: a reward model already, among models that are none, which may have learnt what the others are "
            "measured on. Start all members from reward models, or none"
        )


def _check_pins(out: Path, weights: Mapping[str, str]) -> None:
    before = read_pins(out / _FILE)
    changed = [folder for folder, digest in weights.items() if before.get(folder, digest) != digest]
    if changed:
        raise RunFolderError(
            f"{', '.join(changed)} had other weights when the run in {out} began, and members that are still to come "
            "would start from these: put the weights back, or give another --out"
        )
