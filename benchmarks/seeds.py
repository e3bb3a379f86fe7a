"""Figures of runs over seeds: rows that stay in a file, so that a program that was stopped goes on, and their means."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scipy.stats import t as student

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_COVERAGE = 0.90


class OtherSettings(SystemExit):
    """A file holds rows that were found with other settings: ends the program, and the message says what to do."""


def kept_rows(file: Path, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of an earlier start of the program; none where there is no file.

    Raises:
        OtherSettings: They were found with other settings.
    """
    if not file.exists():
        return []
    document = json.loads(file.read_text(encoding="utf-8"))
    if document["settings"] != json.loads(json.dumps(settings)):
        raise OtherSettings(f"{file} holds rows found with other settings: give another --json, or remove it")
    rows: list[dict[str, Any]] = document["rows"]
    return rows


def keep_rows(file: Path, settings: Mapping[str, Any], rows: Sequence[DataclassInstance]) -> None:
    """Puts all rows into the file; a kill leaves the old ones or the new ones."""
    file.parent.mkdir(parents=True, exist_ok=True)
    document = {"settings": settings, "rows": [asdict(row) for row in rows]}
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    draft.replace(file)


def mean_and_margin(values: Sequence[float]) -> tuple[float, float]:
    """The mean over seeds, and half its 90 % interval by Student's t; of a single seed that is infinite."""
    count = len(values)
    if count == 1:
        return values[0], float("inf")
    quantile = float(student.ppf((1 + _COVERAGE) / 2, count - 1))
    return statistics.fmean(values), quantile * statistics.stdev(values) / count**0.5


def told(values: Sequence[float]) -> str:
    """Mean and interval in words."""
    mean, margin = mean_and_margin(values)
    return f"{mean:.2f} ± {margin:.2f}" if len(values) > 1 else f"{mean:.2f}"
