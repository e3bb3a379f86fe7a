"""Whole runs over real processes and sockets."""

import json
import statistics
import threading
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from palate.client import PolicyClient, RewardClient, SamplingParams
from palate.models.manifest import load_manifest
from palate.models.weights import describe_tensors, untied_state_dict, weights_digest
from palate.rollout_files import read_rollouts
from tests.json_lines import read_rows
from trainer.metrics import read_metrics
from trainer.ppo import loop
from trainer.ppo.checkpoint import seal
from trainer.ppo.errors import BehaviourMismatch, CheckpointRefused, RewardModelChanged, RolloutsFailed, UnusableModel
from trainer.ppo.rollouts import RolloutCollector
from trainer.ppo.run import run_ppo
from trainer.ppo.update import Updater

NAMES = {
    "objective/scores",
    "objective/kl",
    "objective/kl_coef",
    "objective/non_score_reward",
    "objective/rlhf_reward",
    "objective/entropy",
    "policy/approxkl_avg",
    "policy/clipfrac_avg",
    "policy/entropy_avg",
    "policy/ratio_max",
    "val/clipfrac_avg",
    "loss/policy_avg",
    "loss/value_avg",
    "rollout/mean_length",
    "rollout/truncated_share",
    "rollout/dropped_share",
    "rollout/dropped_stale",
    "rollout/staleness_mean",
    "rollout/staleness_max",
    "idle/trainer_share",
    "idle/policy_share",
    "idle/reward_share",
    "time/wait",
    "time/publish",
    "time/rollouts",
    "time/scoring",
    "time/evaluate",
    "time/update",
    "time/step",
}


def digest_of(folder):
    return weights_digest(describe_tensors(untied_state_dict(AutoModelForCausalLM.from_pretrained(folder))))


def newest_checkpoint(config):
    return max((config.out / "checkpoints").glob("step-*"))


@pytest.fixture
def finished(configure, replicas):
    config = configure("--scoring.standardize", "--scoring.standardize-samples", 8, replica_count=2)
    return config, run_ppo(config)


def test_a_run_leaves_everything_behind_and_serves_what_it_learnt(finished, replicas, reward_server, policy_folder):
    config, result = finished
    assert result.steps == 2

    for server in replicas:  # the version that was published last is what every replica serves
        with PolicyClient(server.target) as client:
            assert client.policy_info().policy_version == result.version
    assert result.version.digest == digest_of(result.model_folder) != digest_of(policy_folder)
    assert load_manifest(result.model_folder).manifest == load_manifest(policy_folder).manifest
    assert (result.model_folder / "tokenizer.json").read_bytes() == (policy_folder / "tokenizer.json").read_bytes()

    metrics = read_metrics(config.out)
    assert [row["step"] for row in metrics] == [1, 2]
    assert all(row.keys() >= NAMES for row in metrics)
    assert metrics[0]["objective/kl"] == pytest.approx(0, abs=1e-4)  # the start is the reference
    assert metrics[1]["objective/kl"] != 0
    assert metrics[1]["policy/behaviour_deviation"] <= 1e-5

    rollouts = list(read_rollouts(config.out))
    assert [row["policy_version"]["step"] for row in rollouts] == [0] * 6 + [1] * 6
    assert {row["policy_version"]["run_id"] for row in rollouts} == {result.version.run_id}
    assert statistics.mean(row["score"] for row in rollouts[6:]) == pytest.approx(metrics[1]["objective/scores"])

    with RewardClient(reward_server.target, revision=result.reward_revisions["reward"]) as client:
        again = client.score([r["prompt"] for r in rollouts], [r["completion"] for r in rollouts]).scores()
    spread = statistics.pstdev(again)
    assert max(abs(a - row["score"]) for a, row in zip(again, rollouts, strict=True)) <= 1e-5 * spread
    assert {row["reward_revision"] for row in rollouts} == set(result.reward_revisions.values())
    assert result.scale is not None
    assert len(read_rows(config.out / "samples.jsonl")) > 0


