"""A run that learns from a branch of the hub learns from one commit of it, whatever becomes of the branch."""

import json
from pathlib import Path
from random import Random

import datasets
import pytest

from tests.hub_server import COMMIT, MOVED, ask, hub_over
from tests.tiny_models import make_tiny_policy
from trainer.data.lines import write_rows
from trainer.reward_model.commits import commits_of, with_commits
from trainer.reward_model.config import RewardTrainConfig
from trainer.reward_model.train import run_reward
from trainer.run_folder import RunFolderError, check_folder

PINNED = f"hub:org/rows@{COMMIT}:train"


def rows(seed):
    rng = Random(seed)
    pairs = [{"prompt": f"What of {number}?", "chosen": "It is honest.", "rejected": "A lie."} for number in range(40)]
    return rng.sample(pairs, len(pairs))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with the set org/rows, whose next commit has other rows."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "prepared")
    for number, name in enumerate(("hub", "later")):
        write_rows(tmp_path / name / "datasets" / "org" / "rows" / "train.jsonl", rows(number)[number * 10 :])
    with hub_over(tmp_path / "hub") as server:
        ask(monkeypatch, server, tmp_path / "cache")
        server.commits[MOVED] = tmp_path / "later"
        yield server


@pytest.fixture
def config(tmp_path):
    return RewardTrainConfig(
        out=tmp_path / "rm",
        model=make_tiny_policy(tmp_path / "start", 0, chat=True),
        data=Path("hub:org/rows:train"),
        threads=1,
        batch_size=8,
        max_steps=2,
        checkpoint_every=1,
        samples=0,
        progress=False,
    )


def test_a_resumed_run_goes_on_with_its_commit_although_the_branch_has_moved(hub, config):
    first = run_reward(config)
    hub.heads = [MOVED]
    again = run_reward(config.model_copy(update={"resume": True, "data": Path("hub:org/rows:train")}))
    assert again.data == first.data
    assert json.loads((config.out / "settings.json").read_text())["data"] == PINNED
    assert json.loads((config.out / "report.json").read_text())["sources"] == {"data": PINNED}
    assert PINNED in (config.out / "card.html").read_text()

    other = config.model_copy(update={"resume": True, "data": Path(f"hub:org/rows@{MOVED}:train")})
    with pytest.raises(RunFolderError, match=rf"data \(was '{PINNED}', is 'hub:org/rows@{MOVED}:train'\)"):
        run_reward(other)
    check_folder(config.model_copy(update={"resume": True, "data": Path(PINNED)}))


def test_members_that_are_left_learn_from_the_same_commit(hub, config, monkeypatch):
    settings = config.model_copy(update={"members": 2})
    monkeypatch.setattr("trainer.reward_model.ensemble._learn_member", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_reward(settings)
    hub.heads = [MOVED]
    resumed = settings.model_copy(update={"resume": True})
    assert commits_of(resumed) == {"hub:org/rows@main": COMMIT}
    assert commits_of(settings) == {"hub:org/rows@main": MOVED}


def test_what_a_run_began_with_must_be_readable(hub, config):
    config.out.mkdir()
    (config.out / "commits.json").write_text("[]")
    with pytest.raises(RunFolderError, match=r"commits\.json cannot be read .* with what the run began"):
        commits_of(config.model_copy(update={"resume": True}))


def test_two_parts_of_one_set_are_of_one_commit(hub, config):
    hub.heads = [COMMIT, MOVED]
    both = config.model_copy(update={"held_out": Path("hub:org/rows@main:test")})
    commits = commits_of(both)
    assert commits == {"hub:org/rows@main": COMMIT}
    found = with_commits(both, commits)
    assert (str(found.data), str(found.held_out)) == (PINNED, f"hub:org/rows@{COMMIT}:test")


def test_what_is_not_on_the_hub_has_no_commit(config):
    local = config.model_copy(update={"data": Path("rows.jsonl")})
    assert commits_of(local) == {}
    assert with_commits(local, {}) == local


def _interrupted(*_):
    raise KeyboardInterrupt
