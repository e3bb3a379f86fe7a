"""What the parts of the check have in common: rows that are scored, and what is said of what was seen."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from benchmarks.models import make_encoder, make_ranker, texts
from palate.models.export import export

_TOLERANCE = 1e-3
"""Of float32, in standard deviations of the scores."""

_SPEARMAN = 0.99
"""Of bfloat16, whose rounding moves scores; how far depends on the model."""

_MAKE = {"encoder": make_encoder, "decoder": make_ranker}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part works: on which device, in which folder, with models that compute next to nothing or not."""

    device: str
    scratch: Path
    tiny: bool

    def served(self, name: str) -> Path:
        """A reward model, ready for every engine; made once."""
        folder = self.scratch / f"{name}-served"
        return folder if folder.exists() else export(_MAKE[name](self.scratch / name, tiny=self.tiny), folder).path


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing that was looked at.

    Attributes:
        what: It.
        found: What was seen.
        bar: What was asked for.
        held: Whether it was so; None where this machine could not show it.
    """

    what: str
    found: str
    bar: str
    held: bool | None


def pairs(count: int) -> list[tuple[str, str]]:
    """Groups of completions to one prompt, of many lengths; some groups are worth sharing the prompt, some are not."""
    prompts, completions = texts(count // 32, 100, 340, 1), texts(count, 8, 120, 2)
    return [(prompts[place // 32], completion) for place, completion in enumerate(completions)]


def agreement(what: str, expected: np.ndarray, found: np.ndarray, dtype: str) -> Seen:
    """Of scores: nearly the same in float32, in the same order in bfloat16."""
    shift = float(np.abs(found - expected).max() / expected.std())
    rank = float(spearmanr(expected, found).statistic)
    told = f"largest shift {shift:.1e} SD, Spearman {rank:.6f}"
    if dtype == "float32":
        return Seen(what, told, f"{_TOLERANCE:g} SD", shift <= _TOLERANCE)
    return Seen(what, told, f"Spearman {_SPEARMAN:g}", rank >= _SPEARMAN)


def timed(call: Callable[[], object]) -> float:
    """Seconds that it takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
