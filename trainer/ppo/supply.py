"""Where the loop gets its batches from: drawn when they are asked for, or ahead (`overlap.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Protocol

from palate.client.types import PolicyVersion
from trainer.ppo.fill import DropLimit, Roll, fill_batch
from trainer.ppo.metrics import StageClock
from trainer.ppo.prompts import PromptSource
from trainer.ppo.rollouts import RolloutCollector
from trainer.ppo.scoring import Scorer
from trainer.ppo.state import RunState
from trainer.types import FilledBatch


@dataclass(frozen=True, slots=True)
class Supplied:
    """A batch as the loop gets it.

    Attributes:
        filled: What to learn from, and what fell out on the way.
        position: Where in the order of prompts a run goes on that learns from nothing drawn so far but this.
        drop_window: Of the last rollouts, oldest first, whether each got no score.
    """

    filled: FilledBatch
    position: int
    drop_window: tuple[bool, ...]


class Supply(Protocol):
    """Gives the loop its batches."""

    def take(self, state: RunState, version: PolicyVersion, clock: StageClock) -> Supplied:
        """The batch to learn from in the step after `state`; how long that took counts as "wait" on `clock`.

        Args:
            state: Where the run stands.
            version: What was published last: the weights of `state`.
            clock: Of the step.

        Raises:
            TrainingError: The rollouts cannot be had.
        """
        ...


@dataclass(frozen=True, slots=True)
class RolloutSide:
    """What it takes to make a batch: prompts, a policy that completes them, scores, and how much may fall out.

    Attributes:
        batch_size: Rollouts of a batch.
        group_size: Completions of each prompt.
    """

    prompts: PromptSource
    collector: RolloutCollector
    scorer: Scorer
    drop_limit: DropLimit
    batch_size: int
    group_size: int

    def fill(self, number: int, position: int, roll: Roll, clock: StageClock) -> FilledBatch:
        """Batch `number` of the run, whose prompts begin at `position`, completed by `roll`."""
        return fill_batch(
            self.batch_size,
            self.group_size,
            draw=partial(self.prompts.draw, f"step {number}", position),
            roll=clock.timed("rollouts", roll),
            score=clock.timed("scoring", self.scorer.score),
            limit=self.drop_limit,
        )


class OnPolicySupply:
    """Draws a batch when it is asked for, from exactly the weights that were published.

    Args:
        side: Makes the batches.
    """

    def __init__(self, side: RolloutSide) -> None:
        self._side = side

    def take(self, state: RunState, version: PolicyVersion, clock: StageClock) -> Supplied:
        """As `Supply`."""
        side = self._side
        with clock.stage("wait"):
            filled = side.fill(state.step, state.position, partial(side.collector.collect, version=version), clock)
        return Supplied(filled, state.position + filled.prompts, side.drop_limit.window)
