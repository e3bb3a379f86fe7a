"""The configuration of a run: where values come from and what is refused."""

import json

import pytest

from trainer.config import PPOConfig

REQUIRED = ["--out", "o", "--policy", "p", "--prompts", "q"]


def rewards(*each):
    return ["--rewards", json.dumps(each)]


def config(*flags):
    return PPOConfig.from_command_line([*REQUIRED, *flags], prog="palate train ppo")


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path, monkeypatch):
    file = tmp_path / "run.yaml"
    file.write_text("total_steps: 5\nseed: 5\nppo: {kl_coef: 0.5, lam: 0.5, gamma: 0.5}\n")
    monkeypatch.setenv("PALATE_TRAIN_SEED", "6")
    monkeypatch.setenv("PALATE_TRAIN_PPO__LAM", "0.6")
    found = config("--config", str(file), "--ppo.gamma", "0.7")
    assert (found.total_steps, found.seed) == (5, 6)
    assert (found.ppo.kl_coef, found.ppo.lam, found.ppo.gamma) == (0.5, 0.6, 0.7)
    assert found.ppo.cliprange == 0.2


def test_lists_and_switches():
    found = config("--services.policy", "a:1,b:2", "--scoring.standardize", "--no-record.progress")
    assert found.services.policy == ["a:1", "b:2"]
    assert found.scoring.standardize
    assert not found.record.progress


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--ppo.kl-target", "0"], "kl_target must be above 0"),
        (["--ppo.kl-coef", "inf"], "finite number (got 'inf')"),
        (["--sampling.temperature", "nan"], "finite number"),
        (["--ppo.kl-horizon", "-3"], "kl_horizon must be above 0"),
        (["--ppo.kl-gain", "2"], "kl_gain has no effect without kl_target"),
        (["--ppo.num-mini-batches", "65"], "more than batch_size"),
        (["--sampling.completions-per-prompt", "3"], "no multiple of sampling.completions_per_prompt 3"),
        (["--ppo.estimator", "grpo"], "set sampling.completions_per_prompt to 2 or more"),
        (["--ppo.estimator", "rloo"], "set sampling.completions_per_prompt to 2 or more"),
        (["--ppo.estimator", "reinforce_pp", "--ppo.lam", "0.5"], "lam has no effect with estimator reinforce_pp"),
        (["--ppo.estimator", "reinforce_pp", "--ppo.critic-init", "reward:x"], "critic_init has no effect"),
        (["--no-ppo.grpo-by-std"], "grpo_by_std has no effect with estimator gae"),
        (["--ppo.dual-clip", "1"], "greater than 1"),
        (["--ppo.tis-cap", "0"], "greater than 0"),
        (["--ppo.kl-place", "loss_k1"], "loss_k2"),
        (["--scoring.min-tokens", "49"], "every completion would be too short"),
        (["--sampling.ignore-eos", "--scoring.missing-eos", "replace"], "missing_eos exclude each other"),
        (["--ppo.critic-init", "other"], "reward:FOLDER"),
        (["--scoring.missing-eos", "drop"], "replace"),
        (["--overlap.max-staleness", "1"], "needs ppo.tis_cap, e.g. 2"),
        (["--overlap.max-staleness", "1", "--ppo.tis-cap", "2", "--strict"], "strict exclude each other"),
        (["--overlap.stale", "drop"], "stale drop has no effect with max_staleness 0"),
        (["--overlap.interrupt"], "interrupt has no effect with max_staleness 0"),
        (["--sampling.temperature", "0"], "greater than 0"),
        (["--scoring.variance-weight", "1"], "give both, or neither"),
        (["--scoring.aggregate", "median"], "mean-minus-variance"),
        (["--ppo.kl-coeff", "0.1"], "did you mean --ppo.kl-coef?"),
        (rewards({"name": "a"}), "give one of target, function, max_tokens, pattern (there is none)"),
        (rewards({"name": "a", "target": "t:1", "max_tokens": 3}), "(there is target, max_tokens)"),
        (rewards({"name": "a", "max_tokens": 3, "model": "m"}), "model has no effect without target"),
        (rewards({"name": "a", "pattern": "("}), "is no regular expression"),
        (rewards({"name": "a", "max_tokens": 3, "weight": 0}), "other than 0"),
        (rewards({"name": "A b", "max_tokens": 3}), "rewards.0.name"),
        (rewards({"name": "a", "max_tokens": 3}, {"name": "a", "max_tokens": 4}), "a is there twice"),
        ([*rewards({"name": "a", "max_tokens": 3}), "--services.reward", "t:1"], "have no effect with rewards"),
        ([*rewards({"name": "a", "max_tokens": 3}), "--scoring.aggregate", "min"], "have no effect with rewards"),
    ],
)
def test_wrong_values_end_with_code_2_and_a_word(capsys, flags, told):
    with pytest.raises(SystemExit) as raised:
        config(*flags)
    assert raised.value.code == 2
    said = capsys.readouterr().err
    assert told in said
    assert "got {" not in said, "a whole configuration is no value to show"


def test_one_reward_service_is_the_simple_form_of_a_list(tmp_path):
    (simple,) = config("--services.reward", "t:1", "--services.reward-model", "m").reward_list()
    assert (simple.name, simple.target, simple.model, simple.weight, simple.transform) == (
        "reward",
        "t:1",
        "m",
        1,
        "none",
    )
    file = tmp_path / "run.yaml"
    file.write_text("rewards: [{name: a, target: 't:1', weight: 2}, {name: b, function: 'm:f'}]\n")
    assert [each.name for each in config("--config", str(file), "--services.timeout", "3").reward_list()] == ["a", "b"]


def test_every_field_says_what_it_is_for():
    def check(model):
        for name, field in model.model_fields.items():
            group = field.annotation if isinstance(field.annotation, type) else None
            if group is not None and hasattr(group, "model_fields"):
                assert group.__doc__
                check(group)
            else:
                assert field.description, name

    check(PPOConfig)
