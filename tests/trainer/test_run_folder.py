"""A failed start stands in nobody's way, what a user put there stays, and a resumed run has its own settings."""

import json
import shutil

import pytest

from palate.settings import flag_names
from tests.json_lines import read_rows
from tests.tiny_models import make_tiny_policy
from trainer import sft
from trainer.config import PPOConfig
from trainer.data.lines import write_rows
from trainer.ppo.errors import CheckpointRefused
from trainer.ppo.identity import check as check_run
from trainer.ppo.reward_config import RewardConfig
from trainer.pretrain_config import PretrainConfig
from trainer.reward_model.config import RewardTrainConfig
from trainer.run_folder import (
    FREE,
    RunFolderBusy,
    RunFolderError,
    begin_run,
    bound_settings,
    check_folder,
    held,
    learnt_in,
)
from trainer.sft import run_sft
from trainer.sft_config import SftConfig


def config(folder, **changes):
    if not (folder / "base").exists():
        make_tiny_policy(folder / "base", 0, chat=True)
    write_rows(folder / "data.jsonl", [{"prompt": "who?", "completion": "a friend."}] * 4)
    fixed = {"threads": 1, "progress": False, "held_out_share": 0.0, "samples": 0, "batch_size": 2, "max_steps": 4}
    places = {"out": folder / "run", "model": folder / "base", "data": folder / "data.jsonl"}
    return SftConfig(**{**places, **fixed, **changes})


def test_a_run_that_fails_in_its_first_step_can_be_started_again_with_other_settings(tmp_path, monkeypatch):
    def broken(*_):
        raise MemoryError

    monkeypatch.setattr(sft, "completion_loss", broken)
    with pytest.raises(MemoryError):
        run_sft(config(tmp_path))
    monkeypatch.undo()
    assert learnt_in(tmp_path / "run") == []
    assert run_sft(config(tmp_path, learning_rate=5e-4)).fitted.steps == 4
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["learning_rate"] == 5e-4


def test_a_folder_of_the_users_own_is_neither_refused_nor_emptied(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    run_sft(config(tmp_path))
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("resume", [False, True])
def test_a_model_of_the_users_own_is_not_replaced(tmp_path, resume):
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "config.json").write_text("mine")
    with pytest.raises(RunFolderError, match=r"model|settings\.json cannot be read"):
        run_sft(config(tmp_path, resume=resume))
    assert (tmp_path / "run" / "model" / "config.json").read_text() == "mine"


def test_a_resumed_run_logs_and_saves_as_it_is_told_now(tmp_path):
    run_sft(config(tmp_path, checkpoint_every=3, log_every=3, max_steps=6))
    checkpoints, metrics = tmp_path / "run" / "checkpoints", tmp_path / "run" / "metrics.jsonl"
    shutil.rmtree(checkpoints / "checkpoint-6")
    run_sft(config(tmp_path, checkpoint_every=1, log_every=1, max_steps=6, resume=True))
    assert {path.name for path in checkpoints.iterdir()} == {"checkpoint-5", "checkpoint-6"}  # the newest two stay
    assert [row["step"] for row in read_rows(metrics)] == [3, 4, 5, 6]


def test_a_setting_that_did_not_exist_yet_was_as_its_default_is(tmp_path):
    """A run goes on under a version that has learnt another option, unless that is used."""
    with begin_run(config(tmp_path)):
        pass
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1}\n')
    file = tmp_path / "run" / "settings.json"
    settings = json.loads(file.read_text())
    del settings["weight_decay"]
    file.write_text(json.dumps(settings))
    check_folder(config(tmp_path, resume=True))
    with pytest.raises(RunFolderError, match=r"weight_decay \(was 0\.\d*, is 0\.7\)"):
        check_folder(config(tmp_path, resume=True, weight_decay=0.7))


def test_everything_that_decides_what_is_learnt_is_bound(tmp_path):
    before = config(tmp_path)
    with begin_run(before):
        pass
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1}\n')
    check_folder(config(tmp_path, resume=True, checkpoint_every=2, log_every=1, progress=True, threads=2))
    for change in ({"seed": 1}, {"batch_size": 3}, {"epochs": 2.0}, {"schedule": "linear"}):
        (name,) = change
        with pytest.raises(RunFolderError, match=rf"had other settings: {name} \(was .*, is .*\); resume"):
            check_folder(config(tmp_path, resume=True, **change))


def test_what_is_free_exists_and_the_rest_is_bound():
    names = {
        name.replace("-", "_")
        for settings in (PPOConfig, SftConfig, PretrainConfig, RewardTrainConfig)
        for name in flag_names(settings)
    }
    names |= {f"rewards.{name}" for name in RewardConfig.model_fields}
    assert names >= FREE
    bound = bound_settings(PPOConfig(out="o", policy="p", prompts="q"))
    assert {"ppo.kl_coef", "sampling.temperature", "scoring.clip", "seed", "policy", "prompts"} <= bound.keys()
    assert not [name for name in bound if name.startswith(("services", "record", "total"))]
    json.dumps(bound)


def test_of_several_rewards_addresses_are_free_and_what_they_count_is_bound():
    rewards = [{"name": "a", "target": "t:1", "token_file": "f"}, {"name": "b", "max_tokens": 3, "weight": 2.0}]
    bound = bound_settings(PPOConfig(out="o", policy="p", prompts="q", rewards=rewards))
    assert (bound["rewards.0.name"], bound["rewards.1.weight"], bound["rewards.1.max_tokens"]) == ("a", 2.0, 3)
    assert not [name for name in bound if name.endswith((".target", ".token_file", ".server_name"))]


def test_a_run_of_another_phase_is_named_and_not_compared(tmp_path):
    with begin_run(config(tmp_path)):
        pass
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1}\n')
    other = PPOConfig(out=tmp_path / "run", policy="p", prompts="q", resume=True)
    with pytest.raises(CheckpointRefused, match=r"one of `palate train sft`: give another --out, or go on with that"):
        check_run(other)


def test_a_supervised_run_keeps_its_folder_to_itself(tmp_path):
    with begin_run(config(tmp_path)), pytest.raises(RunFolderBusy, match="another process trains in"):
        run_sft(config(tmp_path))


def test_a_folder_belongs_to_one_process_until_that_lets_go(tmp_path):
    other = r"another process trains in .*--resume, or give another --out"
    with held(tmp_path / "run"), pytest.raises(RunFolderBusy, match=other), held(tmp_path / "run"):
        raise AssertionError("two have it")
    with held(tmp_path / "run"):
        pass
