"""What is learnt from and what is measured on: whole groups, with a count of everything that was left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from trainer.data.comparisons import Comparison, Comparisons, read_comparisons, split_by_group
from trainer.data.lines import DataError
from trainer.data.votes import Pair, VoteCounts, count_votes, pairs_of
from trainer.reward_model.config import RewardTrainConfig

_VALIDATION_SHARE = 0.1
"""Share of the training groups on which early stopping looks; what is held out plays no part in any choice."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """How many rows, votes and pairs of a source were not used, by why."""

    copies: int
    identical: int
    empty: int
    dropped_ties: int
    too_long: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What became of a source of comparisons beside the pairs that are used.

    Attributes:
        left_out: What is not used.
        duplicates: Votes that their annotator had cast before (trainer/data/comparisons.py): used, beside the first.
        unread: Keys that look as if they said who cast a vote, and are not read.
    """

    left_out: LeftOut
    duplicates: int
    unread: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Split:
    """Pairs by what they are for.

    Attributes:
        learnt: The model learns from them.
        validation: Early stopping looks at them; may be empty.
        held_out: Everything is measured on them.
        votes: How the votes on all three lie.
        of_data: What became of the rest of --data.
        of_held_out: The same of --held-out; None where what is held out was taken out of the data.
    """

    learnt: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    held_out: tuple[Pair, ...]
    votes: VoteCounts
    of_data: Usage
    of_held_out: Usage | None


@dataclass(frozen=True, slots=True)
class DataCounts:
    """Comparisons by what became of them.

    Attributes:
        learnt: Pairs.
        validation: Pairs.
        held_out: Pairs.
        groups: Groups of the three.
        votes: How the votes on all of them lie, too long pairs included.
        left_out: What of the data was not used, and why.
        duplicates: Votes in them that an annotator cast again; these are used.
        unread: Keys in them that look as if they said who cast a vote, and are not read.
        held_out_file: The same three of the file that was held out; None where there was none.
    """

    learnt: int
    validation: int
    held_out: int
    groups: tuple[int, ...]
    votes: VoteCounts
    left_out: LeftOut
    duplicates: int
    unread: tuple[str, ...]
    held_out_file: Usage | None


def split_data(config: RewardTrainConfig) -> Split:
    """Reads the comparisons; no group, and no prompt, is in two parts.

    Raises:
        DataError: They cannot be read or split, or a part holds nothing but ties, or votes that even out.
    """
    data, rng = read_comparisons(config.data, config.group_by), Random(config.seed)
    if all(row.label == "tie" for row in data.rows):
        raise DataError(f"{config.data} holds only ties, from which nothing can be learnt; collect more comparisons")
    learnt, of_data = _usable(data, config)
    of_held_out = None
    if config.held_out is None:
        learnt, held_out = split_by_group(learnt, config.held_out_share, rng)
    else:
        held_out, of_held_out = _usable(read_comparisons(config.held_out, config.group_by), config)
        if not held_out:
            raise DataError(f"{config.held_out} holds only ties, on which nothing can be measured; give another file")
        _check_apart(learnt, held_out, config.held_out)
    validation: tuple[Comparison, ...] = ()
    if config.patience:
        learnt, validation = split_by_group(learnt, _VALIDATION_SHARE, rng)
    parts = pairs_of(learnt), pairs_of(validation), pairs_of(held_out)
    _check_decided(parts[0], parts[2], config)
    return Split(*parts, count_votes([pair for part in parts for pair in part]), of_data, of_held_out)


def _check_decided(learnt: Sequence[Pair], held_out: Sequence[Pair], config: RewardTrainConfig) -> None:
    """Without one pair that is decided nothing is learnt or measured; single votes can teach where they even out."""
    single = config.annotators == "reliability" or config.labels == "dawid-skene"
    if all(pair.share == 0.5 for pair in learnt) and not (single and any(len(pair.votes) > 1 for pair in learnt)):
        raise DataError(
            f"none of the {len(learnt)} pairs to learn from has more votes for one side than for the other; collect "
            "more comparisons"
        )
    if all(pair.share == 0.5 for pair in held_out):
        raise DataError(
            f"none of the {len(held_out)} held-out pairs has more votes for one side than for the other, so nothing "
            "can be measured on them; collect more comparisons, or hold out others"
        )


def counts_of(split: Split, rendered: Sequence[int], too_long: Sequence[int]) -> DataCounts:
    """What became of the data, where so many pairs of each part could be rendered and so many were too long."""
    parts = (split.learnt, split.validation, split.held_out)
    groups = tuple(len({pair.kept_together for pair in part}) for part in parts)
    if (file := split.of_held_out) is not None:
        *too_long, of_file = too_long
        file = replace(file, left_out=replace(file.left_out, too_long=of_file))
    left_out = replace(split.of_data.left_out, too_long=sum(too_long))
    learnt, validation, held_out = rendered
    of_data = split.of_data
    return DataCounts(
        learnt, validation, held_out, groups, split.votes, left_out, of_data.duplicates, of_data.unread, file
    )


def _usable(data: Comparisons, config: RewardTrainConfig) -> tuple[tuple[Comparison, ...], Usage]:
    """What the configuration lets be used, of the data and of a held-out file alike."""
    usable = tuple(row for row in data.rows if config.ties == "soft" or row.label != "tie")
    ties = len(data.rows) - len(usable)
    return usable, Usage(LeftOut(data.copies, data.identical, data.empty, ties), data.duplicates, data.unread)


def _check_apart(learnt: Sequence[Comparison], held_out: Sequence[Comparison], file: Path) -> None:
    def keys(rows: Sequence[Comparison]) -> set[str]:
        texts = {text for row in rows for text in ((row.prompt,) if row.prompt else (row.a, row.b))}
        return texts | {row.group for row in rows if row.group}

    if shared := keys(learnt) & keys(held_out):
        raise DataError(
            f"{len(shared)} groups, prompts or texts of {file} are also in the training data; accuracy on them would "
            "say nothing, so take them out of one of the files"
        )
