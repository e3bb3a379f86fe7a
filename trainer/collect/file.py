"""The file of comparisons, and beside it what got no label: rows, their provenance, and going on where it ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.collect.config import CollectConfig
from trainer.collect.labelling import Labelled, Verdict
from trainer.collect.pairs import DrawnPair, PairKey, pair_key, places
from trainer.data.lines import DataError, Row, append_rows, read_rows, telling, without_cut_line
from trainer.data.prompts import PromptRow


@dataclass(frozen=True, slots=True)
class Done:
    """What a file holds already.

    Attributes:
        held: Comparisons.
        again: Those of them that are of the attempts from `begin` on.
        begin: The attempt to go on from; those of one choice are made again together.
        numbers: Attempts from `begin` on that need not be asked about again.
        compared: The pairs of all attempts before `begin`.
    """

    held: int
    again: int
    begin: int
    numbers: frozenset[int]
    compared: frozenset[PairKey]


def left_out_file(out: Path) -> Path:
    """Where pairs without a label go: comparisons.jsonl → comparisons.left-out.jsonl."""
    return out.with_name(f"{out.stem}.left-out.jsonl")


def write(out: Path, verdict: Verdict, conditions: Mapping[str, Any]) -> None:
    """Adds one row, to the comparisons or to what is left out.

    Raises:
        DataError: It cannot be written.
    """
    pair = verdict.pair
    said = {"label": verdict.label} if isinstance(verdict, Labelled) else {"left_out": verdict.cause}
    row = {
        "prompt": pair.place.prompt.text,
        "a": pair.a,
        "b": pair.b,
        **said,
        "annotator": verdict.annotator,
        "seconds": verdict.seconds,
        "group": pair.place.prompt.group or pair.place.prompt.text,
        "provenance": {**_said(conditions), **_provenance(pair), **verdict.provenance},
    }
    file = out if isinstance(verdict, Labelled) else left_out_file(out)
    with telling(file):
        append_rows(file, [row])


def _said(conditions: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in conditions.items() if value is not None}


def _provenance(pair: DrawnPair) -> dict[str, Any]:
    found = {
        "number": pair.place.number,
        "draw_seed": pair.place.seed,
        "finish_reasons": list(pair.finish_reasons),
    }
    return found | ({"choice": pair.choice} if pair.choice else {})


def read_done(
    config: CollectConfig, conditions: Mapping[str, Any], prompts: Sequence[PromptRow], together: int
) -> Done:
    """What is already there, after taking out a last line that was cut off.

    Args:
        config: Names the file.
        conditions: What must be the same for all of its rows.
        prompts: What attempts are made of.
        together: Attempts among which one choice is made.

    Raises:
        DataError: It was collected under other conditions.
    """
    rows = {file: list(_rows(file)) for file in (config.out, left_out_file(config.out))}
    for file, found in rows.items():
        if found:
            _check_conditions(file, found[-1], conditions, config, prompts)
    tried = {_number(row): pair_key(*map(row.text, ("prompt", "a", "b"))) for found in rows.values() for row in found}
    begin = max(tried, default=0) // together * together
    numbers = frozenset(number for number in tried if number >= begin)
    again = sum(_number(row) >= begin for row in rows[config.out])
    return Done(
        len(rows[config.out]), again, begin, numbers, frozenset(key for number, key in tried.items() if number < begin)
    )


def _rows(file: Path) -> Iterator[Row]:
    if file.exists() and without_cut_line(file):
        yield from read_rows(file)


def _number(row: Row) -> int:
    provenance = row.values.get("provenance")
    number = provenance.get("number") if isinstance(provenance, dict) else None
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        row.refuse("no row of `palate collect` (it has no provenance.number); give another --out")
    return number


def _check_conditions(
    file: Path, last: Row, wanted: Mapping[str, Any], config: CollectConfig, prompts: Sequence[PromptRow]
) -> None:
    (place,) = places(config, prompts, _number(last), 1)
    provenance = last.values["provenance"]
    changed = [name for name, value in wanted.items() if provenance.get(name) != value]
    if not changed and place.prompt.text != last.values["prompt"]:
        changed = ["prompts"]
    if changed:
        raise DataError(
            f"{file} was collected with another {', '.join(changed)}; go on with the same, or give another --out"
        )
