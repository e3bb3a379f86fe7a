"""What every server does before it is ready: the built-in texts score the same alone, padded and beside others."""

from __future__ import annotations

from dataclasses import dataclass

from palate.models.rendering import Renderer
from services.reward.engine import Engine
from services.reward.parity.probing import ParityError, compare, probe_rows, score_alone


@dataclass(frozen=True, slots=True)
class Parity:
    """What the check found.

    Attributes:
        deviation: Largest difference between a text alone and in a batch, in standard deviations of the scores; of an
            ensemble the largest of any member's.
        is_bitwise: Whether there was no difference at all.
    """

    deviation: float
    is_bitwise: bool


def check_parity(engine: Engine, renderer: Renderer, tolerance: float) -> Parity:
    """Scores the built-in texts alone, all in one batch, and two beside the longest; also warms the engine up.

    Some of the texts share a long prompt, so an engine that computes it once is checked in that as well.

    Raises:
        ParityError: A score differs by more than `tolerance` standard deviations, or is not finite.
    """
    rows = probe_rows(renderer)
    alone = score_alone(engine, rows)
    longest = len(rows) - 1
    batches = [list(range(len(rows))), *([place, longest] for place in (0, longest // 2))]
    found = [each for batch in batches for each in compare(engine, rows, alone, batch)]
    deviation = max(each.deviation for each in found)
    if deviation > tolerance:
        raise ParityError(
            f"engine {engine.name} scores a text up to {deviation:.1e} standard deviations apart alone and in a "
            f"batch; allowed are {tolerance:.1e} (--parity-tolerance). Try another --engine, or --strict"
        )
    return Parity(deviation, all(each.is_bitwise for each in found))
