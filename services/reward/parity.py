"""Before the server is ready: a text must score the same alone and beside others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate.models.probe_texts import PROBES
from palate.models.rendering import Rendered, Renderer
from services.reward.engine import Engine, Row


class ParityError(Exception):
    """The engine's scores depend on the batch, or are no numbers; the message says by how much and what to do."""


@dataclass(frozen=True, slots=True)
class Parity:
    """What the check found.

    Attributes:
        deviation: Largest difference between a text alone and in the batch, in standard deviations of the scores; of
            an ensemble the largest of any member's.
        is_bitwise: Whether there was no difference at all.
    """

    deviation: float
    is_bitwise: bool


def check_parity(engine: Engine, renderer: Renderer, tolerance: float) -> Parity:
    """Scores the built-in texts alone and in one batch; also warms the engine up.

    Raises:
        ParityError: The two differ by more than `tolerance` standard deviations, or a score is not finite.
    """
    rows = [
        Row(item.token_ids, item.segment_ids)
        for item in renderer.render_pairs(PROBES, "left")
        if isinstance(item, Rendered)
    ]
    if len(rows) < 2:
        raise ParityError("the model's template takes none of the built-in texts, so nothing could be checked")
    alone = np.concatenate([engine.score([row]) for row in rows])
    batched = engine.score(rows)
    if not (np.isfinite(alone).all() and np.isfinite(batched).all()):
        raise ParityError(f"engine {engine.name} gives scores that are not finite; the checkpoint may be broken")
    deviation = max(map(_deviation, alone.T, batched.T))
    if deviation > tolerance:
        raise ParityError(
            f"engine {engine.name} scores a text up to {deviation:.1e} standard deviations apart alone and in a "
            f"batch; allowed are {tolerance:.1e} (--parity-tolerance). Try another --engine, or --max-batch-items 1"
        )
    return Parity(deviation, deviation == 0)


def _deviation(alone: NDArray[np.float32], batched: NDArray[np.float32]) -> float:
    """Of one member's (B,) scores."""
    # Where all texts score alike, rounding itself is the scale: no engine can do better.
    scale = max(float(alone.std()), 1e-3 * float(np.abs(alone).max()), 1e-6)
    return float(np.abs(alone - batched).max()) / scale
