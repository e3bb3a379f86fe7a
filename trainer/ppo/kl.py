"""The KL to the reference policy: estimators per token, and the controllers of its coefficient."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

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
