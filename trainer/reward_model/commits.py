"""Which commits of the hub a run learns from: found once, written down, and gone on with when the run is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from palate.hub import is_on_hub
from trainer.data.repository import at_commit, commit_of, hub_of
from trainer.reward_model.config import RewardTrainConfig
from trainer.reward_model.pins import read_pins, write_pins

_FILE = "commits.json"


def commits_of(config: RewardTrainConfig) -> dict[str, str]:
    """The commit of every set on the hub, by its name: in a resumed run the one that it began with, else the newest.

    Raises:
        DataError: A name is none, or the hub has nothing by it.
        DataAway: The hub cannot be reached.
        RunFolderError: It cannot be read what a resumed run began with.
    """
    asked = dict.fromkeys(hub_of(source) for source in _on_hub(config).values())
    before = read_pins(config.out / _FILE) if asked and config.resume else {}
    return {str(hub): before.get(str(hub)) or commit_of(hub) for hub in asked}


def with_commits(config: RewardTrainConfig, commits: Mapping[str, str]) -> RewardTrainConfig:
    """The same run, with commits instead of branches and tags."""
    found = {name: at_commit(source, commits[str(hub_of(source))]) for name, source in _on_hub(config).items()}
    return config.model_copy(update=found)


def write_commits(out: Path, commits: Mapping[str, str]) -> None:
    """Writes them down for when the run is resumed; nothing where nothing is on the hub."""
    write_pins(out / _FILE, commits)


def _on_hub(config: RewardTrainConfig) -> dict[str, Path]:
    return {name: source for name, source in config.given().items() if is_on_hub(source)}
