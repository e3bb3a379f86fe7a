"""Comparisons: two completions of one prompt, and which was preferred; reading, splitting, making from labels."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal, TypeAlias, cast, get_args

from trainer.data.lines import DataError, Row
from trainer.data.messages import texts_of
from trainer.data.tables import read_table

Label: TypeAlias = Literal["a", "b", "tie"]

_WINNER, _LABELLED, _VOTED = ("chosen", "rejected"), ("a", "b", "label"), ("a", "b", "votes")
"""What a row of each schema must have."""

_FORMS = (
    '{"prompt", "chosen", "rejected"}, {"prompt", "a", "b", "label": "a", "b" or "tie"}, or {"prompt", "a", "b", '
    '"votes": [{"annotator", "vote"}, ...]}'
)

_LIKE_AN_ANNOTATOR = re.compile(
    r"(annotator|worker|rater|label+er|assessor|evaluator|crowd_?worker|user)s?([_ ]?(id|name|hash))?", re.IGNORECASE
)

MAX_VOTES = 1000
"""In one row."""

_WINDOW = 64
"""Sentences among which partners of similar length are found."""

PREFERENCE: dict[Label, float] = {"a": 1.0, "b": 0.0, "tie": 0.5}
SWAPPED: dict[Label, Label] = {"a": "b", "b": "a", "tie": "tie"}


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
        return PREFERENCE[self.label]


@dataclass(frozen=True, slots=True)
class Comparisons:
    """What a file of comparisons holds.

    Attributes:
        rows: Every usable comparison, in the file's order; a row with votes gives one for each.
        copies: Rows left out because an earlier one is the same in everything, so that the file holds it twice.
        duplicates: Comparisons whose annotator, by name, said the same of the same two completions before; they are
            kept, since something else tells them apart (seconds, provenance): somebody was asked twice.
        identical: Rows left out because both completions are the same.
        empty: Rows left out because a completion is empty, so that there is nothing to judge.
        unread: Keys that look as if they said who cast a vote, of rows and votes without 'annotator', where alone it is
            read.
    """

    rows: tuple[Comparison, ...]
    copies: int
    duplicates: int
    identical: int
    empty: int
    unread: tuple[str, ...]


def read_comparisons(source: Path, group_by: str = "group") -> Comparisons:
    """Reads rows of any schema from whatever `read_table` reads.

    {"prompt", "a", "b", "label": "a" | "b" | "tie"}, {"prompt", "chosen", "rejected"}, or {"prompt", "a", "b",
    "votes": [{"annotator", "vote": "a" | "b" | "tie"}, ...]}, where votes may be empty if there is a label. All may
    have "group" and "margin", the first two "annotator"; texts may be messages (`texts_of`). The group is the prompt
    where a row names none; a row without either has none.

    Args:
        source: File, folder, or name on the hub.
        group_by: Key of the group; any other than "group" must be in every row.

    Raises:
        DataError: A row of no schema, an unknown label, a source without a usable row.
    """
    rows: list[Comparison] = []
    whole, judged, unread = set(), set(), set[str]()
    copies = duplicates = identical = empty = 0
    for row in read_table(source):
        found = list(_comparisons(row, group_by))
        content = hash(json.dumps(row.values, sort_keys=True, default=str))
        if not found[0].a.strip() or not found[0].b.strip():
            empty += 1
        elif found[0].a == found[0].b:
            identical += 1
        elif content in whole:
            copies += 1
        else:
            keys = [hash((*side_free(vote), vote.annotator)) for vote in found if vote.annotator]
            duplicates += sum(key in judged for key in keys)
            judged.update(keys)
            rows.extend(found)
            unread.update(_unread(row))
        whole.add(content)
    if not rows:
        raise DataError(f"{source} holds no comparison of two different completions")
    return Comparisons(tuple(rows), copies, duplicates, identical, empty, tuple(sorted(unread)))


def side_free(row: Comparison) -> tuple[str, str, str, Label]:
    """(prompt, one text, the other, label) with the texts in their alphabetical order, whichever side they were on."""
    if row.a <= row.b:
        return row.prompt, row.a, row.b, row.label
    return row.prompt, row.b, row.a, SWAPPED[row.label]


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
    linked = linked_groups(rows)
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


def _comparisons(row: Row, group_by: str) -> Iterator[Comparison]:
    """One for each vote of the row, at least one."""
    has_winner, has_votes = "chosen" in row.values or "rejected" in row.values, bool(row.values.get("votes"))
    needed = _WINNER if has_winner else _VOTED if has_votes else _LABELLED
    if missing := [key for key in needed if key not in row.values]:
        row.refuse(f"{', '.join(map(repr, missing))} missing (the row has {row.keys()}); a comparison is {_FORMS}")
    prompt, a, b = texts_of(row, *(_WINNER if has_winner else ("a", "b")))
    group = row.text(group_by, "" if group_by == "group" else None)
    margin = row.number("margin", 0.0) if "margin" in row.values else None
    for annotator, label in _votes(row) if has_votes else [(row.text("annotator", ""), _single(row, has_winner))]:
        yield Comparison(prompt, a, b, label, annotator, group or prompt, margin)


def _single(row: Row, has_winner: bool) -> Label:
    return "a" if has_winner else _label(row, "label", row.values["label"])


def _votes(row: Row) -> Iterator[tuple[str, Label]]:
    """(annotator, vote) of each; a vote that is a mere text has no annotator."""
    votes = row.values["votes"]
    if not isinstance(votes, list) or len(votes) > MAX_VOTES:
        row.refuse(f"'votes' must be a list of at most {MAX_VOTES}")
    for vote in votes:
        entry = vote if isinstance(vote, dict) else {"vote": vote}
        annotator = entry.get("annotator")
        if not isinstance(annotator, str | None):
            row.refuse("'annotator' of a vote must be a text")
        yield annotator or "", _label(row, "vote", entry.get("vote"))


def _unread(row: Row) -> Iterator[str]:
    """Keys that look like an annotator's, beside no 'annotator'."""
    votes = row.values.get("votes")
    entries = [vote for vote in votes if isinstance(vote, dict)] if isinstance(votes, list) and votes else [row.values]
    for entry in entries:
        if not entry.get("annotator"):
            yield from (key for key in entry if _LIKE_AN_ANNOTATOR.fullmatch(str(key)))


def _label(row: Row, key: str, value: object) -> Label:
    if value not in get_args(Label):
        row.refuse(f"{key!r} is {str(value)[:40]!r}; it can be 'a', 'b' or 'tie'")
    return cast(Label, value)


def linked_groups(rows: Sequence[Comparison]) -> list[str]:
    """Each row's group by a name, where groups that have a prompt or a promptless text in common are one."""
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
