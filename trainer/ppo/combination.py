"""From the raw scores of several rewards to one score: transformed, clipped, weighted, added up."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.ppo.reward_config import Transform
from trainer.ppo.rewards import ScoreScale
from trainer.types import ComponentScore


@dataclass(frozen=True, slots=True)
class Share:
    """How one reward counts; `trainer.ppo.reward_config` says what each field means."""

    name: str
    weight: float = 1.0
    transform: Transform = "none"
    clip: float | None = None

    def of(self, score: float, scale: ScoreScale | None) -> float:
        """What a raw score adds; without a scale it is not standardised."""
        if self.transform == "sigmoid":
            score = (1 + math.tanh(score / 2)) / 2  # without overflow
        elif self.transform == "standardize" and scale is not None:
            score = (score - scale.mean) / scale.std
        if self.clip is not None:
            score = max(-self.clip, min(self.clip, score))
        return self.weight * score


def combined_score(
    shares: Sequence[Share], components: Sequence[ComponentScore], scales: Mapping[str, ScoreScale]
) -> float:
    """The weighted sum over all rewards, in the order of `shares`."""
    added = [share.of(each.score, scales.get(share.name)) for share, each in zip(shares, components, strict=True)]
    return added[0] if len(added) == 1 else math.fsum(added)


def combined_revision(revisions: Mapping[str, str]) -> str:
    """One name for what gives the score: the only reward's revision, or a SHA-256 over names and revisions of all."""
    if len(revisions) == 1:
        return next(iter(revisions.values()))
    return hashlib.sha256(json.dumps(revisions, sort_keys=True).encode()).hexdigest()
