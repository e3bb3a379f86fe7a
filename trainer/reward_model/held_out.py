"""Scores of the pairs that were not learnt from: what every measurement is made on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.data.comparisons import Comparison
from trainer.data.votes import Pair


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Pairs with the raw scores of both sides.

    Attributes:
        pairs: As far as the model can read them.
        a: (H, M) scores of the first sides by every member; M = 1 for a single model.
        b: (H, M) of the second ones.
    """

    pairs: tuple[Pair, ...]
    a: Tensor
    b: Tensor

    def rows(self) -> list[Comparison]:
        """What most votes say of each."""
        return [pair.judged() for pair in self.pairs]

    def shares(self) -> list[float]:
        """Share of the votes for the first side of each."""
        return [pair.share for pair in self.pairs]

    def sides(self) -> tuple[list[float], list[float]]:
        """(H,) and (H,) the members' means."""
        return _means(self.a), _means(self.b)

    def differences(self) -> list[float]:
        """(H,) mean of score(a) − score(b)."""
        return [a - b for a, b in zip(*self.sides(), strict=True)]

    def member(self, number: int) -> HeldOut:
        """The same with one member's scores."""
        return HeldOut(self.pairs, self.a[:, number : number + 1], self.b[:, number : number + 1])


def side_by_side(parts: Sequence[HeldOut]) -> HeldOut:
    """One of several models, which have scored the same pairs."""
    return HeldOut(parts[0].pairs, torch.cat([part.a for part in parts], 1), torch.cat([part.b for part in parts], 1))


def _means(scores: Tensor) -> list[float]:
    return scores.double().mean(1).tolist()
