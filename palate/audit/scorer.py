"""What an audit asks: anything that scores texts, a service, or a function of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeAlias

from palate.audit.items import Text
from palate.client import Failed
from palate.oip.client import Cut, finite

Outcome: TypeAlias = float | Cut | Failed
"""A finite score, perhaps of a text that was cut, or why there is none."""


def score_of(outcome: Outcome) -> float | None:
    """The score; None where there is none."""
    if isinstance(outcome, Cut):
        return outcome.score
    return None if isinstance(outcome, Failed) else outcome


class Scorer(Protocol):
    """A reward model, wherever it is."""

    def score(self, texts: Iterable[Text]) -> Iterator[Sequence[Outcome]]:
        """The outcomes of all texts in their order, in parts as they come."""
        ...


class FunctionScorer:
    """A function of (prompt, completion) as a reward model; what it raises ends the audit."""

    def __init__(self, function: Callable[[str, str], float]) -> None:
        self._function = function

    def score(self, texts: Iterable[Text]) -> Iterator[Sequence[Outcome]]:
        """One part with everything."""
        yield [finite(self._function(text.prompt, text.completion)) for text in texts]
