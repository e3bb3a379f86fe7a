"""A gold reward of runs that are watched: what goes well without rare letters."""

from __future__ import annotations

from collections.abc import Sequence

_RARE = frozenset("zqxj")


def plain_letters(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """1 for each completion without a rare letter, else 0; prompts do not matter."""
    return [float(_RARE.isdisjoint(completion)) for completion in completions]
