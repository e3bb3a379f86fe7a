"""The KL to the reference policy: estimators per token, and the controllers of its coefficient."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainer.types import Evaluated

_MAX_ERROR = 0.2
"""Bound on the controller's proportional error, as in Ziegler et al., section 2.2."""

_MAX_RATIO = math.e
"""Bound on what the gain makes a power of: KL over target, or its reciprocal."""


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
    """(B,) sum of k1 over each completion's tokens, in nats."""
    return torch.where(mask, k1(logprobs, ref_logprobs), 0).sum(1)


def batch_kl(evaluated: Evaluated) -> float:
    """*The* KL of a batch, in nats: the mean over sequences of `sequence_kl`."""
    return sequence_kl(evaluated.old_logprobs, evaluated.ref_logprobs, evaluated.mask).mean().item()


@dataclass(frozen=True, slots=True)
class FixedKL:
    """A coefficient that stays."""

    kl_coef: float

    def coefficient(self, kl: float) -> float:
        """Itself; takes what `AdaptiveKL.coefficient` takes."""
        return self.kl_coef

    def updated(self, kl: float, episodes: int) -> FixedKL:
        """Itself; takes what `AdaptiveKL.updated` takes."""
        return self


@dataclass(frozen=True, slots=True)
class AdaptiveKL:
    """A coefficient that steers the KL to a target. Ziegler et al. 2019, section 2.2, and a gain.

    Theirs sums errors up. The KL follows a coefficient many steps late, so that the sum overshoots, unless it is so
    slow that a wrong start takes hundreds of steps to mend. A gain answers at once, before the sum has moved.

    Attributes:
        kl_coef: The coefficient at the target: what errors are summed up in.
        target: Mean over sequences of the *sum* over tokens, in nats.
        horizon: Episodes; the larger, the slower.
        gain: Power of KL over target that the coefficient is multiplied by; 0 = theirs.
    """

    kl_coef: float
    target: float
    horizon: float
    gain: float = 0.0

    def __post_init__(self) -> None:
        for name in ("target", "horizon"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"the adaptive KL controller needs {name} > 0, got {value}")

    def coefficient(self, kl: float) -> float:
        """What a batch whose mean sequence KL is `kl` is penalised with."""
        ratio = min(max(kl / self.target, 1 / _MAX_RATIO), _MAX_RATIO)
        return self.kl_coef * math.pow(ratio, self.gain)

    def updated(self, kl: float, episodes: int) -> AdaptiveKL:
        """The controller after a batch of `episodes` whose mean sequence KL was `kl`."""
        error = min(max(kl / self.target - 1, -_MAX_ERROR), _MAX_ERROR)
        return replace(self, kl_coef=self.kl_coef * (1 + error * episodes / self.horizon))


KLController = FixedKL | AdaptiveKL
