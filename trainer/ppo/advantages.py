"""How rewards become advantages: four estimators behind one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from trainer.types import CriticValues

_EPSILON = 1e-4
"""Added to a group's standard deviation (as TRL does), so that a group of equal rewards has advantages of 0."""


@dataclass(frozen=True, slots=True)
class Episodes:
    """What an estimator looks at.

    Attributes:
        rewards: (B, T), 0 at padding. Rows of one prompt stand one after the other.
        mask: (B, T) bool; every row starts with its real tokens.
        truncated: (B,) bool, ended by the length limit.
        critic: What the critic says; None where there is none.
    """

    rewards: Tensor
    mask: Tensor
    truncated: Tensor
    critic: CriticValues | None


@dataclass(frozen=True, slots=True)
class Advantages:
    """What the update learns from, (B, T), 0 at padding; `returns` are made before anybody whitens `advantages`.

    Attributes:
        advantages: Of the policy.
        returns: Targets of the critic; None where there is none.
    """

    advantages: Tensor
    returns: Tensor | None


class Estimator(Protocol):
    """Makes advantages of rewards."""

    def estimate(self, episodes: Episodes) -> Advantages:
        """Advantages of every token."""


@dataclass(frozen=True, slots=True)
class GAE:
    """Generalised advantage estimation, with a critic. Schulman et al. 2015.

    Attributes:
        gamma: Discount.
        lam: λ.
        bootstrap_truncated: Whether a completion that was cut off goes on in thought, with the critic's value behind
            its end; else it ends there, as OpenAI, TRL and verl have it.
    """

    gamma: float
    lam: float
    bootstrap_truncated: bool

    def estimate(self, episodes: Episodes) -> Advantages:
        """Advantages and returns from rewards and the critic's values."""
        critic = episodes.critic
        assert critic is not None  # built with one: see `PPOGroup.has_critic`
        final = torch.where(episodes.truncated, critic.final_values, 0) if self.bootstrap_truncated else None
        return generalised_advantages(episodes.rewards, critic.values, episodes.mask, self.gamma, self.lam, final)


@dataclass(frozen=True, slots=True)
class GRPO:
    """A completion's reward above the mean of its group, in standard deviations. Shao et al. 2024, section 4.1.2.

    Attributes:
        group_size: Completions per prompt.
        by_std: False leaves the division out, which favours prompts of little spread: Dr. GRPO, Liu et al. 2025.
        unbiased: Divide variances by n − 1, not by n.
    """

    group_size: int
    by_std: bool
    unbiased: bool

    def estimate(self, episodes: Episodes) -> Advantages:
        """(R − mean) / std, the same for all tokens of a completion."""
        rewards = grouped_rewards(episodes.rewards, self.group_size)
        above = rewards - rewards.mean(1, keepdim=True)
        if self.by_std:
            above = above / (rewards.std(1, correction=int(self.unbiased), keepdim=True) + _EPSILON)
        return _for_every_token(above, episodes.mask)


@dataclass(frozen=True, slots=True)
class RLOO:
    """A completion's reward above the mean of the *others* of its group. Kool et al. 2019; Ahmadian et al. 2024.

    Attributes:
        group_size: Completions per prompt.
    """

    group_size: int

    def estimate(self, episodes: Episodes) -> Advantages:
        """R_i − mean of R_j over j ≠ i, the same for all tokens of a completion."""
        rewards = grouped_rewards(episodes.rewards, self.group_size)
        others = (rewards.sum(1, keepdim=True) - rewards) / (self.group_size - 1)
        return _for_every_token(rewards - others, episodes.mask)


@dataclass(frozen=True, slots=True)
class ReinforcePP:
    """The rewards to come; the update whitens them over the whole batch, which is the baseline. Hu et al. 2025.

    Attributes:
        gamma: Discount.
    """

    gamma: float

    def estimate(self, episodes: Episodes) -> Advantages:
        """Σ_{s ≥ t} γ^{s − t} r_s."""
        nothing = torch.zeros_like(episodes.rewards)
        to_come = generalised_advantages(episodes.rewards, nothing, episodes.mask, self.gamma, lam=1.0)
        return Advantages(to_come.advantages, returns=None)


def generalised_advantages(
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
            (bootstrap); None = 0 for all.
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


def grouped_rewards(rewards: Tensor, group_size: int) -> Tensor:
    """(B / n, n) what each completion earned in all, from (B, T) rewards that are 0 at padding."""
    return rewards.sum(1).view(-1, group_size)


def _for_every_token(advantages: Tensor, mask: Tensor) -> Advantages:
    """(B / n, n) advantages of completions to (B, T)."""
    return Advantages(torch.where(mask, advantages.reshape(-1, 1), 0), returns=None)


def _next_values(values: Tensor, mask: Tensor, final: Tensor) -> Tensor:
    """(B, T) V_{t+1}, with `final` behind each row's last token."""
    shifted = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    is_last = torch.arange(values.shape[1], device=values.device) == (mask.sum(1) - 1).unsqueeze(1)  # (B, T)
    return torch.where(is_last, final.unsqueeze(1), shifted)
