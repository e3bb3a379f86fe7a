"""Strict mode: the same bits whatever the batch, proved on this machine before anybody is served."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from palate.models.rendering import Renderer
from services.reward.engine import Engine, Row
from services.reward.parity.probing import ParityError, compare, probe_rows, random_batches, score_alone
from services.runtime.batching import BatchLimits

logger = logging.getLogger(__name__)

_SEED = 0


class OneByOne:
    """Another engine's scores, each row computed by itself and without padding."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name = engine.name
        self.dtype = engine.dtype
        self.layout = engine.layout

    def score(self, rows: Sequence[Row], alone: bool = False) -> NDArray[np.float32]:
        """(B, M) raw scores."""
        return np.concatenate([self._engine.score([row], alone) for row in rows])


def prove_strict(engine: Engine, renderer: Renderer, limits: BatchLimits) -> Engine:
    """The engine, where a row keeps its bits in random batches up to `limits`; else the engine row by row, proved too.

    Args:
        engine: One that was opened as strict: where batches are known to change its bits it uses none.
        renderer: Of the model.
        limits: How large the scheduler's batches become.

    Raises:
        ParityError: Even alone, the same row has other bits when it is scored again, or a score is not finite.
    """
    rows = probe_rows(renderer)
    alone = score_alone(engine, rows)
    for candidate in (engine, OneByOne(engine)):
        if count := _kept_bits(candidate, rows, alone, limits):
            logger.info("strict: the same bits alone and in %d random batches", count)
            return candidate
        logger.warning("strict: on this machine the bits of engine %s depend on the batch", candidate.name)
    raise ParityError(
        f"engine {engine.name} gives the same text other bits when asked again; serve it without --strict"
    )


def _kept_bits(engine: Engine, rows: Sequence[Row], alone: NDArray[np.float32], limits: BatchLimits) -> int:
    """In how many batches all bits were the same; 0 where they were not in one."""
    count = 0
    for batch in random_batches(rows, limits.max_items, limits.max_tokens, _SEED):
        if not all(member.is_bitwise for member in compare(engine, rows, alone, batch)):
            return 0
        count += 1
    return count
