"""Rows of whatever holds them: JSON lines, a Parquet file, or a folder that `datasets` saved; one after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from palate.file_errors import cause_of
from trainer.data.lines import MAX_LINE_BYTES, MAX_ROWS, DataError, Row, read_rows

_BATCH = 256
"""Rows that are in memory at a time, as a table and as objects."""


def read_table(source: Path) -> Iterator[Row]:
    """Every row of a JSONL file (.gz or not), a Parquet file (.parquet), or a folder written by `save_to_disk`.

    Cells that are null are as absent as keys that a JSON object lacks.

    Raises:
        DataError: The source is missing, broken, empty, or has more rows or longer texts than allowed.
    """
    if source.is_dir():
        return _rows(source, _readable(source, _saved(source)))
    if source.suffix == ".parquet":
        return _rows(source, _readable(source, _parquet(source)))
    return read_rows(source)


def _rows(source: Path, objects: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    number = 0
    for number, values in enumerate(objects, start=1):
        if number > MAX_ROWS:
            raise DataError(f"{source} has more than {MAX_ROWS} rows; split it")
        row = Row(source, number, {key: value for key, value in values.items() if value is not None})
        if long := [key for key, value in row.values.items() if isinstance(value, str) and len(value) > MAX_LINE_BYTES]:
            row.refuse(f"{', '.join(map(repr, long))} is longer than {MAX_LINE_BYTES} characters; is this one text?")
        yield row
    if number == 0:
        raise DataError(f"{source} holds no rows")


def _readable(source: Path, objects: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The same rows; texts that are no UTF-8 and dates that are none leave pyarrow as errors of many types."""
    from pyarrow import ArrowException

    try:
        yield from objects
    except (OSError, ValueError, ArithmeticError, ArrowException) as error:
        raise DataError(
            f"{source} cannot be read as a table ({cause_of(error)}); write it again, or give the rows as JSONL"
        ) from error


def _parquet(file: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as table:
        for batch in table.iter_batches(batch_size=_BATCH):
            yield from batch.to_pylist()


def _saved(folder: Path) -> Iterator[Mapping[str, Any]]:
    import datasets

    try:
        found = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{folder} is no folder that `datasets` saved ({error}); give a folder written by save_to_disk, or a "
            "JSONL or Parquet file"
        ) from error
    if isinstance(found, datasets.DatasetDict):
        splits = ", ".join(str(folder / name) for name in found)
        raise DataError(f"{folder} holds several splits; give one of them: {splits}")
    return chain.from_iterable(batch.to_pylist() for batch in found.with_format("arrow").iter(batch_size=_BATCH))