def test_any_rollout_can_be_drawn_again_from_the_published_weights(finished, replicas):
    _, result = finished
    with PolicyClient(replicas[0].target) as client:
        sampling = SamplingParams(temperature=0.7, max_new_tokens=12)
        pinned = {"sampling": sampling, "required_policy_version": result.version}
        first, second = (list(client.generate(["Is this plan honest?"], seeds=[5], **pinned)) for _ in range(2))
    assert first == second
    assert first[0].policy_versions[0].version == result.version


def test_local_and_remote_reference_agree(configure, frozen_server):
    local = run_ppo(configure(out="local"))
    remote = run_ppo(configure("--services.ref", frozen_server.target, out="remote"))
    assert local.metrics["objective/kl"] == pytest.approx(remote.metrics["objective/kl"], abs=1e-4)
    assert abs(local.metrics["objective/kl"]) > 1e-3


def test_a_reference_that_can_change_is_refused(configure, replicas):
    with pytest.raises(UnusableModel, match="--frozen"):
        run_ppo(configure("--services.ref", replicas[1].target))


class Killed(BaseException):
    """Ends a run as a signal would: no handler of errors gets in its way."""


def test_a_killed_run_resumes_to_the_same_weights(configure, monkeypatch):
    flags = ("--total-steps", 4, "--record.checkpoint-every", 2, "--ppo.kl-target", 0.05, "--ppo.kl-horizon", 20)
    flags += ("--ppo.kl-gain", 1)
    standard = ("--scoring.standardize", "--scoring.standardize-samples", 8)
    whole = run_ppo(configure(*flags, *standard, out="whole"))

    steps = iter(range(3))
    train_step = loop.train_step

    def killed_in_the_fourth(*args):
        if next(steps, None) is None:
            raise Killed
        return train_step(*args)

    monkeypatch.setattr(loop, "train_step", killed_in_the_fourth)
    with pytest.raises(Killed):
        run_ppo(configure(*flags, *standard, out="cut"))
    monkeypatch.undo()
    config = configure(*flags, *standard, "--resume", out="cut")
    resumed = run_ppo(config)

    assert resumed.version.incarnation == 2
    assert resumed.version.digest == whole.version.digest
    assert resumed.scale == whole.scale
    assert [row["step"] for row in read_metrics(config.out)] == [1, 2, 3, 4]
    assert [row["step"] for row in list(read_rollouts(config.out))] == [1] * 6 + [2] * 6 + [3] * 6 + [4] * 6
    mine, theirs = (
        [row["objective/kl_coef"] for row in read_metrics(config.out.parent / name)] for name in ("cut", "whole")
    )
    assert mine == theirs
    assert len(set(mine)) > 1


def test_a_completion_that_cannot_be_scored_is_drawn_again_and_counted(configure, monkeypatch):
    honest, asked = RolloutCollector.collect, []

    def with_a_nul(self, draws, version):
        asked.append(len(draws))
        texts = ["\0"] * (len(draws) == 6) + ["some text"] * len(draws)
        return [replace(one, completion=text) for one, text in zip(honest(self, draws, version), texts, strict=False)]

    monkeypatch.setattr(RolloutCollector, "collect", with_a_nul)
    config = configure("--scoring.max-dropped-share", 0.1)
    assert run_ppo(config).steps == 2
    assert asked == [6, 1, 6, 1]
    for row in read_metrics(config.out):
        assert (row["rollout/dropped_invalid"], row["rollout/dropped_too_long"]) == (1, 0)
        assert row["rollout/dropped_share"] == pytest.approx(1 / 7)


AHEAD = ("--overlap.max-staleness", 1, "--ppo.tis-cap", 2)


