"""From raw scores to a training batch, step by step, and the metrics that report it."""

import math
from dataclasses import replace

import pytest
import torch

from palate.client.types import FinishReason, PolicyVersion, VersionSpan
from trainer.ppo.advantages import GAE, GRPO, RLOO
from trainer.ppo.batch import ShapingSettings, shape_scores, training_batch
from trainer.ppo.kl import batch_kl
from trainer.ppo.metrics import group_metrics, importance_metrics, objective_metrics, value_metrics
from trainer.ppo.rewards import ScoreScale
from trainer.types import CriticValues, Evaluated, Rollout, ScoredRollout, length_mask, padded

SETTINGS = ShapingSettings(
    clip=None,
    missing_eos="none",
    missing_eos_penalty=1.0,
    min_tokens=0,
    short_penalty=1.0,
    variety_bonus=0.0,
    kl_place="reward_k1",
    whiten_rewards=False,
    whiten_unbiased=True,
    estimator=GAE(gamma=1.0, lam=1.0, bootstrap_truncated=False),
)
LENGTHS = (2, 3)
TEXTS = ("she sang loudly", "she sang")


def scored(length, score, reason):
    version = PolicyVersion("run", 1, 0, "d")
    rollout = Rollout("p", "c", (1,), (5,) * length, (-1.0,) * length, reason, (VersionSpan(0, version),), 0)
    return ScoredRollout(rollout, score, "revision")


SCORED = [scored(2, 3.0, FinishReason.STOP), scored(3, -7.0, FinishReason.LENGTH)]


def evaluated():
    return Evaluated(
        mask=length_mask(LENGTHS),
        old_logprobs=padded([[-1.0, -1.0], [-2.0, -2.0, -2.0]]),
        ref_logprobs=padded([[-2.0, -1.0], [-2.0, -2.0, -1.0]]),
        entropy=padded([[1.0, 3.0], [2.0, 2.0, 2.0]]),
        critic=CriticValues(
            values=padded([[0.5, 0.5], [0.0, 0.0, 0.0]]),
            final_values=torch.tensor([100.0, 10.0]),
        ),
    )


def test_scores_are_standardised_then_clipped_then_marked_down():
    scale = ScoreScale(mean=1.0, std=2.0)
    assert shape_scores(SCORED, None, SETTINGS)[1].tolist() == [3.0, -7.0]
    assert shape_scores(SCORED, scale, SETTINGS)[1].tolist() == [1.0, -4.0]
    clipped = replace(SETTINGS, clip=2.5)
    assert shape_scores(SCORED, scale, clipped)[1].tolist() == [1.0, -2.5]
    raw, marked = shape_scores(SCORED, scale, replace(clipped, missing_eos="subtract"))
    assert raw.tolist() == [3.0, -7.0]
    assert marked.tolist() == [1.0, -3.5]


def test_variety_is_added_last_by_each_completions_part_in_distinct_2():
    said = [
        replace(one, rollout=replace(one.rollout, completion=text)) for one, text in zip(SCORED, TEXTS, strict=True)
    ]
    clipped = replace(SETTINGS, clip=1.0, variety_bonus=2.0)
    raw, scores = shape_scores(said, None, clipped)
    assert raw.tolist() == [3.0, -7.0]
    assert scores.tolist() == [1.0 + 2.0 * 0.75, -1.0 + 2.0 * 0.5]


def test_short_completions_are_marked_down_after_everything_else():
    raw, marked = shape_scores(SCORED, ScoreScale(1.0, 2.0), replace(SETTINGS, clip=0.5, min_tokens=3, short_penalty=2))
    assert raw.tolist() == [3.0, -7.0]
    assert marked.tolist() == [-1.5, -0.5]


def test_returns_with_lambda_one_are_score_minus_the_penalties_to_come():
    batch, shaped = training_batch(SCORED, torch.tensor([1.0, -4.0]), evaluated(), 0.5, SETTINGS)
    assert shaped.rewards.tolist() == [[-0.5, 1.0, 0.0], [0.0, 0.0, -3.5]]
    assert batch.critic.returns.tolist() == [[0.5, 1.0, 0.0], [-3.5, -3.5, -3.5]]
    assert batch.advantages.tolist() == [[0.0, 0.5, 0.0], [-3.5, -3.5, -3.5]]


def test_bootstrap_is_for_what_was_cut_off_alone():
    settings = replace(SETTINGS, estimator=GAE(1.0, 1.0, bootstrap_truncated=True))
    batch, _ = training_batch(SCORED, torch.tensor([1.0, -4.0]), evaluated(), 0.5, settings)
    assert batch.critic.returns.tolist() == [[0.5, 1.0, 0.0], [6.5, 6.5, 6.5]]


def test_whitened_rewards_keep_their_mean():
    settings = replace(SETTINGS, whiten_rewards=True, estimator=GAE(0.001, 0.0, False))
    still = replace(evaluated(), critic=CriticValues(torch.zeros(2, 3), torch.zeros(2)))
    batch, shaped = training_batch(SCORED, torch.tensor([1.0, -4.0]), still, 0.5, settings)
    real = batch.advantages[batch.mask]  # λ = 0 and V = 0: the rewards themselves
    assert real.std().item() == pytest.approx(1, abs=1e-5)
    assert real.mean().item() == pytest.approx(shaped.rewards[batch.mask].mean().item(), abs=1e-6)


