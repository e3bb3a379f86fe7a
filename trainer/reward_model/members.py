"""How the members of an ensemble differ: each one's accuracy and scale, and what it says when they disagree."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.data.comparisons import linked_groups
from trainer.reward_model.evaluate import Share, accuracy
from trainer.reward_model.held_out import HeldOut


@dataclass(frozen=True, slots=True)
class MembersReport:
    """What is known of an ensemble's members, on held-out pairs.

    Attributes:
        accuracies: Of each member alone.
        offsets: How far each one's mean score is from the mean of all, in standard deviations of the mean score: what
            Bradley–Terry leaves open, and a minimum over members feels.
        scales: Standard deviation of each one's scores over that of the mean score.
        disagreement: Standard deviation over members (divided by their number), mean over completions, in that unit.
        correlation: Of two members' differences of scores, mean over all pairs of members (Pearson).
        agreed: Accuracy on the half of the pairs on whose difference members agree most, for the size of it.
        disagreed: The same on the other half. No lower than `agreed`: disagreement says nothing about error here.
    """

    accuracies: tuple[Share | None, ...]
    offsets: tuple[float, ...]
    scales: tuple[float, ...]
    disagreement: float
    correlation: float
    agreed: Share | None
    disagreed: Share | None


def compare_members(held_out: HeldOut) -> MembersReport | None:
    """What differs between the members; None for a single model."""
    members = held_out.a.shape[1]
    if members == 1:
        return None
    scores = torch.cat([held_out.a, held_out.b]).double()  # (2H, M)
    unit = scores.mean(1).std(correction=0)
    differences = (held_out.a - held_out.b).double()  # (H, M)
    offsets = (scores.mean(0) - scores.mean()) / unit
    agreed, disagreed = _halves(held_out, differences)
    return MembersReport(
        accuracies=tuple(_accuracy(held_out, differences[:, [number]]) for number in range(members)),
        offsets=tuple(offsets.tolist()),
        scales=tuple((scores.std(0, correction=0) / unit).tolist()),
        disagreement=(scores.std(1, correction=0).mean() / unit).item(),
        correlation=_mean_correlation(differences),
        agreed=agreed,
        disagreed=disagreed,
    )


def _accuracy(held_out: HeldOut, differences: Tensor) -> Share | None:
    return accuracy(held_out.rows(), differences.mean(1).tolist())


def _halves(held_out: HeldOut, differences: Tensor) -> tuple[Share | None, Share | None]:
    """Accuracy where the members' differences lie closest together, relative to their mean, and elsewhere."""
    mean, spread = differences.mean(1).abs(), differences.std(1, correction=0)
    order = (spread / (mean + spread).clamp_min(torch.finfo(spread.dtype).tiny)).argsort(stable=True).tolist()
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    rows, means = held_out.rows(), differences.mean(1).tolist()
    groups = linked_groups(rows)
    first, second = (
        accuracy([rows[i] for i in half], [means[i] for i in half], [groups[i] for i in half]) for half in halves
    )
    return first, second


def _mean_correlation(differences: Tensor) -> float:
    found = torch.corrcoef(differences.T)  # (M, M)
    return found[~torch.eye(len(found), dtype=torch.bool)].mean().item()
