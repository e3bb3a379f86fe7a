"""PPO's losses per token, how they are added up, and the numbers that watch them.

A loss is the sum of (B, T) token losses times (B, T) weights that belong to the **minibatch** (`aggregation_weights`).
A microbatch takes its rows of both, so that its gradients add up to the minibatch's, however that is cut.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.ppo.choices import LossAggregation


def aggregation_weights(mask: Tensor, aggregation: LossAggregation, max_tokens: int) -> Tensor:
    """(B, T) float64, what each token's loss counts in a minibatch; 0 at padding.

    Args:
        mask: (B, T) bool of the whole minibatch.
        aggregation: "token_mean" = every token counts the same; "sequence_mean" = every completion does, however long;
            "constant" = the sum over tokens by a length that is the same for all, the mean over completions: Dr. GRPO,
            Liu et al. 2025.
        max_tokens: That length, the longest completion allowed.
    """
    counts: Tensor | int = mask.sum()
    if aggregation == "sequence_mean":
        counts = len(mask) * mask.sum(1, keepdim=True)
    elif aggregation == "constant":
        counts = len(mask) * max_tokens
    return mask.double() / counts


def weighted_sum(token_losses: Tensor, weights: Tensor) -> Tensor:
    """Σ weight · loss over (B, T), in the losses' precision; where a weight is 0 a loss may be anything."""
    return torch.where(weights > 0, token_losses * weights.to(token_losses.dtype), 0).sum()


def policy_losses(
    new_logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    cliprange: float,
    dual_clip: float | None = None,
) -> Tensor:
    """(B, T) max(−A ρ, −A clip(ρ, 1 − ε, 1 + ε)) with ρ = exp(new − old). Schulman et al. 2017, equation 7.

    Args:
        new_logprobs: (B, T) under the weights being trained.
        old_logprobs: (B, T) under the weights before the update, recomputed by the trainer.
        advantages: (B, T).
        mask: (B, T) bool.
        cliprange: ε.
        dual_clip: c; where A < 0 the loss is at most −A c, so that one token that has become far likelier cannot
            outweigh the batch. Ye et al. 2020. None = no such bound.
    """
    ratio = _ratio(new_logprobs, old_logprobs, mask)
    losses = torch.max(-advantages * ratio, -advantages * ratio.clamp(1 - cliprange, 1 + cliprange))
    if dual_clip is None:
        return losses
    return torch.where(advantages < 0, torch.min(losses, -advantages * dual_clip), losses)


def importance_weights(old_logprobs: Tensor, behaviour_logprobs: Tensor, mask: Tensor, cap: float | None) -> Tensor:
    """(B, T) min(π_old / π_behaviour, cap), 1 at padding: what makes the loss one over what was really drawn.

    π_old are the policy's weights at the start of the update, as the trainer computes them; π_behaviour is what tokens
    were drawn with. They differ where the service computes otherwise than the trainer (truncated importance sampling)
    and where tokens are of older weights (decoupled PPO: Hilton et al. 2021, whose proximal policy is π_old here).
    """
    weights = _ratio(old_logprobs, behaviour_logprobs, mask)
    return weights if cap is None else weights.clamp(max=cap)


def effective_share(weights: Tensor) -> Tensor:
    """(Σ w)² / (N Σ w²) of (N,) weights: the effective sample size as a share of the samples. Kish 1965."""
    return weights.sum() ** 2 / (len(weights) * (weights**2).sum())


def value_losses(values: Tensor, old_values: Tensor, returns: Tensor, cliprange_value: float) -> Tensor:
    """(B, T) ½ max((V − R)², (V_c − R)²) with V_c = V_old + clip(V − V_old, ±cliprange_value)."""
    clipped = _clipped(values, old_values, cliprange_value)
    return 0.5 * torch.max((values - returns) ** 2, (clipped - returns) ** 2)


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


def dual_clipped(
    new_logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, dual_clip: float
) -> Tensor:
    """How many tokens the second clipping decides."""
    return ((_ratio(new_logprobs, old_logprobs, mask) > dual_clip) & (advantages < 0) & mask).sum()


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
