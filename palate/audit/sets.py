"""Reads sets of other people as probes: preference pairs, labelled refusals, suggested opinions, wrong beliefs."""

from __future__ import annotations

import csv
import gzip
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from palate.audit.items import Item, Measure, Probe, Text, pairs
from palate.bulk.rows import FileProblem, Row, parsed_lines, read_entries
from palate.file_errors import cause_of
from palate.spelling import kind_of

_SEED = 0
_OTHER_KINDS = (AttributeError, KeyError, TypeError)
"""What a format raises of a row whose fields hold something else than it reads."""


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of set.

    Attributes:
        fields: By which its rows are known.
        probes: Makes the probes of a set with that name.
    """

    fields: frozenset[str]
    probes: Callable[[str, Sequence[Row]], list[Probe]]


def read_set(file: Path, limit: int) -> tuple[Probe, ...]:
    """The probes of a file: .jsonl, .jsonl.gz, .csv or .parquet.

    Args:
        file: The set; its format is told by the fields of its first row.
        limit: Most items of a probe; of more, some are drawn, always the same.

    Raises:
        FileProblem: It cannot be read, is empty, or of no format that is known.
    """
    rows = list(_rows(file))
    if not rows:
        raise FileProblem(f"{file} is empty; give a file with at least one row")
    known = next((each for each in FORMATS if each.fields <= rows[0].keys()), None)
    if known is None:
        wanted = "; ".join(", ".join(sorted(each.fields)) for each in FORMATS)
        raise FileProblem(f"{file} has the fields {', '.join(sorted(rows[0]))}; known are sets with {wanted}")
    if lacking := next((n for n, row in enumerate(rows, 1) if not known.fields <= row.keys()), None):
        raise FileProblem(
            f"{file}, row {lacking}: it lacks {', '.join(sorted(known.fields - rows[lacking - 1].keys()))}"
        )
    name = file.name.partition(".")[0]
    try:
        found = known.probes(name, rows)
    except _OTHER_KINDS as error:
        number = next(n for n, row in enumerate(rows, 1) if not _is_of(known, row))
        kinds = ", ".join(f"{field} is {kind_of(rows[number - 1][field])}" for field in sorted(known.fields))
        raise FileProblem(
            f"{file}, row {number}: a row is not of its format ({kinds}); mend it or leave it out"
        ) from error
    return tuple(_drawn(probe, limit) for probe in found)


def _is_of(known: Format, row: Row) -> bool:
    try:
        known.probes("", [row])
    except _OTHER_KINDS:
        return False
    return True


def _rows(file: Path) -> Iterator[Row]:
    try:
        if file.suffix == ".csv":
            with file.open(encoding="utf-8-sig", newline="") as source:
                yield from (_cells(row, f"{file}, row {n}") for n, row in enumerate(csv.DictReader(source), 1))
        elif file.suffixes[-2:] == [".jsonl", ".gz"]:
            with gzip.open(file, "rb") as source:
                yield from _checked(parsed_lines(cast("BinaryIO", source), file))
        else:
            yield from _checked(read_entries(file))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise FileProblem(f"{file} cannot be read: {cause_of(error)}") from error


def _cells(row: dict[Any, Any], where: str) -> Row:
    """The cells that are there; one that is missing is no field."""
    if None in row:
        raise FileProblem(f"{where}: it has more cells than the header; put quotes around what holds commas")
    return {name: cell for name, cell in row.items() if cell is not None}


def _checked(entries: Iterable[Any]) -> Iterator[Row]:
    for entry in entries:
        if entry.problem:
            raise FileProblem(f"{entry.where}: {entry.problem}")
        yield entry.row


def _drawn(probe: Probe, limit: int) -> Probe:
    if len(probe.items) <= limit:
        return probe
    chosen = sorted(random.Random(_SEED).sample(range(len(probe.items)), limit))
    left = {**probe.left_out, "beyond the limit": len(probe.items) - limit}
    return replace(probe, items=tuple(probe.items[place] for place in chosen), left_out=left)


def _labelled(name: str, rows: Sequence[Row]) -> list[Probe]:
    """Pairs with a label: prompt, a, b, label ("a", "b", "tie")."""
    used, left = [], Counter[str]()
    for row in rows:
        if row["label"] not in ("a", "b"):
            left["no side is better" if row["label"] == "tie" else "no label"] += 1
        else:
            better, worse = ("a", "b") if row["label"] == "a" else ("b", "a")
            used.append((row["prompt"], row[worse], row[better]))
    return [_preferences(name, used, left)]


def _chosen(name: str, rows: Sequence[Row]) -> list[Probe]:
    """Pairs as RewardBench has them: prompt, chosen, rejected, and perhaps a subset."""
    used = [(row["prompt"], row["rejected"], row["chosen"]) for row in rows]
    return [_preferences(name, used, Counter(), [str(row.get("subset") or "") for row in rows])]


def _preferences(
    name: str, rows: Sequence[tuple[Any, Any, Any]], left: Counter[str], subsets: Sequence[str] | None = None
) -> Probe:
    """Of rows (prompt, worse, better), without those that ask nothing."""
    used: list[tuple[str, str, str]] = []
    variants: list[str] = []
    for (prompt, worse, better), subset in zip(rows, subsets or [""] * len(rows), strict=True):
        if reason := _unusable(prompt, worse, better):
            left[reason] += 1
        else:
            used.append((prompt, worse, better))
            variants.append(subset)
    fault = "prefers the answers that were judged worse"
    return Probe(
        f"pairs:{name}", fault, Measure.PAIR, "greater", pairs(used, variants), is_preference=True, left_out=dict(left)
    )


def _unusable(prompt: Any, worse: Any, better: Any) -> str:
    """Why a pair cannot be asked; empty where it can."""
    if not all(isinstance(text, str) for text in (prompt, worse, better)):
        return "no text"
    if not (worse.strip() and better.strip()):
        return "an empty side"
    return "equal sides" if worse == better else ""


_COMPLIES, _REFUSES = "1_full_compliance", "2_full_refusal"


def _refusals(name: str, rows: Sequence[Row]) -> list[Probe]:
    """Completions of several models with human labels, as XSTest has them; the first of each kind for each prompt."""
    by_prompt: dict[tuple[bool, str], dict[str, str]] = {}
    for row in rows:
        kinds = by_prompt.setdefault((row["type"].startswith("contrast"), row["prompt"]), {})
        kinds.setdefault(row["final"], row["response"])
    found = []
    for should_refuse, key, fault in (
        (False, "over-refusal", "prefers to refuse what is harmless"),
        (True, "under-refusal", "prefers to serve harmful requests"),
    ):
        bad, good = (_COMPLIES, _REFUSES) if should_refuse else (_REFUSES, _COMPLIES)
        asked = {prompt: each for (refuse, prompt), each in by_prompt.items() if refuse is should_refuse}
        used = [(prompt, each[bad], each[good]) for prompt, each in asked.items() if bad in each and good in each]
        left = {"not both a refusal and an answer": len(asked) - len(used)}
        found.append(Probe(f"{key}:{name}", fault, Measure.PAIR, "greater", pairs(used), left_out=left))
    return found


def _suggested(name: str, rows: Sequence[Row]) -> list[Probe]:
    """Questions asked neutrally and with a wrong suggestion of the user's: whether the suggestion gains."""
    items = []
    for row in rows:
        asked = (row["prompts"]["suggests_wrong"], row["prompts"]["neutral"])
        said = [Text(prompt, row[answer]) for prompt in asked for answer in ("sycophantic", "truthful")]
        items.append(Item(tuple(said), str(row.get("category") or "")))
    fault = "leans towards a wrong answer that the user suggests"
    return [Probe(f"opinion:{name}", fault, Measure.SQUARE, "greater", tuple(items))]


def _beliefs(name: str, rows: Sequence[Row]) -> list[Probe]:
    """Common errors said plainly against the best answer, as TruthfulQA has them."""
    used = [(row["Question"], row["Incorrect Answers"].split(";")[0].strip(), row["Best Answer"]) for row in rows]
    fault = "prefers common errors to the truth"
    return [Probe(f"hallucination:{name}", fault, Measure.PAIR, "greater", pairs(used))]


FORMATS: Sequence[Format] = (
    Format(frozenset({"prompt", "a", "b", "label"}), _labelled),
    Format(frozenset({"prompt", "chosen", "rejected"}), _chosen),
    Format(frozenset({"prompt", "response", "type", "final"}), _refusals),
    Format(frozenset({"prompts", "truthful", "sycophantic"}), _suggested),
    Format(frozenset({"Question", "Best Answer", "Incorrect Answers"}), _beliefs),
)
"""What is understood, the first that fits."""
