"""Looks at rollouts that have been learnt from: what gold says of them, how far an ensemble disagrees, when to end.

Called when the update is done, and what it finds goes to the files of the run alone: gold cannot be learnt from.
"""

from __future__ import annotations

import json
import logging
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from scipy.stats import spearmanr

from trainer.ppo.errors import BrakeUnusable
from trainer.ppo.scoring import RewardSource
from trainer.ppo.watch_config import WatchGroup
from trainer.types import DroppedRollout, ScoredRollout

_LOG = logging.getLogger(__name__)

GOLD, DISAGREEMENT, KL = "watch/gold", "watch/disagreement", "objective/kl"
"""The numbers of a step that brakes look at."""

END_FILE = "end.json"


class EndReason(StrEnum):
    """Why a run has ended."""

    STEPS = "STEPS"
    KL = "KL"
    DISAGREEMENT = "DISAGREEMENT"
    GOLD = "GOLD"


@dataclass(frozen=True, slots=True)
class End:
    """How a run has ended.

    Attributes:
        reason: "STEPS": all its steps are done. Else a brake.
        step: After so many steps.
        told: What happened, in words.
    """

    reason: EndReason
    step: int
    told: str


class Watch:
    """What is looked at after each step.

    Args:
        settings: Bounds.
        weights: Name → weight of every reward of the run.
        gold: What judges beside them; None = nothing does.
        rows: Of the steps that are done already.
    """

    def __init__(
        self,
        settings: WatchGroup,
        weights: Mapping[str, float],
        gold: RewardSource | None = None,
        rows: Sequence[Mapping[str, float]] = (),
    ) -> None:
        self._settings = settings
        self._weights = weights
        self._gold = gold
        self._rows = [_looked_at(row) for row in rows]

    def look(self, scored: Sequence[ScoredRollout]) -> dict[str, float]:
        """The step's numbers beside those of the training; a number is missing where there is none.

        Raises:
            RewardModelChanged: The gold service has another model than when the run began.
            RewardFunctionBroken: The gold function does not give one value for each completion.
            CallError: The gold service refuses the calls themselves.
            BrakeUnusable: A brake looks at gold, which has never said anything.
        """
        return self._disagreement(scored) | (self._judged(scored) if self._gold else {})

    def brake(self, row: Mapping[str, float]) -> End | None:
        """Why the run should end after the step of `row`; None where it should go on."""
        self._rows.append(_looked_at(row))
        return brake(self._settings, self._rows, int(row["step"]))

    def _disagreement(self, scored: Sequence[ScoredRollout]) -> dict[str, float]:
        found = [
            sum(abs(self._weights[each.name]) * each.std for each in one.components if each.std is not None)
            for one in scored
            if any(each.std is not None for each in one.components)
        ]
        return {DISAGREEMENT: statistics.fmean(found)} if found else {}

    def _judged(self, scored: Sequence[ScoredRollout]) -> dict[str, float]:
        assert self._gold is not None
        outcomes = self._gold.score([one.rollout for one in scored])
        pairs = [
            (one.score, outcome.score)
            for one, outcome in zip(scored, outcomes, strict=True)
            if not isinstance(outcome, DroppedRollout)
        ]
        metrics = {"watch/gold_missing": float(len(scored) - len(pairs))}
        if not pairs:
            why = next(outcome.message for outcome in outcomes if isinstance(outcome, DroppedRollout))
            self._check_heard(why)
            _LOG.warning(
                "gold has no score for any of the step's %d rollouts, and no brake sees it: %s", len(scored), why
            )
            return metrics
        proxy, gold = zip(*pairs, strict=True)
        metrics[GOLD] = statistics.fmean(gold)
        if len(set(proxy)) > 1 and len(set(gold)) > 1:
            metrics["watch/gold_correlation"] = float(spearmanr(proxy, gold).statistic)
        return metrics

    def _check_heard(self, why: str) -> None:
        """A gold that is away now and then is no fault; one that has never said anything holds no brake."""
        if self._settings.max_gold_fall is not None and not any(GOLD in row for row in self._rows):
            raise BrakeUnusable(
                f"watch.max_gold_fall has nothing to look at: gold has scored no rollout yet ({why}); mend it, or "
                "leave the brake out"
            )


def brake(settings: WatchGroup, rows: Sequence[Mapping[str, float]], step: int) -> End | None:
    """Whether running means over the last steps pass a bound; not before there are as many steps as they take."""
    for name, bound, reason in (
        (KL, settings.max_kl, EndReason.KL),
        (DISAGREEMENT, settings.max_disagreement, EndReason.DISAGREEMENT),
    ):
        means = _running([row[name] for row in rows if name in row], settings.window)
        if bound is not None and means and means[-1] > bound:
            told = f"the mean of {name} over {settings.window} steps is {means[-1]:.4g}, above {bound:g}"
            return End(reason, step, told)
    means = _running([row[GOLD] for row in rows if GOLD in row], settings.window)
    if settings.max_gold_fall is not None and means and max(means) - means[-1] > settings.max_gold_fall:
        told = f"the mean of {GOLD} over {settings.window} steps fell from {max(means):.4g} to {means[-1]:.4g}"
        return End(EndReason.GOLD, step, f"{told}, by more than {settings.max_gold_fall:g}")
    return None


def write_end(out: Path, end: End) -> None:
    """Writes end.json into a run's folder."""
    (out / END_FILE).write_text(json.dumps(asdict(end), indent=2) + "\n", encoding="utf-8")


def forget_end(out: Path) -> None:
    """Takes out what an earlier start wrote: the run goes on."""
    (out / END_FILE).unlink(missing_ok=True)


def read_end(out: Path) -> End | None:
    """How the run in a folder has ended; None where it has not, or nobody wrote it down."""
    if not (out / END_FILE).exists():
        return None
    told = json.loads((out / END_FILE).read_text(encoding="utf-8"))
    return End(EndReason(told["reason"]), told["step"], told["told"])


def _looked_at(row: Mapping[str, float]) -> dict[str, float]:
    return {name: row[name] for name in (GOLD, DISAGREEMENT, KL) if name in row}


def _running(values: Sequence[float], window: int) -> list[float]:
    """Means of `window` values each; none where there are fewer."""
    return [statistics.fmean(values[end - window : end]) for end in range(window, len(values) + 1)]
