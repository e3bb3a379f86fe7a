"""What the votes say about who cast them: agreement with others, learnt reliability, and whom to look at."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from trainer.data.comparisons import PREFERENCE, Label
from trainer.data.votes import Pair
from trainer.reward_model.evaluate import Share, wilson
from trainer.reward_model.reliability import Array, Prior, VoteTable, interval

Suspicion: TypeAlias = Literal["adversary", "spammer", "open", "none"]


@dataclass(frozen=True, slots=True)
class Reliability:
    """η of an annotator with its 95 % credible interval, scores taken as known.

    Attributes:
        value: Its most likely value.
        low: The interval's lower end.
        high: Its upper end.
        suspicion: "adversary": the interval is below one half, so that votes say the contrary of what others mean.
            "spammer": it holds one half and ends below what is usual here, so that votes say little. "open": it holds
            one half and reaches the usual; too few votes to tell. "none": it is above one half.
    """

    value: float
    low: float
    high: float
    suspicion: Suspicion


@dataclass(frozen=True, slots=True)
class AnnotatorReport:
    """One annotator.

    Attributes:
        name: As in the data.
        votes: How many are learnt from.
        ties: Of these, for neither side.
        agreement: Share of votes for a side that is also the one of most others; None where no pair has others.
        reliability: None where it was not learnt.
    """

    name: str
    votes: int
    ties: int
    agreement: Share | None
    reliability: Reliability | None

    def suspected(self) -> bool:
        """Whether somebody should look at these votes."""
        return self.reliability is not None and self.reliability.suspicion in ("adversary", "spammer")


def report_annotators(
    pairs: Sequence[Pair], reliabilities: Mapping[str, Reliability] | None = None
) -> tuple[AnnotatorReport, ...]:
    """Every annotator that has a name, in alphabetical order."""
    labels: dict[str, list[Label]] = {}
    agreed: dict[str, list[bool]] = {}
    for pair in pairs:
        for vote in pair.votes:
            labels.setdefault(vote.annotator, []).append(vote.label)
            others = _margin_of_others(pair, vote.label)
            if vote.label != "tie" and others:
                agreed.setdefault(vote.annotator, []).append((others > 0) == (vote.label == "a"))
    return tuple(
        AnnotatorReport(
            name,
            len(labels[name]),
            labels[name].count("tie"),
            wilson(sum(agreed.get(name, ())), len(agreed.get(name, ()))),
            reliabilities.get(name) if reliabilities is not None else None,
        )
        for name in sorted(labels)
        if name
    )


def judge_reliabilities(
    votes: VoteTable, rates: Mapping[str, float], differences: Array, prior: Prior
) -> dict[str, Reliability]:
    """Intervals of what was learnt, and suspicions.

    Args:
        votes: What was learnt from.
        rates: η of every annotator.
        differences: (V,) Δ of the pair that each vote is on.
        prior: Of every η.
    """
    usual = statistics.median(rates.values())
    found = {}
    for index, name in enumerate(votes.names):
        own = votes.annotator == index
        low, high = interval(differences[own], votes.preference[own], prior)
        found[name] = Reliability(rates[name], low, high, _suspicion(low, high, usual))
    return found


def together(parts: Sequence[Mapping[str, Reliability]]) -> dict[str, Reliability]:
    """What the members of an ensemble have learnt: means over those that know an annotator, and suspicions of these."""
    known: dict[str, list[Reliability]] = {}
    for part in parts:
        for name, found in part.items():
            known.setdefault(name, []).append(found)
    means = {name: _mean_of(each) for name, each in known.items()}
    usual = statistics.median(value for value, _, _ in means.values())
    return {
        name: Reliability(value, low, high, _suspicion(low, high, usual)) for name, (value, low, high) in means.items()
    }


def _mean_of(parts: Sequence[Reliability]) -> tuple[float, float, float]:
    value, low, high = (statistics.fmean(getattr(part, name) for part in parts) for name in ("value", "low", "high"))
    return value, low, high


def _suspicion(low: float, high: float, usual: float) -> Suspicion:
    if high < 0.5:
        return "adversary"
    if low > 0.5:
        return "none"
    return "spammer" if high < usual else "open"


def _margin_of_others(pair: Pair, own: Label) -> float:
    """Votes for a minus votes for b, without one of `own`."""
    return sum(2 * PREFERENCE[vote.label] - 1 for vote in pair.votes) - (2 * PREFERENCE[own] - 1)
