"""Files of rows, JSONL or Parquet: what stands in them, in order, and what is no row."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from palate.spelling import kind_of

Row: TypeAlias = dict[str, Any]

MAX_LINE_BYTES = 16 * 1024 * 1024
"""A longer line is no row; it would not fit a request either."""

_BATCH_ROWS = 1024
"""Rows of Parquet in memory at once."""


class FileProblem(Exception):
    """A file cannot be used; the message names it, the place in it, and what to do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands at one place of a file.

    Attributes:
        where: File and place, for messages.
        row: The row; empty where there is none.
        problem: Why there is none.
    """

    where: str
    row: Row = field(default_factory=dict)
    problem: str = ""


def read_entries(path: Path) -> Iterator[Entry]:
    """What stands in a .jsonl or .parquet file, in order; blank lines are nothing.

    Raises:
        FileProblem: The file is missing, of another kind, or broken.
    """
    check_kind(path)
    if not path.is_file():
        raise FileProblem(f"{path} does not exist, or is no file; give the file with the rows")
    return read_parquet(path) if path.suffix == ".parquet" else _read_jsonl(path)


def count_entries(path: Path) -> int:
    """How many rows the file has, lines that are none among them.

    Raises:
        FileProblem: It cannot be read, is empty, or none of its lines is a row.
    """
    total, rows, first = 0, 0, ""
    for entry in read_entries(path):
        total += 1
        rows += not entry.problem
        first = first or (entry.problem and f"{entry.where}: {entry.problem}")
    if not total:
        raise FileProblem(f"{path} is empty; give a file with at least one row (in .jsonl: one JSON object a line)")
    if not rows:
        raise FileProblem(f"{path} has no row: {first}; write one JSON object a line, or give a .parquet file")
    return total


def check_kind(path: Path) -> None:
    """Files are told apart by their names.

    Raises:
        FileProblem: The name is of neither kind.
    """
    if path.suffix not in (".jsonl", ".parquet"):
        raise FileProblem(f"{path} is neither .jsonl nor .parquet; give a file whose name ends with one of these")


def without(row: Row, fields: Collection[str]) -> Row:
    """The row but for some fields."""
    return {name: value for name, value in row.items() if name not in fields}


def pyarrow_parquet() -> Any:
    """The library that reads and writes Parquet.

    Raises:
        FileProblem: It is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise FileProblem("Parquet needs pyarrow: `pip install pyarrow`, or use .jsonl") from error
    return pyarrow.parquet


def parsed(line: bytes, where: str) -> Entry:
    """What a line of JSON holds."""
    if len(line) > MAX_LINE_BYTES:
        return Entry(where, problem=f"longer than {MAX_LINE_BYTES} bytes")
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return Entry(where, problem=f"not UTF-8 ({error.reason} at byte {error.start})")
    except (ValueError, RecursionError) as error:
        return Entry(where, problem=f"not JSON ({error})")
    if not isinstance(row, dict):
        return Entry(where, problem=f"a row is an object, this is {kind_of(row)}")
    return Entry(where, row)


def _read_jsonl(path: Path) -> Iterator[Entry]:
    with path.open("rb") as file:
        yield from parsed_lines(file, path)


def parsed_lines(file: BinaryIO, path: Path) -> Iterator[Entry]:
    """What stands in an open file of JSON lines; blank ones are nothing."""
    for number, line in enumerate(_lines(file), 1):
        if line.strip():
            yield parsed(line, f"{path}, line {number}")


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines, of which one that is too long is cut just beyond the limit."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        yield line
        while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES + 1)


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> Iterator[Entry]:
    """The rows of a Parquet file, all columns or some.

    Raises:
        FileProblem: The file is broken, lacks a column, or holds what results cannot be kept with.
    """
    parquet, number = pyarrow_parquet(), 0
    from pyarrow import ArrowException

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield Entry(_jsonable(row, f"{path}, row {number}"), row)
    except (OSError, ValueError, ArithmeticError, ArrowException) as error:
        place = f" after row {number}" if number else ""
        raise FileProblem(
            f"{path} cannot be read as Parquet{place} ({error}); it is broken, cut off or of another kind: "
            "write it again, or give the rows as .jsonl"
        ) from error


def _jsonable(row: Row, where: str) -> str:
    """`where`, if results of this row can be kept."""
    try:
        json.dumps(row)
    except TypeError as error:
        raise FileProblem(
            f"{where}: {error}, and results are kept as JSON; cast that column to text, or leave it out"
        ) from error
    return where
