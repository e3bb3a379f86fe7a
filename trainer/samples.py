"""Tables of samples for people to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_SHOWN_CHARACTERS = 400


def show_samples(title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, visible: bool) -> None:
    """Prints some columns of `rows`; numbers with three places, long texts cut."""
    if not visible:
        return
    table = Table(*columns, title=title, show_lines=True)
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in columns))
    Console(stderr=True).print(table)


def _cell(value: Any) -> Text:
    """As Text: a completion may hold what rich would take for markup."""
    return Text(f"{value:+.3f}" if isinstance(value, float) else str(value)[:_SHOWN_CHARACTERS])
