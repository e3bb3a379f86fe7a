"""A person in the terminal as a labeller: reads two texts, types a key and Enter."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from rich.console import Console
from rich.panel import Panel as Frame
from rich.text import Text

from trainer.collect.config import CollectConfig
from trainer.collect.labelling import Stopped, Tally, Verdict
from trainer.collect.pairs import DrawnPair
from trainer.collect.shown import Choice, Shown, shown, verdict

_KEYS: dict[str, Choice] = {"1": "first", "2": "second", "t": "tie", "s": "skip"}

_STOP = "q"

_QUESTION = "1 or 2: the better one · t: a tie · s: skip · q: stop > "

_LONGEST_LINE = 1000


class Terminal:
    """Asks whoever sits there."""

    asks_again = False
    batch = 8
    conditions: Mapping[str, Any] = {"labeller": "person"}

    def __init__(self, config: CollectConfig, tally: Tally, source: IO[str], console: Console) -> None:
        self._seed, self._annotator, self._tally = config.seed, config.annotator.strip(), tally
        self._source, self._console = source, console

    def verdicts(self, pairs: Sequence[DrawnPair]) -> Iterator[Verdict]:
        """One for each pair; time runs from when it is shown."""
        for pair in pairs:
            seen = shown(pair, self._seed, self._annotator)
            self._show(seen)
            begin = time.monotonic()
            choice = self._choice()
            yield verdict(seen, choice, self._annotator, round(time.monotonic() - begin, 1), "terminal")

    def _show(self, seen: Shown) -> None:
        self._console.rule(f"{self._tally.held + 1} of {self._tally.wanted}")
        self._console.print(Text(printable(seen.pair.place.prompt.text)), soft_wrap=True)
        for name, text in zip("12", seen.texts, strict=True):
            self._console.print(Frame(Text(printable(text)), title=name, title_align="left"))

    def _choice(self) -> Choice:
        while True:
            self._console.print(_QUESTION, end="")
            line = self._source.readline(_LONGEST_LINE)
            answer = line.strip().lower()
            if not line or answer == _STOP:
                self._console.print()
                raise Stopped
            if answer in _KEYS:
                return _KEYS[answer]


def printable(text: str) -> str:
    """The text without characters that would command the terminal."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\N{REPLACEMENT CHARACTER}" for sign in text)
