"""From scores and logprobs to a reward per token: standardising, marking down, and the KL penalty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.ppo.choices import MissingEos
from trainer.ppo.errors import ScoresAlike
from trainer.ppo.kl import k1


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


def score_scale(what: str, scores: Sequence[float]) -> ScoreScale:
    """The scale of scores, whose standard deviation is taken over all of them.

    Raises:
        ScoresAlike: They do not differ; `what` they are is in the message.
    """
    found = torch.tensor(scores, dtype=torch.float64)
    try:
        return ScoreScale(found.mean().item(), found.std(correction=0).item())
    except ValueError as error:
        raise ScoresAlike(
            f"{what}: {error}, those of {len(scores)} completions of the starting policy; leave standardising out, or "
            "measure more completions (--scoring.standardize-samples)"
        ) from error


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