def test_metrics_are_means_over_what_they_name():
    scores = torch.tensor([1.0, -4.0])
    batch, shaped = training_batch(SCORED, scores, evaluated(), 0.5, SETTINGS)
    found = objective_metrics(torch.tensor([3.0, -7.0]), scores, evaluated(), shaped, 0.25, 0.5)
    assert found["objective/scores"] == -2.0
    assert found["objective/scores_std"] == 5.0
    assert found["objective/shaped_scores"] == -1.5
    assert (found["objective/kl"], found["objective/kl_coef"]) == (0.25, 0.5)
    assert found["objective/non_score_reward"] == pytest.approx(0.0)
    assert found["objective/rlhf_reward"] == pytest.approx(-1.5)
    each = evaluated()
    summed = [row[mask].sum().item() for row, mask in zip(each.old_logprobs, each.mask, strict=True)]
    assert found["objective/entropy"] == pytest.approx(-sum(summed) / 2)
    assert found["policy/entropy_avg"] == pytest.approx(10 / 5)  # over tokens, not over rows
    values = value_metrics(batch)
    assert values["val/mean"] == pytest.approx(0.2)
    assert values["val/returns_mean"] == pytest.approx((0.5 + 1.0 - 3 * 3.5) / 5)
    assert "val/explained_variance" in values
    assert "val/explained_variance" not in value_metrics(
        replace(batch, critic=replace(batch.critic, returns=torch.ones(2, 3)))
    )


def test_a_kl_in_the_loss_is_none_in_the_reward():
    batch, shaped = training_batch(
        SCORED, torch.tensor([1.0, -4.0]), evaluated(), 0.5, replace(SETTINGS, kl_place="loss_k2")
    )
    assert shaped.rewards.tolist() == [[0.0, 1.0, 0.0], [0.0, 0.0, -4.0]]
    assert batch.kl_coef == 0.5
    assert batch.ref_logprobs is not None
    assert training_batch(SCORED, torch.tensor([1.0, -4.0]), evaluated(), 0.5, SETTINGS)[0].kl_coef == 0


def test_without_a_critic_nothing_is_for_one():
    settings = replace(SETTINGS, estimator=RLOO(2))
    batch, shaped = training_batch(SCORED, torch.tensor([1.0, -4.0]), replace(evaluated(), critic=None), 0.5, settings)
    assert batch.critic is None
    assert value_metrics(batch) == {}
    earned = shaped.rewards.sum(1).tolist()  # the score and what its KL costs
    assert batch.advantages[0, 0].item() == pytest.approx(earned[0] - earned[1])


def test_behaviour_logprobs_reach_the_update():
    batch, _ = training_batch(SCORED, torch.tensor([1.0, -4.0]), evaluated(), 0.5, SETTINGS)
    assert batch.behaviour_logprobs.tolist() == [[-1.0, -1.0, 0.0], [-1.0, -1.0, -1.0]]
    cut = batch.rows([0])
    assert cut.behaviour_logprobs.shape == cut.ref_logprobs.shape == cut.critic.returns.shape == (1, 2)
    found = importance_metrics(batch, cap=0.9)
    weights = [1.0] * 2 + [math.exp(-1.0)] * 3  # exp(old − behaviour) of the real tokens
    assert found["policy/importance_mean"] == pytest.approx(sum(weights) / 5)
    assert found["policy/importance_max"] == pytest.approx(1.0)
    assert found["policy/importance_ess"] == pytest.approx(sum(weights) ** 2 / (5 * sum(w * w for w in weights)))
    assert found["policy/importance_capped_share"] == pytest.approx(2 / 5)
    assert "policy/importance_capped_share" not in importance_metrics(batch, None)


def test_group_metrics_say_how_much_completions_of_a_prompt_differ():
    _, shaped = training_batch(SCORED, torch.tensor([1.0, -4.0]), evaluated(), 0.0, SETTINGS)
    assert group_metrics(shaped, 2)["group/rewards_std"] == pytest.approx(5 / math.sqrt(2))
    assert group_metrics(shaped, 2)["group/equal_share"] == 0
    _, equal = training_batch(SCORED, torch.tensor([1.0, 1.0]), evaluated(), 0.0, SETTINGS)
    assert group_metrics(equal, 2) == {"group/rewards_std": 0.0, "group/equal_share": 1.0}
    assert group_metrics(equal, 1) == {}


def test_the_kl_of_a_batch_is_a_mean_of_sums():
    """Not a mean over tokens: a target of 6 nats would mean something else for every length."""
    apart = replace(evaluated(), ref_logprobs=padded([[-2.0, -2.0], [-4.0, -4.0, -4.0]]))
    assert batch_kl(apart) == pytest.approx((2.0 + 6.0) / 2)


def test_scores_are_clipped_before_a_group_is_normalised():
    settings = replace(SETTINGS, clip=1.0, estimator=GRPO(2, by_std=False, unbiased=True))
    _, scores = shape_scores(SCORED, None, settings)
    batch, _ = training_batch(SCORED, scores, evaluated(), 0.0, settings)
    assert batch.advantages[:, 0].tolist() == [1.0, -1.0]  # of 1 and −1, not of 3 and −7


def test_what_was_cut_off_is_said_by_the_service_not_by_a_token():
    """A completion that ends with the end-of-sequence token at the limit has ended, and one without it has not."""
    said = [scored(3, 1.0, FinishReason.STOP), scored(3, 1.0, FinishReason.LENGTH)]
    _, scores = shape_scores(said, None, replace(SETTINGS, missing_eos="subtract"))
    assert scores.tolist() == [1.0, 0.0]