@pytest.mark.parametrize("stale", ["wait", "drop"])
def test_rollouts_are_drawn_while_the_policy_learns(configure, replicas, stale):
    config = configure(*AHEAD, "--overlap.stale", stale, "--total-steps", 4, replica_count=2)
    result = run_ppo(config)
    metrics, rollouts = read_metrics(config.out), list(read_rollouts(config.out))
    assert [row["step"] for row in rollouts] == [1] * 6 + [2] * 6 + [3] * 6 + [4] * 6
    behind = [row["step"] - 1 - row["policy_version"]["step"] for row in rollouts]
    assert set(behind) == {0, 1}
    assert [row["rollout/staleness_max"] for row in metrics] == [max(behind[i : i + 6]) for i in range(0, 24, 6)]
    assert {row["policy_version"]["run_id"] for row in rollouts} == {result.version.run_id}
    for row in metrics:
        stale_only = row["rollout/staleness_mean"] == 1
        assert ("policy/behaviour_deviation" in row) != stale_only
        assert row.get("policy/behaviour_deviation", 0) <= 1e-5
        assert row["rollout/dropped_stale"] == 0 or stale == "drop"
        assert {"time/wait", "time/rollouts", "time/scoring"} <= row.keys()
    older = [row for row in metrics if row["rollout/staleness_mean"] == 1]
    assert all(row["policy/importance_ess"] < 1 for row in older)  # their weights say that the policy has moved on
    assert result.version.digest == digest_of(result.model_folder)
    for server in replicas:
        with PolicyClient(server.target) as client:
            assert client.policy_info().policy_version == result.version


def test_a_run_that_draws_ahead_is_killed_and_goes_on(configure, monkeypatch):
    flags, name = (*AHEAD, "--total-steps", 4, "--record.checkpoint-every", 2), "cut"
    update, updates = Updater.update, iter(range(3))

    def killed_in_the_fourth(*args, **more):
        if next(updates, None) is None:
            raise Killed
        return update(*args, **more)

    monkeypatch.setattr(Updater, "update", killed_in_the_fourth)
    with pytest.raises(Killed):
        run_ppo(configure(*flags, out=name))
    assert not [thread for thread in threading.enumerate() if thread.name == "overlap"]  # nothing draws any more
    monkeypatch.undo()
    config = configure(*flags, "--resume", out=name)
    resumed = run_ppo(config)
    assert (resumed.steps, resumed.version.incarnation) == (4, 2)
    assert [row["step"] for row in read_metrics(config.out)] == [1, 2, 3, 4]
    rollouts = list(read_rollouts(config.out))
    assert [row["step"] for row in rollouts] == [1] * 6 + [2] * 6 + [3] * 6 + [4] * 6
    after = [(row["policy_version"]["incarnation"], row["policy_version"]["step"]) for row in rollouts[12:]]
    assert after[:6] == [(2, 2)] * 6  # what was in flight is drawn again, from the weights that the run goes on with
    assert set(after[6:]) <= {(2, 2), (2, 3)}


def test_a_service_that_fails_while_the_policy_learns_ends_the_run(configure, monkeypatch):
    collect, calls = RolloutCollector.collect, []

    def failing(self, draws, *more):
        calls.append(len(draws))
        if calls.count(6) == 2:
            raise RolloutsFailed("the policy service is away")
        return collect(self, draws, *more)

    monkeypatch.setattr(RolloutCollector, "collect", failing)
    config = configure(*AHEAD, "--total-steps", 4)
    with pytest.raises(RolloutsFailed, match="is away"):
        run_ppo(config)
    assert [row["step"] for row in read_metrics(config.out)] == [1]


