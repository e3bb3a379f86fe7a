"""Where tables are printed: as wide as the terminal, and wide enough for a table where there is none."""

from __future__ import annotations

import os
import sys

from rich.console import Console

_UNCUT = 160
"""Columns in a pipe or a file; rich would assume 80 and cut cells."""


def stdout_console() -> Console:
    """Prints to standard output, as wide as `COLUMNS` or the terminal says."""
    told = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if told else _UNCUT)
