"""Where the one who asks and the one who answers meet: one pair at a time, handed over between threads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Condition
from typing import Any, Literal, TypeAlias

from trainer.collect.labelling import Stopped, Tally
from trainer.collect.shown import Choice, Shown

Ending: TypeAlias = Literal["done", "stopped"]

PATIENCE = 15.0
"""Seconds after which somebody who waits for the next pair is told to ask again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was chosen of which attempt, and the seconds it took; "stop" ends the collection."""

    number: int
    choice: Choice | Literal["stop"]
    seconds: float


class Desk:
    """One side calls `ask`, the other `state` and `answer`.

    An answer's reply comes once the next pair is asked about or all is over, so once the answer is written down.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally, self._changed = tally, Condition()
        self._pair: Shown | None = None  # what is to be answered; None once it is
        self._answer: Answer | None = None
        self._ending: Ending | None = None

    def ask(self, seen: Shown) -> tuple[Choice, float]:
        """Waits for the choice, and the seconds it took.

        Raises:
            Stopped: Whoever answers has had enough.
        """
        with self._changed:
            self._pair, self._answer = seen, None
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._answer is not None)
            answer = self._answer
        if answer is None or answer.choice == "stop":
            raise Stopped
        return answer.choice, answer.seconds

    def close(self, ending: Ending) -> None:
        """Nothing more will be asked."""
        with self._changed:
            self._pair, self._ending = None, ending
            self._changed.notify_all()

    def state(self) -> Mapping[str, Any]:
        """The pair to compare; how it ended; or that one has to wait."""
        with self._changed:
            self._changed.wait_for(lambda: self._pair is not None or self._ending is not None, PATIENCE)
            return self._told()

    def answer(self, answer: Answer) -> Mapping[str, Any]:
        """Takes it where it is of the pair on the desk, which an answer that is sent twice is not; then as `state`."""
        with self._changed:
            if self._pair is not None and self._pair.pair.place.number == answer.number:
                self._answer, self._pair = answer, None
                self._changed.notify_all()
        return self.state()

    def _told(self) -> Mapping[str, Any]:
        count = {"held": self._tally.held, "wanted": self._tally.wanted}
        if self._pair is None:
            return {"state": self._ending or "waiting", **count}
        place, (first, second) = self._pair.pair.place, self._pair.texts
        return {
            "state": "pair",
            "number": place.number,
            "prompt": place.prompt.text,
            "first": first,
            "second": second,
            **count,
        }
