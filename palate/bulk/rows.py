"""Files of rows, JSONL or Parquet, and results that are kept as they come so that a run can go on after a stop."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, TypeAlias

Row: TypeAlias = dict[str, Any]

MAX_LINE_BYTES = 16 * 1024 * 1024
"""A longer line is no row; it would not fit a request either."""


class FileProblem(Exception):
    """A file cannot be used; the message names it, the row, and what to do."""


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a .jsonl or .parquet file, in order.

    Raises:
        FileProblem: The file is missing, of another kind, or a row is no object.
    """
    if not path.is_file():
        raise FileProblem(f"{path} does not exist")
    if path.suffix == ".parquet":
        yield from _read_parquet(path)
    elif path.suffix == ".jsonl":
        yield from _read_jsonl(path)
    else:
        raise FileProblem(f"{path} is neither .jsonl nor .parquet")


def without(row: Row, fields: Collection[str]) -> Row:
    """The row but for some fields."""
    return {name: value for name, value in row.items() if name not in fields}


def count_rows(path: Path) -> int:
    """How many rows the file has."""
    return sum(1 for _ in read_rows(path))


class Results:
    """Rows with their results: appended to ``<out>.partial`` and moved to `out` when all are there.

    A partial file of an earlier run is gone on with; a last line that a stop cut in half is dropped.
    """

    def __init__(self, out: Path) -> None:
        if out.suffix not in (".jsonl", ".parquet"):
            raise FileProblem(f"{out} is neither .jsonl nor .parquet")
        if out.exists():
            raise FileProblem(f"{out} is already there; remove it or choose another name")
        self._out = out
        self._partial = out.with_name(out.name + ".partial")

    def done(self) -> list[Row]:
        """The rows of an earlier run, in order."""
        if not self._partial.exists():
            return []
        whole, _, _ = self._partial.read_bytes().rpartition(b"\n")
        self._partial.write_bytes(whole + b"\n" if whole else b"")
        return [json.loads(line) for line in whole.splitlines()]

    def append(self, rows: list[Row]) -> None:
        """Keeps rows, on disk when this returns."""
        self._out.parent.mkdir(parents=True, exist_ok=True)
        with self._partial.open("a", encoding="utf-8") as sink:
            sink.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            sink.flush()
            os.fsync(sink.fileno())

    def finish(self) -> None:
        """Moves what was kept to where it belongs."""
        if self._out.suffix == ".jsonl":
            self._partial.replace(self._out)
            return
        _write_parquet(self._out, self.done())
        self._partial.unlink()


def _read_jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as lines:
        for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE_BYTES + 1), b""), 1):
            if len(line) > MAX_LINE_BYTES:
                raise FileProblem(f"{path}, line {number}: longer than {MAX_LINE_BYTES} bytes")
            if line.strip():
                yield _row(line, f"{path}, line {number}")


def _row(line: bytes, where: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise FileProblem(f"{where}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise FileProblem(f"{where}: a row is an object, this is a {type(row).__name__}")
    return row


def _read_parquet(path: Path) -> Iterator[Row]:
    for batch in _parquet().ParquetFile(path).iter_batches(batch_size=1024):
        yield from batch.to_pylist()


def _write_parquet(path: Path, rows: list[Row]) -> None:
    import pyarrow

    draft = path.with_name(path.name + ".draft")
    columns = list(
        dict.fromkeys(name for row in rows for name in row)
    )  # a failed row has other fields than a scored one
    table = pyarrow.table({name: [row.get(name) for row in rows] for name in columns})
    _parquet().write_table(table, draft)
    draft.replace(path)


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise FileProblem("Parquet needs pyarrow: `pip install pyarrow`, or use .jsonl") from error
    return pyarrow.parquet
