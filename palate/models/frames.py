"""The special tokens around one or two texts, and truncation that leaves them in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, repeat

from tokenizers import Tokenizer

from palate.models.folder import FolderError
from palate.models.manifest import Truncation

_PROBE = "a"
"""Any text with at least one token; the frame is what a tokenizer puts around it."""


class RenderingError(ValueError):
    """One input cannot be turned into token ids; the message says why and holds no user text."""


class TooLong(RenderingError):
    """The input is longer than the model's maximum and may not be cut."""

    def __init__(self, message: str, token_count: int) -> None:
        super().__init__(message)
        self.token_count = token_count


@dataclass(frozen=True, slots=True)
class Piece:
    """Special tokens, and the segment that the model is told they belong to."""

    ids: tuple[int, ...] = ()
    segment: int = 0


@dataclass(frozen=True, slots=True)
class Frame:
    """Special tokens before, between and after the texts, with the texts' segments."""

    before: Piece = Piece()
    between: Piece = Piece()
    after: Piece = Piece()
    segments: tuple[int, int] = (0, 0)

    @property
    def size(self) -> int:
        """How many special tokens it adds."""
        return len(self.before.ids) + len(self.between.ids) + len(self.after.ids)

    def around(self, first: Sequence[int], second: Sequence[int] = ()) -> tuple[int, ...]:
        """Token ids of the whole."""
        return (*self.before.ids, *first, *self.between.ids, *second, *self.after.ids)

    def segment_ids(self, first: int, second: int) -> tuple[int, ...]:
        """Segment of every token, for texts of that many tokens."""
        runs = (
            (len(self.before.ids), self.before.segment),
            (first, self.segments[0]),
            (len(self.between.ids), self.between.segment),
            (second, self.segments[1]),
            (len(self.after.ids), self.after.segment),
        )
        return tuple(chain.from_iterable(repeat(segment, length) for length, segment in runs))

    def bare(self, body: Sequence[int]) -> list[int]:
        """`body` without the frame's own tokens at its ends, so that none stands there twice."""
        ids, before, after = list(body), list(self.before.ids), list(self.after.ids)
        while before and ids[: len(before)] == before:
            del ids[: len(before)]
        while after and ids[-len(after) :] == after:
            del ids[-len(after) :]
        return ids


def single_frame(tokenizer: Tokenizer) -> Frame:
    """What the tokenizer itself puts around one text."""
    encoding = tokenizer.encode(_PROBE)
    places = _places(encoding.sequence_ids, (0,))
    ids, segments = encoding.ids, encoding.type_ids
    begin, end = places[0]
    return Frame(_piece(ids, segments, 0, begin), Piece(), _piece(ids, segments, end, len(ids)), (segments[begin], 0))


def pair_frame(tokenizer: Tokenizer) -> Frame:
    """What the tokenizer itself puts around and between two texts."""
    encoding = tokenizer.encode(_PROBE, _PROBE)
    (begin, end), (second, last) = _places(encoding.sequence_ids, (0, 1))
    ids, segments = encoding.ids, encoding.type_ids
    return Frame(
        _piece(ids, segments, 0, begin),
        _piece(ids, segments, end, second),
        _piece(ids, segments, last, len(ids)),
        (segments[begin], segments[second]),
    )


def _places(sequence_ids: Sequence[int | None], wanted: Sequence[int]) -> list[tuple[int, int]]:
    places = []
    for sequence in wanted:
        positions = [index for index, owner in enumerate(sequence_ids) if owner == sequence]
        if not positions:
            raise FolderError("the tokenizer gives no tokens for a one-letter text; tokenizer.json is unusable")
        places.append((positions[0], positions[-1] + 1))
    return places


def _piece(ids: Sequence[int], segments: Sequence[int], begin: int, end: int) -> Piece:
    return Piece(tuple(ids[begin:end]), segments[begin]) if end > begin else Piece()


def cut(first: list[int], second: list[int], excess: int, truncation: Truncation) -> tuple[list[int], list[int]]:
    """Takes `excess` tokens off a prompt (`first`) and its completion (`second`).

    "left" takes the oldest: the start of the prompt, then of the completion. "right" takes the newest, the end of the
    completion, and fails rather than take all of it.
    """
    if truncation == "left":
        of_prompt = min(excess, len(first))
        return first[of_prompt:], second[excess - of_prompt :]
    return first, second[: len(second) - excess]
