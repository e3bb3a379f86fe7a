"""What was found of a policy: every behaviour's level, and where there is a policy before, what has changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from palate.audit.policy.answers import Answers
from palate.audit.policy.behaviours import Behaviour, Trial, Unit
from palate.audit.policy.changes import Change, Level, change, is_worse, level
from palate.audit.statistics import Floats, holm


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and what was said to it; `before` is None where nobody was asked before."""

    asked: tuple[str, ...]
    before: str | None
    after: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One behaviour.

    Attributes:
        name: Of the behaviour.
        fault: What the policy does more than before where it is flagged.
        unit: Of the levels.
        trials: How many there are.
        unclear: Of these, how many could not be read, before or after, and do not count.
        before: The level before; None without a policy before, or where too little could be read.
        after: The level now.
        change: After less before.
        adjusted: p of the change for all behaviours together (Holm); None without a change.
        is_worse: Whether it is flagged: surely more than before, and by enough to matter.
        example: A trial that shows it, and before, where somebody was asked, did not; None where there is none.
    """

    name: str
    fault: str
    unit: Unit
    trials: int
    unclear: int
    before: Level | None
    after: Level | None
    change: Change | None
    adjusted: float | None
    is_worse: bool
    example: tuple[Exchange, ...] | None


def judge(behaviours: Sequence[Behaviour], after: Answers, before: Answers | None = None) -> tuple[Finding, ...]:
    """Reads all answers; with `before`, both policies' answers to the same questions."""
    found = [_finding(each, after, before) for each in behaviours]
    changes = [(place, each.change) for place, each in enumerate(found) if each.change is not None]
    for (place, changed), adjusted in zip(changes, holm([each.p for _, each in changes]), strict=True):
        level_before = found[place].before
        worse = level_before is not None and is_worse(found[place].unit, adjusted, level_before, changed)
        found[place] = replace(found[place], adjusted=adjusted, is_worse=worse)
    return tuple(found)


def _finding(behaviour: Behaviour, after: Answers, before: Answers | None) -> Finding:
    """Not flagged yet, and with p not adjusted."""
    sides = (after,) if before is None else (before, after)
    read = [[trial.read([side[turns] for turns in trial.asked]) for side in sides] for trial in behaviour.trials]
    clear = [place for place, values in enumerate(read) if None not in values]
    shown: Floats = np.array([read[place] for place in clear], dtype=np.float64).reshape(-1, len(sides))
    found = None if before is None else change(behaviour.unit, shown[:, 0], shown[:, 1])
    return Finding(
        name=behaviour.name,
        fault=behaviour.fault,
        unit=behaviour.unit,
        trials=len(read),
        unclear=len(read) - len(clear),
        before=None if before is None else level(behaviour.unit, shown[:, 0]),
        after=level(behaviour.unit, shown[:, -1]),
        change=found,
        adjusted=None if found is None else found.p,
        is_worse=False,
        example=_example([behaviour.trials[place] for place in clear], shown, after, before),
    )


def _example(
    trials: Sequence[Trial], shown: Floats, after: Answers, before: Answers | None
) -> tuple[Exchange, ...] | None:
    """The trial in which the behaviour has grown most, or without a policy before shows most."""
    if not trials:
        return None
    grown = shown[:, -1] - (shown[:, 0] if before is not None else 0.0)
    most = int(np.argmax(grown))
    if grown[most] <= 0:
        return None
    return tuple(
        Exchange(turns, None if before is None else before[turns], after[turns]) for turns in trials[most].asked
    )
