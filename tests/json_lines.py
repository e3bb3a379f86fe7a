"""Rows of a JSONL file."""

import json
from pathlib import Path
from typing import Any


def read_rows(file: Path) -> list[dict[str, Any]]:
    """All of them; each line is an object."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
