"""The simulated panel as a labeller: a random member judges each pair, and errs as people do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from trainer.collect.config import CollectConfig
from trainer.collect.labelling import Labelled
from trainer.collect.pairs import DrawnPair
from trainer.data.lines import DataError
from trainer.data.prompts import PromptRow
from trainer.simulation.annotators import Annotator, biased_panel, honest_panel, label
from trainer.simulation.gold import subject_of


class Panel:
    """Judges answers to questions about the simulated world.

    Raises:
        DataError: No honest panel can have the label error that is asked for.
    """

    asks_again = True
    batch = 128

    def __init__(self, config: CollectConfig) -> None:
        self._members, self._seed = make_panel(config), config.seed
        noise = {"label_error": config.label_error} if config.panel == "honest" else {"flip_rate": config.flip_rate}
        self.conditions: Mapping[str, Any] = {"labeller": "simulated", "panel": {"name": config.panel, **noise}}

    def verdicts(self, pairs: Sequence[DrawnPair]) -> Iterator[Labelled]:
        """Which draw is "a" is as random as the draws, so sides need no swapping."""
        for pair in pairs:
            rng = Random(f"{self._seed}/label/{pair.place.number}")
            vote = label(rng.choice(self._members), pair.place.prompt.text, pair.a, pair.b, rng)
            yield Labelled(pair, vote.choice, vote.annotator, vote.seconds)


def make_panel(config: CollectConfig) -> tuple[Annotator, ...]:
    """The annotators that the configuration asks for.

    Raises:
        DataError: No honest panel can have this label error.
    """
    if config.panel == "biased":
        return biased_panel(config.flip_rate)
    try:
        return honest_panel(config.label_error)
    except ValueError as error:
        raise DataError(f"label_error: {error}") from error


def check_world(file: Path, prompts: Sequence[PromptRow]) -> None:
    """The panel can judge answers to questions of its own world alone; said before anything is drawn.

    Raises:
        DataError: A prompt of another world.
    """
    for number, prompt in enumerate(prompts, 1):
        try:
            subject_of(prompt.text)
        except ValueError as error:
            raise DataError(
                f"{file}, prompt {number}: {error}. The simulated panel judges answers about the simulated world "
                '(trainer/simulation/lexicon.py) alone, e.g. to "Should I open a bakery?"; have answers to other '
                "prompts compared by people (--labeller person or page) or by a --labeller judge"
            ) from error
