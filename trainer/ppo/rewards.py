"""From scores and logprobs to a reward per token: KL estimators, shaping, and the coefficient's controllers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainer.ppo.choices import MissingEos

_MAX_ERROR = 0.2
"""Bound on the controller's proportional error, as in Ziegler et al., section 2.2."""


def k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Log π − log π_ref per token: unbiased for the KL, of either sign. Schulman, "Approximating KL Divergence"."""
    return logprobs - ref_logprobs


def k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """½ k1²: biased, never negative."""
    return 0.5 * k1(logprobs, ref_logprobs) ** 2


def k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """exp(−k1) − 1 + k1: unbiased, never negative."""
    difference = k1(logprobs, ref_logprobs)
    return torch.expm1(-difference) + difference


def sequence_kl(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor) -> Tensor:
    """(B,) sum of k1 over each completion's tokens. Its mean over sequences is *the* KL of a batch, in nats."""
    return torch.where(mask, k1(logprobs, ref_logprobs), 0).sum(1)


@dataclass(frozen=True, slots=True)
class ScoreScale:
    """Mean and standard deviation of raw scores; what is standardised is in units of the latter."""

    mean: float
    std: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise ValueError(f"scores cannot be standardised with mean {self.mean} and standard deviation {self.std}")

    def standardised(self, scores: Tensor) -> Tensor:
        """(B,) raw scores to z-scores."""
        return (scores - self.mean) / self.std


def apply_missing_eos(scores: Tensor, truncated: Tensor, rule: MissingEos, penalty: float) -> Tensor:
    """(B,) scores, with completions that ran into the length limit marked down.

    Args:
        scores: (B,), standardised already where that is wanted: `penalty` is in the same unit.
        truncated: (B,) bool.
        rule: "replace" makes the score −penalty (lm-human-preferences, with 1); "subtract" takes it off (TRL).
        penalty: At least 0.
    """
    if rule == "replace":
        return torch.where(truncated, -penalty, scores)
    if rule == "subtract":
        return torch.where(truncated, scores - penalty, scores)
    return scores


def apply_short_penalty(scores: Tensor, lengths: Tensor, min_tokens: int, penalty: float) -> Tensor:
    """(B,) scores, with `penalty` taken off completions of fewer than `min_tokens` tokens.

    Where a reward model likes short texts, a policy learns to end at once; text that is not there has no score.

    Args:
        scores: (B,), in the unit of `penalty`.
        lengths: (B,) tokens of each completion, the end-of-sequence token included.
        min_tokens: 0 = no completion is too short.
        penalty: At least 0.
    """
    return torch.where(lengths < min_tokens, scores - penalty, scores)


@dataclass(frozen=True, slots=True)
class ShapedRewards:
    """Rewards per token.

    Attributes:
        rewards: (B, T) what the advantages are made of; 0 at padding.
        non_score: (B, T) the part that is not the score: −kl_coef · k1.
    """

    rewards: Tensor
    non_score: Tensor


def shape_rewards(
    scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, kl_coef: float
) -> ShapedRewards:
    """r_t = −kl_coef · k1_t, and the score on top at the last completion token.

    Args:
        scores: (B,).
        logprobs: (B, T) of the policy that sampled.
        ref_logprobs: (B, T).
        mask: (B, T) bool; every row starts with its real tokens, of which at least one.
        kl_coef: In score units per nat.
    """
    non_score = torch.where(mask, -kl_coef * k1(logprobs, ref_logprobs), 0)  # (B, T)
    last = mask.sum(1) - 1  # (B,)
    rewards = non_score.clone()
    rewards[torch.arange(len(scores)), last] += scores
    return ShapedRewards(rewards, non_score)


@dataclass(frozen=True, slots=True)
class FixedKL:
    """A coefficient that stays."""

    kl_coef: float

    def updated(self, kl: float, episodes: int) -> FixedKL:
        """Itself; takes what `AdaptiveKL.updated` takes."""
        return self


@dataclass(frozen=True, slots=True)
class AdaptiveKL:
    """A coefficient that steers the KL to a target. Ziegler et al. 2019, section 2.2.

    Attributes:
        kl_coef: The coefficient now.
        target: Mean over sequences of the *sum* over tokens, in nats.
        horizon: Episodes; the larger, the slower.
    """

    kl_coef: float
    target: float
    horizon: float

    def __post_init__(self) -> None:
        for name in ("target", "horizon"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"the adaptive KL controller needs {name} > 0, got {value}")

    def updated(self, kl: float, episodes: int) -> AdaptiveKL:
        """The controller after a batch of `episodes` whose mean sequence KL was `kl`."""
        error = min(max(kl / self.target - 1, -_MAX_ERROR), _MAX_ERROR)
        return replace(self, kl_coef=self.kl_coef * (1 + error * episodes / self.horizon))


KLController = FixedKL | AdaptiveKL
