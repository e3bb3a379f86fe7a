"""Any engine, with forward passes that take at least so long: rehearses a larger model or a slower machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.reward.engine import Engine, Row


class PacedEngine:
    """Scores as `engine` does, and waits; waiting takes no processor from others on the machine.

    Args:
        engine: What does the work.
        batch_seconds: Shortest time of a forward pass, however many rows it has.
    """

    def __init__(self, engine: Engine, batch_seconds: float) -> None:
        self._engine = engine
        self._batch_seconds = batch_seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def score(self, rows: Sequence[Row], alone: bool = False) -> NDArray[np.float32]:
        """As the engine's, (B, M)."""
        begin = time.monotonic()
        scores = self._engine.score(rows, alone)
        time.sleep(max(0.0, begin + self._batch_seconds - time.monotonic()))
        return scores
