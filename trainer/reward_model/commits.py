"""Which commits of the hub a run learns from: found once, written down, and gone on with when the run is resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from palate.file_errors import cause_of
from palate.hub import is_on_hub
from trainer.data.repository import at_commit, commit_of, hub_of
from trainer.reward_model.config import RewardTrainConfig
from trainer.run_folder import RunFolderError

_FILE = "commits.json"


def commits_of(config: RewardTrainConfig) -> dict[str, str]:
    """The commit of every set on the hub, by its name: in a resumed run the one that it began with, else the newest.

    Raises:
        DataError: A name is none, or the hub has nothing by it.
        DataAway: The hub cannot be reached.
        RunFolderError: It cannot be read what a resumed run began with.
    """
    asked = dict.fromkeys(hub_of(source) for source in _on_hub(config).values())
    before = _written(config.out / _FILE) if asked and config.resume else {}
    return {str(hub): before.get(str(hub)) or commit_of(hub) for hub in asked}


def with_commits(config: RewardTrainConfig, commits: Mapping[str, str]) -> RewardTrainConfig:
    """The same run, with commits instead of branches and tags."""
    found = {name: at_commit(source, commits[str(hub_of(source))]) for name, source in _on_hub(config).items()}
    return config.model_copy(update=found)


def write_commits(out: Path, commits: Mapping[str, str]) -> None:
    """Writes them down for when the run is resumed; nothing where nothing is on the hub."""
    if commits:
        draft = out / f"{_FILE}.draft"
        draft.write_text(json.dumps(commits, indent=2) + "\n", encoding="utf-8")
        draft.replace(out / _FILE)


def _on_hub(config: RewardTrainConfig) -> dict[str, Path]:
    return {name: source for name, source in config.given().items() if is_on_hub(source)}


def _written(file: Path) -> Mapping[str, str]:
    """Empty before the run has begun."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {str(name): str(commit) for name, commit in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise RunFolderError(
            f"{file} cannot be read ({cause_of(error)}), so nobody knows from which commit the run began; "
            "give another --out"
        ) from error
