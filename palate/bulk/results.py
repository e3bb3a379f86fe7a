"""Results, kept as they come so that a run can go on after a stop, and moved to their place when all are there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from palate.bulk.rows import FileProblem, Row, check_kind, parsed, pyarrow_parquet


class Results:
    """Rows with their results: appended to ``<out>.partial`` and moved to `out` when all are there.

    A partial file of an earlier run with the same options is gone on with; a last line that a stop cut in half is
    dropped.

    Args:
        out: Where rows belong.
        options: What results depend on, by flag; kept beside the partial file while that is there.

    Attributes:
        partial: Where rows are kept meanwhile.
    """

    def __init__(self, out: Path, options: Mapping[str, str]) -> None:
        check_kind(out)
        if out.exists():
            raise FileProblem(f"{out} is already there; remove it or choose another name")
        self._out = out
        self._options = dict(options)
        self.partial = out.with_name(out.name + ".partial")
        self._made_with = out.with_name(out.name + ".partial.options")

    def done(self) -> list[Row]:
        """The rows of an earlier run, in order.

        Raises:
            FileProblem: What is there was not written by a run, or by one with other options.
        """
        if not self.partial.exists():
            return []
        self._check_options()
        whole, _, _ = self.partial.read_bytes().rpartition(b"\n")
        self.partial.write_bytes(whole + b"\n" if whole else b"")
        entries = [parsed(line, f"{self.partial}, line {n}") for n, line in enumerate(whole.splitlines(), 1)]
        for entry in entries:
            if entry.problem:
                raise FileProblem(f"{entry.where}: {entry.problem}; remove the file and begin anew")
        return [entry.row for entry in entries]

    def append(self, rows: list[Row]) -> None:
        """Keeps rows, on disk when this returns."""
        self._out.parent.mkdir(parents=True, exist_ok=True)
        if not self.partial.exists():  # before the first row, so that no row is ever without its options
            _add(self._made_with, "w", [json.dumps(self._options)])
        _add(self.partial, "a", [json.dumps(row, ensure_ascii=False) for row in rows])

    def finish(self) -> None:
        """Moves what was kept to where it belongs.

        Raises:
            FileProblem: It cannot be written as Parquet; nothing is lost.
        """
        if self._out.suffix == ".jsonl":
            self.partial.replace(self._out)
        else:
            self._write_parquet([_unicode(row) for row in self.done()])
            self.partial.unlink()
        self._made_with.unlink()

    def _check_options(self) -> None:
        try:
            before: dict[str, str] = dict(json.loads(self._made_with.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            raise FileProblem(
                f"{self._made_with} is missing or broken, so nobody knows with which options the rows in "
                f"{self.partial} were made; remove {self.partial} to begin anew"
            ) from None
        flags = [flag for flag in before | self._options if before.get(flag) != self._options.get(flag)]
        if flags:
            raise FileProblem(
                f"the rows in {self.partial} were made with {_shown(before, flags)}, not with "
                f"{_shown(self._options, flags)}; such results do not mix. Give the former options again to go on, or "
                f"remove {self.partial} to begin anew"
            )

    def _write_parquet(self, rows: list[Row]) -> None:
        import pyarrow

        draft = self._out.with_name(self._out.name + ".draft")
        # A failed row has other fields than a scored one.
        columns = list(dict.fromkeys(name for row in rows for name in row))
        try:
            table = pyarrow.table({name: [row.get(name) for row in rows] for name in columns})
            pyarrow_parquet().write_table(table, draft)
        except (pyarrow.ArrowException, OverflowError) as error:
            raise FileProblem(
                f"{self._out} cannot be written: {error}. A column of Parquet holds values of one type; "
                f"all results are in {self.partial}: rename it to .jsonl"
            ) from error
        draft.replace(self._out)


def _add(path: Path, mode: str, lines: list[str]) -> None:
    """Writes lines, on disk when this returns. Lone surrogates are no text, and stay the escapes they came as."""
    with path.open(mode, encoding="utf-8", errors="backslashreplace") as sink:
        sink.writelines(line + "\n" for line in lines)
        sink.flush()
        os.fsync(sink.fileno())


def _shown(options: Mapping[str, str], flags: list[str]) -> str:
    return ", ".join(f"{flag} {options[flag]}" if options.get(flag) else f"no {flag}" for flag in flags)


def _unicode(row: Row) -> Row:
    """The row as Parquet can hold it, which knows Unicode alone: "?" for every lone surrogate."""
    clean: Row = json.loads(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace"))
    return clean
