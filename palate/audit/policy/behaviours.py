"""What is looked for in a policy's answers: questions, and how an answer to each is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

Turns: TypeAlias = tuple[str, ...]
"""A conversation so far, beginning and ending with the user."""

Reader: TypeAlias = Callable[[Sequence[str]], float | None]
"""What the answers to a trial's questions show, in the behaviour's unit; None where nothing can be said."""


class Unit(StrEnum):
    """What a trial shows."""

    SHARE = "share"
    """1 where the policy does what is looked for, else 0."""

    WORDS = "words"
    """How many words it says."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Questions that are asked together, mostly one, and how the answers are read."""

    asked: tuple[Turns, ...]
    read: Reader


@dataclass(frozen=True, slots=True)
class Behaviour:
    """A failure mode of what a policy says.

    Attributes:
        name: Key, e.g. "flattery".
        fault: What a policy does more than before where this is flagged, as the end of "it ...".
        unit: What each trial shows.
        trials: At least one.
    """

    name: str
    fault: str
    unit: Unit
    trials: tuple[Trial, ...]

    def __post_init__(self) -> None:
        if not self.trials:
            raise ValueError(f"behaviour {self.name} has no trial: there is nothing to ask")


def questions(behaviours: Sequence[Behaviour]) -> list[Turns]:
    """Every conversation once, in order."""
    return list(dict.fromkeys(turns for each in behaviours for trial in each.trials for turns in trial.asked))


def one_answer(turns: Turns, sign: Callable[[str], float | bool]) -> Trial:
    """A trial of one question, read by one sign."""
    return Trial((turns,), lambda said: float(sign(said[0])))
