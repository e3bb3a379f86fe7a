"""Has completions scored by every reward of a run; what one of them gives no score is dropped, never scored 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from trainer.ppo import points
from trainer.ppo.combination import Share, combined_revision, combined_score
from trainer.ppo.rewards import ScoreScale
from trainer.types import ComponentScore, DroppedRollout, Rollout, ScoredRollout

Outcome = ScoredRollout | DroppedRollout


class RewardSource(Protocol):
    """What gives the raw scores of one reward: a service, or a function here."""

    def score(self, rollouts: Sequence[Rollout]) -> list[Outcome]:
        """A score, or why there is none, for each rollout in order."""

    def close(self) -> None:
        """Ends its workers."""


@dataclass(frozen=True, slots=True)
class Component:
    """One of a run's rewards: how it counts, and what gives its scores."""

    share: Share
    source: RewardSource


class Scorer:
    """Asks all rewards at once, and makes one score of theirs.

    Args:
        components: At least one.
        scales: How those are standardised that are to be; empty until they are measured.
    """

    def __init__(self, components: Sequence[Component], scales: Mapping[str, ScoreScale]) -> None:
        self._components = tuple(components)
        self._scales = scales
        self._pool = ThreadPoolExecutor(len(self._components), thread_name_prefix="rewards")

    def standardize_by(self, scales: Mapping[str, ScoreScale]) -> None:
        """From now on rewards are standardised by these; called before the first score that is learnt from."""
        self._scales = scales

    def score(self, rollouts: Sequence[Rollout]) -> list[Outcome]:
        """A score, or why there is none, for each rollout in order.

        Raises:
            RewardModelChanged: A service has another revision than the pinned one.
            ScoresFailed: A rollout that may not be dropped got no score.
            RewardFunctionBroken: A function does not give one value for each completion.
            CallError: A service refuses the calls themselves.
        """
        points.reach("scoring")
        columns = list(self._pool.map(lambda component: component.source.score(rollouts), self._components))
        return [self._together(rollout, row) for rollout, *row in zip(rollouts, *columns, strict=True)]

    def combined(self, components: Sequence[ComponentScore]) -> float:
        """What raw scores of all rewards make together."""
        return combined_score([component.share for component in self._components], components, self._scales)

    def close(self) -> None:
        """Waits for calls that run and ends the workers; clients stay open."""
        self._pool.shutdown(cancel_futures=True)
        for component in self._components:
            component.source.close()

    def _together(self, rollout: Rollout, row: Sequence[Outcome]) -> Outcome:
        found = []
        for component, outcome in zip(self._components, row, strict=True):
            name = component.share.name
            if isinstance(outcome, DroppedRollout):
                return outcome if len(row) == 1 else _by_name(name, outcome)
            found.append(ComponentScore(name, outcome.score, outcome.revision, outcome.std))
        revision = combined_revision({each.name: each.revision for each in found})
        return ScoredRollout(rollout, self.combined(found), revision, tuple(found))


def _by_name(name: str, dropped: DroppedRollout) -> DroppedRollout:
    return DroppedRollout(dropped.rollout, dropped.cause, f"{name}: {dropped.message}")
