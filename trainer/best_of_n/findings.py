"""What choosing by the proxy gives: curves, fits and length shares for every way to choose, and what is not in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.best_of_n.file import Answered, Judged
from trainer.best_of_n.judges import Judgement, Verdict
from trainer.data.lines import DataError
from trainer.overoptimisation.best_of_n import kl_of_best_of_n
from trainer.overoptimisation.curves import Choice, curves, means, selections, sizes_up_to, units_of
from trainer.overoptimisation.gao import FitWithIntervals, Interval, fit_with_intervals
from trainer.overoptimisation.length_share import LengthShare, Scored, length_share
from trainer.overoptimisation.objectives import objectives

Array = NDArray[np.float64]

WHOLE = "score"
"""How a proxy without members is called among the ways to choose."""

LEAST_SCORED = 0.5
"""A prompt counts where this share of its completions, or more, have both scores."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to choose. Gains are over n = 1, means over prompts with 95 % intervals, for each size.

    Attributes:
        name: "score", or how an ensemble is used.
        proxy: Gain in what is chosen by.
        gold: Gain in gold.
        proxy_fit: Gao's form on the former.
        gold_fit: The same on gold: where it turns, more choosing costs gold.
        disagreement: Mean standard deviation over members of what is chosen; None without members.
        proxy_by_length: What of the largest size's gain in proxy length explains.
        gold_by_length: The same of gold.
    """

    name: str
    proxy: tuple[Interval, ...]
    gold: tuple[Interval, ...]
    proxy_fit: FitWithIntervals
    gold_fit: FitWithIntervals
    disagreement: tuple[float, ...] | None
    proxy_by_length: LengthShare
    gold_by_length: LengthShare


@dataclass(frozen=True, slots=True)
class Excluded:
    """What no estimate is made of.

    Attributes:
        refused: Prompts that the policy does not take.
        failed: Prompts that the policy failed on, or was late with; they are asked for again.
        too_few: Prompts of which fewer than half of the completions have both scores.
        proxy: Code → completions without a proxy score.
        gold: Code → completions without a gold score.
    """

    refused: int
    failed: int
    too_few: int
    proxy: Mapping[str, int]
    gold: Mapping[str, int]

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.refused or self.failed or self.too_few or self.proxy or self.gold)


@dataclass(frozen=True, slots=True)
class Findings:
    """All that was found.

    Attributes:
        prompts: Prompts that the estimates are of.
        groups: Groups that they make: what the bootstrap draws.
        completions: Completions of these prompts that have both scores.
        sizes: n.
        kl: KL of each to the policy, nats.
        ways: How one can choose, each with what it gives.
        excluded: What is not in it.
    """

    prompts: int
    groups: int
    completions: int
    sizes: tuple[int, ...]
    kl: tuple[float, ...]
    ways: tuple[Way, ...]
    excluded: Excluded


def find(answered: Sequence[Answered], samples: int, variance_weight: float, seed: int) -> Findings:
    """Estimates of all that has two scores.

    Args:
        answered: Prompts, each with `samples` completions unless it is refused or failed.
        samples: So many.
        variance_weight: Of an ensemble's mean minus variance.
        seed: Of the bootstrap.

    Raises:
        DataError: There are not two groups of prompts with enough scores.
    """
    scored = [(one, _scored(one.judged)) for one in answered if one.judged]
    kept = [(one, judged) for one, judged in scored if len(judged) >= LEAST_SCORED * samples]
    excluded = _excluded(answered, len(scored) - len(kept))
    groups: dict[str, list[int]] = {}
    for place, (one, _) in enumerate(kept):
        groups.setdefault(one.group, []).append(place)
    if len(groups) < 2:
        raise DataError(_too_few(len(groups), excluded, answered))
    sizes = sizes_up_to(min(len(judged) for _, judged in kept))
    ways = _choices([judged for _, judged in kept], variance_weight)
    lengths = [np.array([each.tokens for each in judged], dtype=np.float64) for _, judged in kept]
    return Findings(
        prompts=len(kept),
        groups=len(groups),
        completions=sum(map(len, lengths)),
        sizes=sizes,
        kl=tuple(map(kl_of_best_of_n, sizes)),
        ways=tuple(_way(name, each, lengths, sizes, list(groups.values()), seed) for name, each in ways.items()),
        excluded=excluded,
    )


def _way(
    name: str,
    choices: Sequence[Choice],
    lengths: Sequence[Array],
    sizes: Sequence[int],
    groups: Sequence[Sequence[int]],
    seed: int,
) -> Way:
    found = curves(choices, sizes)
    gains = {"proxy": found.proxy, "gold": found.gold}
    fits = {
        what: fit_with_intervals("best_of_n", units_of(found.d, gain, groups), seed) for what, gain in gains.items()
    }
    return Way(
        name=name,
        proxy=means(found.proxy, groups, seed),
        gold=means(found.gold, groups, seed),
        proxy_fit=fits["proxy"],
        gold_fit=fits["gold"],
        disagreement=None if found.spread is None else tuple(found.spread.mean(axis=0).tolist()),
        proxy_by_length=_by_length(choices, [each.proxies for each in choices], lengths, sizes[-1]),
        gold_by_length=_by_length(choices, [each.gold for each in choices], lengths, sizes[-1]),
    )


def _choices(judged: Sequence[Sequence[Judged]], variance_weight: float) -> dict[str, list[Choice]]:
    """Way → what is chosen from, prompt by prompt."""
    found: dict[str, list[Choice]] = {}
    for completions in judged:
        gold = np.array([_score(each.gold) for each in completions])
        members = np.array([_judgement(each.proxy).members for each in completions])  # (N, M)
        if members.size:
            ways, spread = objectives(members, variance_weight), members.std(axis=1)
        else:
            ways, spread = {WHOLE: np.array([[_score(each.proxy) for each in completions]])}, None
        for name, proxies in ways.items():
            found.setdefault(name, []).append(Choice(proxies, gold, spread))
    return found


def _by_length(choices: Sequence[Choice], values: Sequence[Array], lengths: Sequence[Array], n: int) -> LengthShare:
    """What length explains of a gain from any completion to the best of n; values are told from their prompt's mean."""
    sides: list[tuple[Array, Array, Array, Array]] = []
    for choice, value, length in zip(choices, values, lengths, strict=True):
        chosen = selections(choice, n)  # (V, N)
        told = np.broadcast_to(value - value.mean(axis=-1, keepdims=True), chosen.shape)
        whole = np.full(chosen.size, 1 / chosen.size)
        sides.append((np.tile(length, len(chosen)), told.ravel(), whole, chosen.ravel() / len(chosen)))
    tokens, scores, before, after = (np.concatenate(column) for column in zip(*sides, strict=True))
    return length_share(Scored(tokens, scores, before), Scored(tokens, scores, after))


