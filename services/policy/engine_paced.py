"""Any engine, with decode steps that take at least so long: rehearses a larger model or a slower machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from services.policy.engine import DecodeStep, Engine, GenerationBatch


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

    def decode(self, weights: Callable[[], Any], batch: GenerationBatch) -> Iterator[DecodeStep]:
        """As the engine's."""
        begin = time.monotonic()
        for step in self._engine.decode(weights, batch):
            time.sleep(max(0.0, begin + self._step_seconds - time.monotonic()))
            yield step
            begin = time.monotonic()
