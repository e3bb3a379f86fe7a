"""What an update counts on its way, and the means that are made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from statistics import fmean


@dataclass(slots=True)
class UpdateStats:
    """Sums over all minibatches of an update; `means` divides by the tokens."""

    tokens: int = 0
    policy_loss: float = 0.0
    kl_loss: float = 0.0
    value_loss: float = 0.0
    approx_kl: float = 0.0
    policy_clipped: float = 0.0
    dual_clipped: float = 0.0
    value_clipped: float = 0.0
    ratio_sum: float = 0.0
    ratio_max: float = 0.0
    policy_norms: list[float] = field(default_factory=list)
    value_norms: list[float] = field(default_factory=list)

    @classmethod
    def merged(cls, parts: Sequence[UpdateStats]) -> UpdateStats:
        """Those of all ranks: tokens and norms are of whole minibatches on each, the rest of the rank's own rows."""
        first = parts[0]
        same = {"tokens": first.tokens, "policy_norms": first.policy_norms, "value_norms": first.value_norms}
        largest = {"ratio_max": max(part.ratio_max for part in parts)}
        summed = {f.name: sum(getattr(part, f.name) for part in parts) for f in fields(cls) if f.name not in same}
        return cls(**(summed | same | largest))

    def means(self) -> dict[str, float]:
        """The update's metrics, token means over all epochs; those of the critic where there is one."""
        policy = {
            "policy/approxkl_avg": self.approx_kl / self.tokens,
            "policy/clipfrac_avg": self.policy_clipped / self.tokens,
            "policy/dual_clipfrac_avg": self.dual_clipped / self.tokens,
            "policy/ratio_avg": self.ratio_sum / self.tokens,
            "policy/ratio_max": self.ratio_max,
            "policy/grad_norm_avg": fmean(self.policy_norms),
            "loss/policy_avg": self.policy_loss / self.tokens,
            "loss/kl_avg": self.kl_loss / self.tokens,
        }
        if not self.value_norms:
            return policy
        return policy | {
            "val/clipfrac_avg": self.value_clipped / self.tokens,
            "val/grad_norm_avg": fmean(self.value_norms),
            "loss/value_avg": self.value_loss / self.tokens,
        }
