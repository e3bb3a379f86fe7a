"""Texts to measure with: distinct real ones of PALATE_DATA, else of the simulated world; sorted out by their length."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.wire import Pair
from palate.models.rendering import Rendered, Renderer

_DIALOGUES = "hh_harmless_test"
_OTHERS = ("finegrained_qa_dev", "llmbar", "pandalm", "ukpconvarg1_full")
_SIMULATED = 4000

SHORT = 48
"""Tokens that a short text has at most."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Distinct pairs that a model takes whole, in an order that is always the same.

    Attributes:
        pairs: Prompt and completion.
        rows: What the model reads for each.
    """

    pairs: tuple[Pair, ...]
    rows: tuple[Rendered, ...]

    @property
    def mean_tokens(self) -> float:
        """What the model reads on average."""
        return sum(len(row.token_ids) for row in self.rows) / len(self.rows)

    def take(self, number: int, count: int) -> Texts:
        """The `number`th `count` pairs, from the begin again where there are no more."""
        places = [(number * count + place) % len(self.pairs) for place in range(min(count, len(self.pairs)))]
        return self.at(places)

    def short(self) -> Texts:
        """The short ones."""
        return self.at([place for place, row in enumerate(self.rows) if len(row.token_ids) <= SHORT])

    def of_length(self, tokens: int, count: int) -> Texts:
        """The `count` ones whose length is closest to `tokens`."""
        order = sorted(range(len(self.rows)), key=lambda place: abs(len(self.rows[place].token_ids) - tokens))
        return self.at(order[:count])

    def at(self, places: Sequence[int]) -> Texts:
        """Those at `places`."""
        return Texts(tuple(self.pairs[i] for i in places), tuple(self.rows[i] for i in places))


def dialogues(data: Path | None, renderer: Renderer) -> Texts:
    """Texts of all lengths up to the model's limit, about 150 tokens of a word-piece tokenizer on average."""
    return _readable(_found(data, (_DIALOGUES,)), renderer)


def short_texts(data: Path | None, renderer: Renderer) -> Texts:
    """Texts of at most `SHORT` tokens."""
    return _readable(_found(data, (_DIALOGUES, *_OTHERS)), renderer).short()


def sentences(data: Path, label: str) -> list[str]:
    """The distinct review sentences of "pos" or "neg"."""
    with zipfile.ZipFile(data / "text" / "sentence_polarity.zip") as files:
        text = files.read(f"sentence_polarity/rt-polarity.{label}").decode("utf-8", "replace")
    return sorted({line.strip() for line in text.splitlines() if line.strip()})


def review_sentences(data: Path | None, renderer: Renderer) -> Texts:
    """Sentences without a prompt, both labels mixed; the simulated world's texts where there is no data."""
    if data is None:
        return dialogues(data, renderer)
    pairs = [("", sentence) for label in ("pos", "neg") for sentence in sentences(data, label)]
    return _readable(pairs, renderer)


def _found(data: Path | None, names: Sequence[str]) -> list[Pair]:
    if data is None:
        return simulated()
    return [pair for name in names for pair in _rows(data / "pairs" / f"{name}.jsonl.gz")]


def _rows(file: Path) -> Iterator[Pair]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            yield row["prompt"], row["a"]
            yield row["prompt"], row["b"]


def simulated() -> list[Pair]:
    """Questions and answers of the simulated world."""
    from trainer.simulation.world import demonstrations

    return [(one.prompt.text, one.completion) for one in demonstrations(_SIMULATED, Random(0))]


def _readable(pairs: Sequence[Pair], renderer: Renderer) -> Texts:
    distinct = list(dict.fromkeys(pair for pair in pairs if pair[1].strip()))
    Random(0).shuffle(distinct)
    rendered = zip(distinct, renderer.render_pairs(distinct, "reject"), strict=True)
    kept = {row.token_ids: (pair, row) for pair, row in rendered if isinstance(row, Rendered)}
    return Texts(tuple(pair for pair, _ in kept.values()), tuple(row for _, row in kept.values()))
