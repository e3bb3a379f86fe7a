"""From scores and network outputs to what an update learns from: scores → rewards → advantages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.distinct import distinct_shares
from trainer.ppo.advantages import Advantages, Episodes, Estimator
from trainer.ppo.choices import KLPlace, MissingEos
from trainer.ppo.masked import masked_whiten
from trainer.ppo.rewards import ScoreScale, ShapedRewards, apply_missing_eos, apply_short_penalty, shape_rewards
from trainer.types import CriticValues, Evaluated, ScoredRollout, Sequences, TrainingBatch, ValueTargets, padded


@dataclass(frozen=True, slots=True)
class ShapingSettings:
    """How scores become rewards and advantages; `trainer.config` says what each means."""

    clip: float | None
    missing_eos: MissingEos
    missing_eos_penalty: float
    min_tokens: int
    short_penalty: float
    variety_bonus: float
    kl_place: KLPlace
    whiten_rewards: bool
    whiten_unbiased: bool
    estimator: Estimator


def shape_scores(
    scored: Sequence[ScoredRollout], scale: ScoreScale | None, settings: ShapingSettings
) -> tuple[Tensor, Tensor]:
    """(B,) raw scores, and (B,) scores as rewarded: standardised, clipped, less for bad ends, more for variety."""
    raw = torch.tensor([one.score for one in scored], dtype=torch.float32)
    scores = raw if scale is None else scale.standardised(raw)
    if settings.clip is not None:
        scores = scores.clamp(-settings.clip, settings.clip)
    scores = apply_missing_eos(scores, _truncated(scored), settings.missing_eos, settings.missing_eos_penalty)
    scores = apply_short_penalty(scores, _lengths(scored), settings.min_tokens, settings.short_penalty)
    return raw, scores + settings.variety_bonus * _variety(scored)


def training_batch(
    scored: Sequence[ScoredRollout], scores: Tensor, evaluated: Evaluated, kl_coef: float, settings: ShapingSettings
) -> tuple[TrainingBatch, ShapedRewards]:
    """What to learn from, advantages not whitened yet, and the rewards behind it (before their whitening)."""
    in_reward, in_loss = (kl_coef, 0.0) if settings.kl_place == "reward_k1" else (0.0, kl_coef)
    shaped = shape_rewards(scores, evaluated.old_logprobs, evaluated.ref_logprobs, evaluated.mask, in_reward)
    rewards = shaped.rewards
    if settings.whiten_rewards:
        rewards = masked_whiten(rewards, evaluated.mask, shift_mean=False, unbiased=settings.whiten_unbiased)
    episodes = Episodes(rewards, evaluated.mask, _truncated(scored), evaluated.critic)
    estimated = settings.estimator.estimate(episodes)
    rollouts = [one.rollout for one in scored]
    batch = TrainingBatch(
        Sequences.of(rollouts),
        evaluated.mask,
        evaluated.old_logprobs,
        padded([rollout.behaviour_logprobs for rollout in rollouts]),
        evaluated.ref_logprobs,
        estimated.advantages,
        _targets(evaluated.critic, estimated),
        in_loss,
    )
    return batch, shaped


def _targets(critic: CriticValues | None, estimated: Advantages) -> ValueTargets | None:
    if critic is None or estimated.returns is None:
        return None
    return ValueTargets(critic.values, estimated.returns)


def _variety(scored: Sequence[ScoredRollout]) -> Tensor:
    """(B,) each completion's part in the batch's distinct-2, from 0 to 1."""
    return torch.tensor(distinct_shares([one.rollout.completion for one in scored], 2))


def _lengths(scored: Sequence[ScoredRollout]) -> Tensor:
    """(B,) tokens of the completions."""
    return torch.tensor([len(one.rollout.completion_ids) for one in scored])


def _truncated(scored: Sequence[ScoredRollout]) -> Tensor:
    """(B,) bool."""
    return torch.tensor([one.rollout.truncated for one in scored])
