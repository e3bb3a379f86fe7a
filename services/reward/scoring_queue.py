"""One queue and one engine thread for all models of a server: what is urgent goes first, whichever model it is for."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TypeAlias

from services.reward.config import RewardConfig
from services.reward.engine import Engine, Row
from services.reward.metrics import RewardMetrics
from services.reward.model import RewardModel
from services.runtime.queue_admission import QueueLimits
from services.runtime.scheduler import ReuseLimits, Scheduler

Members: TypeAlias = tuple[float, ...]
"""(M,) raw scores of one row; a model without members has one."""


class ScoringQueue:
    """The scheduler, and the engines its batches go to. Belongs to one event loop."""

    def __init__(self, config: RewardConfig, metrics: RewardMetrics) -> None:
        self._config = config
        self._engines: dict[Hashable, Engine] = {}
        self.scheduler: Scheduler[Row, Members] = Scheduler(
            self._score,
            QueueLimits(config.max_queue_items, config.max_queue_tokens),
            config.batch_limits(),
            metrics,
            ReuseLimits(config.deduplicate, config.cache_items, keep=_are_finite),
            limits_of=lambda group: config.batch_limits(self._engines[group].layout),
        )

    def open(self, model: RewardModel) -> Hashable:
        """Takes a model's engine on; gives the group of its work, which names all that changes a score."""
        group = (model.digests.revision, model.engine.name, model.engine.dtype)
        self._engines[group] = model.engine
        self.scheduler.widen(self._config.lanes or model.engine.layout.lanes)
        return group

    def leave(self, model: RewardModel, group: Hashable) -> None:
        """Lets the engine go, unless the same model was loaded anew; nothing of `model` waits any more."""
        if self._engines.get(group) is model.engine:
            del self._engines[group]

    async def close(self) -> None:
        """Answers what was accepted, then ends the engine's thread."""
        await self.scheduler.close()

    def _score(self, group: Hashable, rows: Sequence[Row], alone: bool) -> list[Members]:
        return [tuple(members) for members in self._engines[group].score(rows, alone).tolist()]


def _are_finite(members: Members) -> bool:
    return all(map(math.isfinite, members))
