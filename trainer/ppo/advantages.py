"""Generalised advantage estimation over completions of different lengths."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Advantages:
    """What the update learns from, (B, T), 0 at padding; `returns` are made before anybody whitens `advantages`."""

    advantages: Tensor
    returns: Tensor


def estimate_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float, final_values: Tensor | None = None
) -> Advantages:
    """δ_t = r_t + γ V_{t+1} − V_t;  A_t = δ_t + γλ A_{t+1};  R = A + V. Schulman et al. 2015, equations 11–16.

    Args:
        rewards: (B, T).
        values: (B, T) V of the state before each completion token.
        mask: (B, T) bool; every row starts with its real tokens.
        gamma: Discount.
        lam: λ.
        final_values: (B,) V after each row's last token, where an episode was cut off and goes on in thought
            (bootstrap); None = 0 for all, as OpenAI, TRL and verl have it, cut off or not.
    """
    final = torch.zeros_like(values[:, 0]) if final_values is None else final_values
    next_values = _next_values(values, mask, final)  # (B, T)
    deltas = torch.where(mask, rewards + gamma * next_values - values, 0)
    advantages = torch.zeros_like(values)
    running = torch.zeros_like(values[:, 0])  # (B,)
    for t in reversed(range(values.shape[1])):
        # Padding lies behind the last token: there deltas are 0, and so is all that has run up.
        running = deltas[:, t] + gamma * lam * running
        advantages[:, t] = running
    return Advantages(advantages, torch.where(mask, advantages + values, 0))


def _next_values(values: Tensor, mask: Tensor, final: Tensor) -> Tensor:
    """(B, T) V_{t+1}, with `final` behind each row's last token."""
    shifted = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    is_last = torch.arange(values.shape[1], device=values.device) == (mask.sum(1) - 1).unsqueeze(1)  # (B, T)
    return torch.where(is_last, final.unsqueeze(1), shifted)
