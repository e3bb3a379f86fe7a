"""Two ways of doing the same work, timed in turns, so that whatever else the machine does slows down both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Inputs = TypeVar("Inputs")
Answer = TypeVar("Answer")


class Disagreement(Exception):
    """The two ways do not give the same answer, so comparing their speed means nothing."""


@dataclass(frozen=True, slots=True)
class Way(Generic[Inputs, Answer]):
    """One way of doing the work, and what to call it."""

    name: str
    run: Callable[[Inputs], Answer]


@dataclass(frozen=True, slots=True)
class Measurement(Generic[Inputs, Answer]):
    """Something to measure.

    Attributes:
        title: What is asked.
        baseline: What the other way is held against.
        candidate: The other way.
        inputs: Fresh inputs for each number, the same amount of work every time.
        agree: Whether two answers to the same inputs are the same.
    """

    title: str
    baseline: Way[Inputs, Answer]
    candidate: Way[Inputs, Answer]
    inputs: Callable[[int], Inputs]
    agree: Callable[[Answer, Answer], bool]


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds of each round, (rounds,) for either way."""

    baseline: tuple[float, ...]
    candidate: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as fast the candidate is: `value` over all rounds, `lowest` and `highest` in a single one."""

    value: float
    lowest: float
    highest: float


def take_turns(
    measurement: Measurement[Inputs, Answer],
    rounds: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    after_round: Callable[[], None] = lambda: None,
) -> Timed:
    """Runs baseline, candidate, baseline, candidate and so on; a first run of each is checked, not timed.

    Args:
        measurement: What to run.
        rounds: How many times each way is timed; at least one.
        clock: Seconds.
        after_round: Told after each round, for a progress bar.

    Raises:
        Disagreement: The two ways answer the same inputs differently.
    """
    _check_agreement(measurement)
    baseline, candidate = [], []
    for number in range(rounds):
        baseline.append(_seconds(measurement.baseline, measurement.inputs(2 * number + 1), clock))
        candidate.append(_seconds(measurement.candidate, measurement.inputs(2 * number + 2), clock))
        after_round()
    return Timed(tuple(baseline), tuple(candidate))


def ratio(timed: Timed) -> Ratio:
    """The ratio of the medians, which always lies between the lowest and the highest ratio of a round."""
    value = statistics.median(timed.baseline) / statistics.median(timed.candidate)
    of_rounds = [first / second for first, second in zip(timed.baseline, timed.candidate, strict=True)]
    return Ratio(value, min(of_rounds), max(of_rounds))


def _check_agreement(measurement: Measurement[Inputs, Answer]) -> None:
    """Warms up both ways on the way."""
    inputs = measurement.inputs(0)
    expected, found = measurement.baseline.run(inputs), measurement.candidate.run(inputs)
    if not measurement.agree(expected, found):
        raise Disagreement(
            f"{measurement.title}: {measurement.baseline.name!r} and {measurement.candidate.name!r} give different "
            "answers to the same inputs; find out which is wrong before measuring either"
        )


def _seconds(way: Way[Inputs, Answer], inputs: Inputs, clock: Callable[[], float]) -> float:
    begin = clock()
    way.run(inputs)
    return clock() - begin
