"""Comparisons: two completions of one prompt and which was preferred; reading, splitting, making them from labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal, TypeAlias, cast, get_args

from trainer.data.lines import DataError, Row, read_rows

Label: TypeAlias = Literal["a", "b", "tie"]

_WINNER, _LABELLED = ("chosen", "rejected"), ("a", "b", "label")
"""What a row of either schema must have."""

_FORMS = '{"prompt", "chosen", "rejected"} or {"prompt", "a", "b", "label": "a", "b" or "tie"}'

_WINDOW = 64
"""Sentences among which partners of similar length are found."""

_PREFERENCE: dict[Label, float] = {"a": 1.0, "b": 0.0, "tie": 0.5}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two completions of one prompt, compared once.

    Attributes:
        prompt: May be empty where texts are judged by themselves.
        a: One completion.
        b: The other.
        label: Which was preferred.
        annotator: Who compared; "" where nobody says.
        group: Comparisons of one group stay on one side of every split.
        margin: By how much the preferred one should win, in units of the score; None where the row names none.
    """

    prompt: str
    a: str
    b: str
    label: Label
    annotator: str = ""
    group: str = ""
    margin: float | None = None

    @property
    def preference(self) -> float:
        """Probability that `a` is the better one, as labelled."""
        return _PREFERENCE[self.label]


@dataclass(frozen=True, slots=True)
class Comparisons:
    """What a file of comparisons holds.

    Attributes:
        rows: Every usable row, in the file's order.
        duplicates: Rows that repeat an earlier one, its annotator included; they are kept.
        identical: Rows left out because both completions are the same.
        empty: Rows left out because a completion is empty, so that there is nothing to judge.
    """

    rows: tuple[Comparison, ...]
    duplicates: int
    identical: int
    empty: int


def read_comparisons(file: Path) -> Comparisons:
    """Reads JSONL or JSONL.gz rows of either schema.

    {"prompt", "a", "b", "label": "a" | "b" | "tie"} or {"prompt", "chosen", "rejected"}; both may have "annotator",
    "group" and "margin". The group is the prompt where a row names none, and the row's own where there is no prompt.

    Raises:
        DataError: A row of neither schema, an unknown label, a file without a usable row.
    """
    rows, seen, duplicates, identical, empty = [], set(), 0, 0, 0
    for row in read_rows(file):
        comparison = _comparison(row)
        if not comparison.a or not comparison.b:
            empty += 1
            continue
        if comparison.a == comparison.b:
            identical += 1
            continue
        key = hash((comparison.prompt, comparison.a, comparison.b, comparison.label, comparison.annotator))
        duplicates += key in seen
        seen.add(key)
        rows.append(comparison)
    if not rows:
        raise DataError(f"{file} holds no comparison of two different completions")
    return Comparisons(tuple(rows), duplicates, identical, empty)


def split_by_group(
    rows: Sequence[Comparison], share: float, rng: Random
) -> tuple[tuple[Comparison, ...], tuple[Comparison, ...]]:
    """Takes whole groups out of `rows` until about `share` of the rows are taken.

    Groups that share a prompt, or a text of a row without a prompt, are taken together, so that nothing judged on one
    side was seen on the other.

    Returns:
        (the rest, what was taken), both in their old order.

    Raises:
        DataError: Everything hangs together, so one side would be empty.
    """
    linked = _linked_groups(rows)
    groups = sorted(set(linked))
    rng.shuffle(groups)
    sizes = dict.fromkeys(groups, 0)
    for group in linked:
        sizes[group] += 1
    taken, count = set(), 0
    for group in groups[:-1]:
        if count >= share * len(rows):
            break
        taken.add(group)
        count += sizes[group]
    rest = tuple(row for row, group in zip(rows, linked, strict=True) if group not in taken)
    held_out = tuple(row for row, group in zip(rows, linked, strict=True) if group in taken)
    if not rest or not held_out:
        raise DataError(
            f"{len(rows)} comparisons in {len(groups)} group(s) cannot be split: each side needs a whole group; "
            "collect comparisons of more prompts, or name finer groups"
        )
    return rest, held_out


def pairs_from_labelled_sentences(
    positive: Sequence[str], negative: Sequence[str], rng: Random, pairs_per_sentence: int = 1
) -> list[Comparison]:
    """Pairs each positive sentence with negative ones of about its length, sides shuffled; prompts are empty.

    So length says little about the label, and the two sides of a pair need little padding. Split the sentences before
    calling this, once per side: a sentence may be in several pairs, and a row's group does not say so.

    Args:
        positive: Sentences that should score high.
        negative: Sentences that should score low.
        rng: Source of the pairing.
        pairs_per_sentence: How many partners a sentence of the longer list gets.

    Raises:
        DataError: One list is empty.
    """
    if not positive or not negative:
        raise DataError("pairs need at least one positive and one negative sentence")
    size = max(len(positive), len(negative))
    pairs = []
    for _ in range(pairs_per_sentence):
        for good, bad in zip(_by_length(positive, size, rng), _by_length(negative, size, rng), strict=True):
            first_is_good = rng.random() < 0.5
            a, b = (good, bad) if first_is_good else (bad, good)
            if a != b:
                pairs.append(Comparison("", a, b, "a" if first_is_good else "b"))
    return pairs


def _comparison(row: Row) -> Comparison:
    has_winner = "chosen" in row.values or "rejected" in row.values
    if missing := [key for key in (_WINNER if has_winner else _LABELLED) if key not in row.values]:
        row.refuse(f"{', '.join(map(repr, missing))} missing (the row has {row.keys()}); a comparison is {_FORMS}")
    if has_winner:
        a, b, label = row.text("chosen"), row.text("rejected"), "a"
    else:
        a, b, label = row.text("a"), row.text("b"), row.text("label")
    if label not in get_args(Label):
        row.refuse(f"'label' is {label[:40]!r}; it can be 'a', 'b' or 'tie'")
    prompt = row.text("prompt", "")
    group = row.text("group", "") or prompt or f"row {row.line}"
    margin = row.number("margin", 0.0) if "margin" in row.values else None
    return Comparison(prompt, a, b, cast(Label, label), row.text("annotator", ""), group, margin)


def _linked_groups(rows: Sequence[Comparison]) -> list[str]:
    """Each row's group, where groups that have a prompt or a promptless text in common are one."""
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    names = [f"group {row.group}" if row.group else f"row {index}" for index, row in enumerate(rows)]
    for row, name in zip(rows, names, strict=True):
        for text in (row.prompt,) if row.prompt else (row.a, row.b):
            parent[root(f"text {text}")] = root(name)
    return [root(name) for name in names]


def _by_length(sentences: Sequence[str], size: int, rng: Random) -> list[str]:
    """`size` sentences in random windows sorted by about their length; each as often as any other, give or take one.

    Not exactly: where one label's sentences are a little longer on the whole, they would be so in nearly every pair.
    """
    drawn: list[str] = []
    while len(drawn) < size:
        drawn.extend(rng.sample(list(sentences), min(len(sentences), size - len(drawn))))
    windows = (drawn[start : start + _WINDOW] for start in range(0, size, _WINDOW))
    return [s for window in windows for s in sorted(window, key=lambda s: len(s) * rng.uniform(0.75, 1.25))]
