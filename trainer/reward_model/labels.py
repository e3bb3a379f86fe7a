"""Labels: what votes on a pair become before a model learns from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.data.comparisons import PREFERENCE
from trainer.data.lines import DataError
from trainer.data.votes import Pair, count_votes
from trainer.reward_model.config import LabelRule
from trainer.reward_model.dawid_skene import dawid_skene
from trainer.reward_model.reliability import Array, vote_table


@dataclass(frozen=True, slots=True)
class Labels:
    """What is learnt of each pair.

    Attributes:
        preference: (P,) probability that `a` is better.
        weight: (P,) factor of the pair's loss; 1 on average.
    """

    preference: Array
    weight: Array


def labels_of(pairs: Sequence[Pair], rule: LabelRule) -> Labels:
    """The labels of `pairs` by a rule.

    "votes" lets every vote count: the share of the votes, weighted by their number, which is Bradley–Terry's loss
    summed over votes. "soft" is the share with each pair counted once; "majority" what most votes say; "dawid-skene"
    the probability that annotators' errors, learnt from votes alone, leave.

    Raises:
        DataError: Dawid–Skene, and no two annotators have judged the same pair.
    """
    ones = np.ones(len(pairs))
    if rule == "dawid-skene":
        _check_overlap(pairs)
        return Labels(dawid_skene(vote_table(pairs)), ones)
    if rule == "majority":
        return Labels(np.array([PREFERENCE[pair.judged().label] for pair in pairs]), ones)
    shares, counts = np.array([pair.share for pair in pairs]), np.array([float(len(pair.votes)) for pair in pairs])
    return Labels(shares, counts / counts.mean() if rule == "votes" else ones)


def check_annotators(pairs: Sequence[Pair], unread: Sequence[str] = ()) -> None:
    """Raises DataError where reliabilities cannot be learnt: nameless votes, or one annotator.

    Args:
        pairs: What is learnt from.
        unread: Keys under which the annotators may stand instead.
    """
    counts = count_votes(pairs)
    if counts.unnamed:
        raise DataError(
            f"{counts.unnamed} of {counts.votes} votes do not say whose they are; reliabilities of annotators need an "
            f"'annotator' in each{_instead(unread)}, or learn without them"
        )
    if counts.annotators < 2:
        raise DataError(
            "one annotator cast all votes, and there is nobody to compare with; learn without reliabilities"
        )


def _instead(unread: Sequence[str]) -> str:
    return f" (there is {', '.join(map(repr, unread))}: call that so, if it says it)" if unread else ""


def _check_overlap(pairs: Sequence[Pair]) -> None:
    check_annotators(pairs)
    if all(len({vote.annotator for vote in pair.votes}) < 2 for pair in pairs):
        raise DataError(
            "no pair was judged by two annotators, and Dawid-Skene learns from nothing else; collect more votes a "
            "pair, or use --annotators reliability, which compares annotators through the texts"
        )
