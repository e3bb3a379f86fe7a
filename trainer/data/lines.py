"""JSON lines, plain or gzipped, read one bounded line at a time; every complaint names file and line."""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from palate.file_errors import cause_of, try_folder, unwritable
from palate.spelling import kind_of
from trainer.errors import TrainerError

MAX_LINE_BYTES = 4 << 20
MAX_ROWS = 5_000_000


class DataError(TrainerError):
    """A file of training data cannot be used; the message names the place and what to do."""


@dataclass(frozen=True, slots=True)
class Row:
    """One JSON object of a file, and where it stands."""

    file: Path
    line: int
    values: Mapping[str, Any]

    def text(self, key: str, default: str | None = None) -> str:
        """The text under `key`; `default` where there is none, and a refusal where that is None."""
        value = self.values.get(key, default)
        if not isinstance(value, str):
            self.refuse(f"{key!r} must be a text; it is {_described(self, key)}")
        return value

    def messages(self, key: str) -> str | list[dict[str, str]]:
        """The text, or the list of {"role", "content"} messages, under `key`."""
        value = self.values.get(key)
        if not isinstance(value, list):
            return self.text(key)
        for message in value:
            if not isinstance(message, dict) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
                self.refuse(f"{key!r} is a list, so each entry must be an object with the texts 'role' and 'content'")
        return [{"role": message["role"], "content": message["content"]} for message in value]

    def number(self, key: str, default: float) -> float:
        """The number under `key`, `default` where there is none."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.refuse(f"{key!r} must be a number; it is {_described(self, key)}")
        if not abs(value) <= sys.float_info.max:
            self.refuse(f"{key!r} must be a finite number")
        return float(value)

    def keys(self) -> str:
        """What the row has, for complaints."""
        return ", ".join(map(repr, sorted(self.values))) or "nothing"

    def refuse(self, problem: str) -> NoReturn:
        """Raises what is wrong with this row."""
        raise DataError(f"{self.file}:{self.line}: {problem}")


def read_rows(file: Path, max_rows: int = MAX_ROWS) -> Iterator[Row]:
    """Every non-empty line of a JSONL file (gzipped where its name ends in .gz).

    Raises:
        DataError: The file is missing, broken, empty, or has more rows or longer lines than allowed.
    """
    count = 0
    try:
        with _opened(file) as stream:
            for number, line in enumerate(_lines(stream, file), start=1):
                if line.strip():
                    count += 1
                    if count > max_rows:
                        raise DataError(f"{file} has more than {max_rows} rows; split it")
                    yield Row(file, number, _parsed(line, file, number))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be read: {cause_of(error)}") from error
    if count == 0:
        raise DataError(f"{file} holds no rows; it needs one JSON object a line")


def append_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Adds rows to a plain JSONL file in one write; the file is made where it is missing."""
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    with file.open("ab", buffering=0) as stream:
        stream.write(data)


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a plain JSONL file in one move, replacing what was there."""
    draft = file.with_name(file.name + ".draft")
    draft.parent.mkdir(parents=True, exist_ok=True)
    draft.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    draft.replace(file)


def check_out(out: Path) -> None:
    """Makes the folder and looks whether a file of rows can be written there, before there is any work to lose.

    Raises:
        DataError: It cannot.
    """
    with telling(out):
        try_folder(out.parent)
        if out.exists():
            out.open("ab").close()


@contextmanager
def telling(out: Path) -> Iterator[None]:
    """What is in the way of writing is told with what to do.

    Raises:
        DataError: The file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise DataError(unwritable(out, error)) from error


def without_cut_line(file: Path) -> bool:
    """Takes out what a killed run left of its last line; whether anything is there."""
    with file.open("rb+") as stream:
        data = stream.read()
        end = data.rfind(b"\n") + 1
        stream.truncate(end)
    return end > 0


def _opened(file: Path) -> IO[bytes]:
    return gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb")  # type: ignore[return-value]


def _lines(stream: IO[bytes], file: Path) -> Iterator[bytes]:
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise DataError(
                f"{file}:{number}: the line is longer than {MAX_LINE_BYTES} bytes ({MAX_LINE_BYTES >> 20} MiB), the "
                "limit; shorten its texts, leave it out, or write one object a line where several are in it"
            )
        yield line


def _parsed(line: bytes, file: Path, number: int) -> Mapping[str, Any]:
    try:
        value = json.loads(line.rstrip())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}:{number}: not JSON ({_json_problem(error)}); write one object a line") from error
    if not isinstance(value, dict):
        raise DataError(f"{file}:{number}: not a JSON object; write one object a line")
    return value


def _json_problem(error: Exception) -> str:
    """What is wrong with a line; the error would number the lines of the line itself."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos + 1}"
    return str(error)


def _described(row: Row, key: str) -> str:
    if key not in row.values:
        return f"missing (the row has {row.keys()})"
    return kind_of(row.values[key])