def _scored(judged: Sequence[Judged]) -> list[Judged]:
    """Those with both scores."""
    return [one for one in judged if not (isinstance(one.proxy, str) or isinstance(one.gold, str))]


def _excluded(answered: Sequence[Answered], too_few: int) -> Excluded:
    judged = [each for one in answered for each in one.judged]
    return Excluded(
        refused=sum(bool(one.refused) for one in answered),
        failed=sum(bool(one.failed) for one in answered),
        too_few=too_few,
        proxy=_codes([each.proxy for each in judged]),
        gold=_codes([each.gold for each in judged]),
    )


def _codes(verdicts: Sequence[Verdict]) -> dict[str, int]:
    return dict(Counter(verdict.partition(":")[0] for verdict in verdicts if isinstance(verdict, str)))


def _too_few(groups: int, excluded: Excluded, answered: Sequence[Answered]) -> str:
    why = [one.refused or one.failed for one in answered if not one.judged]
    judged = [each for one in answered for each in one.judged]
    why += [verdict for each in judged for verdict in (each.proxy, each.gold) if isinstance(verdict, str)]
    first = f". The first cause: {why[0]}" if why else ""
    return (
        f"there are {groups} groups of prompts with enough scores, and intervals over them take 2 or more: "
        f"{excluded.refused} prompts are refused by the policy, on {excluded.failed} it failed or was late, of "
        f"{excluded.too_few} fewer than half of the completions have both scores{first}"
    )


def _judgement(verdict: Verdict) -> Judgement:
    assert isinstance(verdict, Judgement)
    return verdict


def _score(verdict: Verdict) -> float:
    return _judgement(verdict).score
