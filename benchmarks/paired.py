"""Ways of doing the same work, timed in turns, so that whatever else the machine does slows down all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

Inputs = TypeVar("Inputs")
Answer = TypeVar("Answer")

_RESAMPLES = 2000
_COVERAGE = 0.90


class Disagreement(Exception):
    """Two ways do not give the same answer, so comparing their speed means nothing."""


@dataclass(frozen=True, slots=True)
class Run(Generic[Answer]):
    """One run of a way.

    Attributes:
        seconds: How long it took.
        answer: What came out.
        client_cpu_seconds: CPU time that the load generator's process took meanwhile.
    """

    seconds: float
    answer: Answer
    client_cpu_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Way(Generic[Inputs, Answer]):
    """One way of doing the work, and what to call it."""

    name: str
    run: Callable[[Inputs], Run[Answer]]


@dataclass(frozen=True, slots=True)
class Contest(Generic[Inputs, Answer]):
    """Ways of doing the same work.

    Attributes:
        ways: The first one says what the right answer is.
        inputs: Fresh inputs for each number, the same amount of work every time.
        agree: Whether two answers to the same inputs are the same.
    """

    ways: Sequence[Way[Inputs, Answer]]
    inputs: Callable[[int], Inputs]
    agree: Callable[[Answer, Answer], bool]


Rounds: TypeAlias = Mapping[str, Sequence[Run[Answer]]]
"""The runs of every way, in the order of the rounds."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median over rounds, with the bounds between which 90 % of bootstrap samples have theirs; `n` rounds."""

    value: float
    low: float
    high: float
    n: int


def timed(
    work: Callable[[Inputs], Answer], clock: Callable[[], float] = time.perf_counter
) -> Callable[[Inputs], Run[Answer]]:
    """`work` as a run of this process."""

    def run(inputs: Inputs) -> Run[Answer]:
        begin = clock()
        answer = work(inputs)
        return Run(clock() - begin, answer)

    return run


def take_turns(
    contest: Contest[Inputs, Answer], rounds: int, after_round: Callable[[], None] = lambda: None
) -> dict[str, list[Run[Answer]]]:
    """Runs all ways on the same inputs, then on the next; every other round goes backwards.

    A first round warms up, is checked and is not kept.

    Args:
        contest: What to run.
        rounds: How many runs of each way are kept; at least one.
        after_round: Told after each round, for a progress bar.

    Raises:
        Disagreement: Two ways answer the same inputs differently.
    """
    _check_agreement(contest)
    runs: dict[str, list[Run[Answer]]] = {way.name: [] for way in contest.ways}
    for number in range(1, rounds + 1):
        inputs = contest.inputs(number)
        for way in contest.ways if number % 2 else reversed(contest.ways):
            runs[way.name].append(way.run(inputs))
        after_round()
    return runs


def times_as_fast(candidate: Sequence[Run[Answer]], baseline: Sequence[Run[Answer]]) -> Estimate:
    """How many times as fast the candidate is, from the ratio of each round."""
    return estimate([slow.seconds / quick.seconds for slow, quick in zip(baseline, candidate, strict=True)])


def median_seconds(runs: Sequence[Run[Answer]]) -> float:
    """Of the runs of one way."""
    return statistics.median(run.seconds for run in runs)


def estimate(values: Sequence[float]) -> Estimate:
    """The median of one value per round; one disturbed round does not move it.

    Source of the interval: the percentile bootstrap, Efron 1979; its draws are the same in every run.
    """
    draws = np.random.default_rng(0).choice(np.array(values), (_RESAMPLES, len(values)))
    low, high = bounds(np.median(draws, axis=1))
    return Estimate(float(np.median(values)), low, high, len(values))


def bounds(samples: NDArray[np.float64]) -> tuple[float, float]:
    """Between which 90 % of bootstrap samples lie."""
    ordered = np.sort(samples)
    tail = round((1 - _COVERAGE) / 2 * len(ordered))
    return float(ordered[tail]), float(ordered[-1 - tail])


def client_share(runs: Sequence[Run[Answer]]) -> float:
    """CPU seconds of the load generator for every second of the runs."""
    return sum(run.client_cpu_seconds for run in runs) / sum(run.seconds for run in runs)


def _check_agreement(contest: Contest[Inputs, Answer]) -> None:
    """Warms up all ways on the way."""
    inputs = contest.inputs(0)
    first, *others = contest.ways
    expected = first.run(inputs).answer
    for way in others:
        if not contest.agree(expected, way.run(inputs).answer):
            raise Disagreement(
                f"{first.name!r} and {way.name!r} give different answers to the same inputs; find out which is wrong "
                "before measuring either"
            )
