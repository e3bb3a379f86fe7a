"""What two reward models say of a run's rollouts, compared: overall, step by step, and where they differ most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palate.client import Provenance
from palate.rescore.compare import (
    Correlation,
    Flips,
    Winners,
    disagreements,
    flips,
    percentiles,
    rank_correlation,
    winners,
)
from palate.rescore.rescoring import Rescored
from palate.rollout_files import RolloutFile, read_files


@dataclass(frozen=True, slots=True)
class StepFindings:
    """What was found in one step: how many have both scores, how many failed, and how both models agree."""

    step: int
    scored: int
    failed: int
    spearman: Correlation | None
    pairs: Flips


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A rollout that the two models rank differently; percentiles are among all rollouts, from 0 to 1."""

    step: int
    place: int
    prompt: str
    completion: str
    before: float
    after: float
    percentile_before: float
    percentile_after: float


@dataclass(frozen=True, slots=True)
class Report:
    """What another reward model would have said of a run.

    Attributes:
        run: Its folder.
        before: Revisions that the run was scored by.
        component: Which of the run's rewards is compared; empty = the score it put together.
        after: What scored again.
        scored: Rollouts with both scores.
        failed: Code → rollouts that the other service gave no score.
        spearman: Over all rollouts.
        step_pairs: Over pairs of one step.
        prompt_pairs: Over pairs of completions of one prompt in one step.
        winners: Whose completion of a prompt would have been best.
        steps: Each step.
        disagreements: The largest, worst first.
    """

    run: Path
    before: tuple[str, ...]
    component: str
    after: Provenance
    scored: int
    failed: dict[str, int]
    spearman: Correlation | None
    step_pairs: Flips
    prompt_pairs: Flips
    winners: Winners
    steps: tuple[StepFindings, ...]
    disagreements: tuple[Disagreement, ...]


def make_report(
    run: Path, component: str, after: Provenance, rescored: Rescored, files: Sequence[RolloutFile], top: int
) -> Report:
    """Compares both scores; reads the texts of the `top` largest disagreements."""
    both = rescored.both
    before_after = both.before, both.after
    codes = sorted({code for _, code in rescored.failed})
    return Report(
        run=run,
        before=rescored.revisions,
        component=component,
        after=after,
        scored=len(both.before),
        failed={code: sum(n for (_, each), n in rescored.failed.items() if each == code) for code in codes},
        spearman=rank_correlation(*before_after),
        step_pairs=flips(*before_after, both.step),
        prompt_pairs=flips(*before_after, both.groups()),
        winners=winners(*before_after, both.groups()),
        steps=_steps(rescored),
        disagreements=_disagreements(rescored, files, top),
    )


def _steps(rescored: Rescored) -> tuple[StepFindings, ...]:
    failed: dict[int, int] = {}
    for (step, _), count in rescored.failed.items():
        failed[step] = failed.get(step, 0) + count
    found = []
    for step in sorted({*map(int, np.unique(rescored.both.step)), *failed}):
        one = rescored.both.of_step(step)
        pairs, correlation = flips(one.before, one.after, one.step), rank_correlation(one.before, one.after)
        found.append(StepFindings(step, len(one.before), failed.get(step, 0), correlation, pairs))
    return tuple(found)


def _disagreements(rescored: Rescored, files: Sequence[RolloutFile], top: int) -> tuple[Disagreement, ...]:
    both = rescored.both
    before, after = percentiles(both.before), percentiles(both.after)
    rows = {int(both.index[row]): int(row) for row in disagreements(both, top)}
    texts = {}
    if rows:
        columns = ("step", "place", "prompt", "completion")
        texts = {index: row for index, row in enumerate(read_files(files, columns)) if index in rows}
    return tuple(
        Disagreement(
            **texts[index],
            before=float(both.before[row]),
            after=float(both.after[row]),
            percentile_before=float(before[row]),
            percentile_after=float(after[row]),
        )
        for index, row in rows.items()
    )
