"""PPO's losses and the numbers that watch them.

Aggregation: every loss is a *token mean*, the sum over real completion tokens divided by their number in the
**minibatch**. A microbatch passes that number as `token_count`, so that its gradients add up to the minibatch's.
"""

from __future__ import annotations

import torch
from torch import Tensor


def policy_loss(
    new_logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    cliprange: float,
    token_count: Tensor | int | None = None,
) -> Tensor:
    """mean_t max(−A ρ, −A clip(ρ, 1 − ε, 1 + ε)) with ρ = exp(new − old). Schulman et al. 2017, equation 7.

    Args:
        new_logprobs: (B, T) under the weights being trained.
        old_logprobs: (B, T) under the weights before the update, recomputed by the trainer.
        advantages: (B, T).
        mask: (B, T) bool.
        cliprange: ε.
        token_count: What to divide by; None = the tokens in `mask`.
    """
    ratio = _ratio(new_logprobs, old_logprobs, mask)
    losses = torch.max(-advantages * ratio, -advantages * ratio.clamp(1 - cliprange, 1 + cliprange))
    return _token_mean(losses, mask, token_count)


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    cliprange_value: float,
    token_count: Tensor | int | None = None,
) -> Tensor:
    """½ mean_t max((V − R)², (V_c − R)²) with V_c = V_old + clip(V − V_old, ±cliprange_value)."""
    losses = torch.max((values - returns) ** 2, (_clipped(values, old_values, cliprange_value) - returns) ** 2)
    return 0.5 * _token_mean(losses, mask, token_count)


def entropy_from_logits(logits: Tensor) -> Tensor:
    """Entropy in nats of the distributions over the last axis: logsumexp − Σ p · logits."""
    return logits.logsumexp(-1) - (logits.softmax(-1) * logits).sum(-1)


def approx_kl(new_logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """½ Σ_t (new − old)² over real tokens: a sum, so that microbatches add up."""
    return 0.5 * torch.where(mask, (new_logprobs - old_logprobs) ** 2, 0).sum()


def policy_clipped(
    new_logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, cliprange: float
) -> Tensor:
    """How many tokens the clipping decides."""
    ratio = _ratio(new_logprobs, old_logprobs, mask)
    decides = -advantages * ratio.clamp(1 - cliprange, 1 + cliprange) > -advantages * ratio
    return (decides & mask).sum()


def value_clipped(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, cliprange_value: float) -> Tensor:
    """How many values the clipping decides."""
    clipped = _clipped(values, old_values, cliprange_value)
    return (((clipped - returns) ** 2 > (values - returns) ** 2) & mask).sum()


def ratios(new_logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """(N,) ρ of the real tokens."""
    return torch.exp(new_logprobs[mask] - old_logprobs[mask])


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float | None:
    """1 − Var(R − V) / Var(R) over real tokens; None where the returns do not vary, so that nothing is to explain."""
    variance = returns[mask].var(correction=0)
    if variance == 0:
        return None
    return float(1 - (returns - values)[mask].var(correction=0) / variance)


def _ratio(new_logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    # Padding is set to ratio 1 before exp: an overflow there would turn its zeroed gradient into NaN.
    return torch.exp(torch.where(mask, new_logprobs - old_logprobs, 0))


def _clipped(values: Tensor, old_values: Tensor, cliprange_value: float) -> Tensor:
    return old_values + (values - old_values).clamp(-cliprange_value, cliprange_value)


def _token_mean(losses: Tensor, mask: Tensor, token_count: Tensor | int | None) -> Tensor:
    return torch.where(mask, losses, 0).sum() / (mask.sum() if token_count is None else token_count)