ESTIMATORS = {
    "grpo": ("--ppo.kl-place", "loss_k3", "--ppo.loss-aggregation", "sequence_mean", "--ppo.dual-clip", 3),
    "rloo": ("--ppo.tis-cap", 2, "--ppo.kl-place", "loss_k2"),
    "reinforce_pp": ("--ppo.loss-aggregation", "constant"),
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_estimators_without_a_critic_learn_from_groups(configure, estimator):
    config = configure("--ppo.estimator", estimator, "--sampling.completions-per-prompt", 3, *ESTIMATORS[estimator])
    result = run_ppo(config)
    first, second = read_metrics(config.out)
    assert not any(name.startswith("val/") for name in first)
    assert first["group/rewards_std"] > 0
    assert first["policy/importance_ess"] == pytest.approx(1, abs=1e-4)
    assert second["objective/kl"] != 0  # the weights have moved
    rollouts = list(read_rollouts(config.out))
    prompts = [row["prompt"] for row in rollouts]
    assert [len(set(prompts[start : start + 3])) for start in range(0, 12, 3)] == [1] * 4
    assert len({row["seed"] for row in rollouts}) == 12
    checkpoint = load_file(newest_checkpoint(config) / "model.safetensors")
    assert all(name.startswith("actor.") for name in checkpoint)
    assert result.version.digest == digest_of(result.model_folder)


def test_a_folder_with_a_run_is_not_overwritten(finished, configure):
    with pytest.raises(CheckpointRefused, match="--resume"):
        run_ppo(configure())


def test_a_run_that_failed_before_its_first_step_can_be_mended(configure):
    with pytest.raises(BehaviourMismatch):
        run_ppo(configure("--invariants.behaviour-tolerance", 1e-12))
    config = configure()
    assert (config.out / "run.json").exists()
    assert run_ppo(config).version.incarnation == 2


def test_other_hyperparameters_are_refused_and_more_steps_are_not(finished, configure):
    standard = ("--scoring.standardize", "--scoring.standardize-samples", 8, "--resume", "--total-steps", 3)
    with pytest.raises(CheckpointRefused, match=r"ppo\.learning_rate \(was 0\.001, is 0\.5\)"):
        run_ppo(configure(*standard, "--ppo.learning-rate", 0.5))
    assert run_ppo(configure(*standard, "--record.samples", 1)).steps == 3


def test_another_reward_model_is_refused_unless_accepted(finished, configure, caplog):
    config, _ = finished
    state = newest_checkpoint(config) / "state.json"
    document = json.loads(state.read_text())
    document["identity"]["reward_revisions"] = {"reward": "0" * 64}
    state.write_text(json.dumps(document))
    seal(state.parent)
    flags = ("--scoring.standardize", "--scoring.standardize-samples", 8, "--resume", "--total-steps", 3)
    with pytest.raises(RewardModelChanged, match="--accept-new-reward"):
        run_ppo(configure(*flags))
    assert run_ppo(configure(*flags, "--accept-new-reward")).steps == 3
    assert "another reward model" in caplog.text


def test_every_option_of_the_update_runs(configure, reward_folder):
    result = run_ppo(
        configure(
            *("--ppo.optimizer", "adam_tf_style", "--ppo.num-mini-batches", 2, "--ppo.whiten-advantages", "minibatch"),
            *(
                "--ppo.whiten-rewards",
                "--ppo.bootstrap-truncated",
                "--ppo.dual-clip",
                3,
                "--ppo.critic-warmup-steps",
                1,
                "--threads",
                2,
            ),
            *("--scoring.missing-eos", "replace", "--scoring.clip", 0.5, "--no-ppo.anneal"),
            *("--total-steps", 3, "--ppo.kl-target", 0.05, "--ppo.kl-horizon", 20),
        )
    )
    assert result.metrics["objective/shaped_scores"] < result.metrics["objective/scores"]
    assert result.metrics["policy/learning_rate"] == pytest.approx(1e-3)
    first, second, third = (row["objective/kl_coef"] for row in read_metrics(result.model_folder.parent))
    assert first == second != third  # the KL of a policy that only its critic has learnt for says nothing
    torch.set_num_threads(1)
