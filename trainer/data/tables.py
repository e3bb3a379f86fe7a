"""Rows of whatever holds them: JSON lines, a Parquet file, or a set as `datasets` reads it; one after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from palate.file_errors import cause_of
from palate.hub import is_on_hub
from trainer.data.lines import MAX_LINE_BYTES, MAX_ROWS, DataError, Row, read_rows
from trainer.data.repository import BATCH, read_repository, split_named


def read_table(source: Path) -> Iterator[Row]:
    """Every row of a JSONL file (.gz or not), a Parquet file (.parquet), or one split of a set.

    A set is a folder that `save_to_disk` wrote, one laid out as a dataset repository, or such a repository on the hub,
    hub:org/name@revision; a colon and the split's name follow where there are several.

    Cells that are null are as absent as keys that a JSON object lacks.

    Raises:
        DataError: The source is missing, broken, empty, or has more rows or longer texts than allowed.
    """
    place, part = split_named(source)
    if is_on_hub(place) or place.is_dir():
        return _rows(source, _readable(source, read_repository(place, part)))
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
            row.refuse(
                f"{', '.join(map(repr, long))} is longer than {MAX_LINE_BYTES} characters, the limit; shorten it"
            )
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
        for batch in table.iter_batches(batch_size=BATCH):
            yield from batch.to_pylist()
