"""Any engine, with decode steps that take at least so long: rehearses a larger model or a slower machine."""

from __future__ import annotations

import time
from typing import Any

from services.policy.engine import Batch, DecodeStep, Engine


class PacedEngine:
    """Says and draws what `engine` does, and waits; waiting takes no processor from others on the machine.

    Args:
        engine: What does the work.
        step_seconds: Shortest time of a decode step.
    """

    def __init__(self, engine: Engine[Any], step_seconds: float) -> None:
        self._engine = engine
        self._step_seconds = step_seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def batch(self, weights: Any) -> PacedBatch:
        """As the engine's, paced."""
        return PacedBatch(self._engine.batch(weights), self._step_seconds)


class PacedBatch:
    """Draws what `batch` does, and waits out the rest of each step.

    Args:
        batch: What does the work.
        step_seconds: Shortest time of a decode step.
    """

    def __init__(self, batch: Batch, step_seconds: float) -> None:
        self._batch = batch
        self._step_seconds = step_seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def step(self) -> DecodeStep:
        """As the batch's."""
        begin = time.monotonic()
        step = self._batch.step()
        time.sleep(max(0.0, begin + self._step_seconds - time.monotonic()))
        return step
