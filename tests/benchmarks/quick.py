"""A benchmark program with --quick, from its command line to its file of figures."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench import Part
from benchmarks.command import exit_with, order_from


def quick_run(parts: Mapping[str, Part], work: Path, *only: str, model: Path | None = None) -> dict[str, Any]:
    """The figures of some parts, by name; the exit code must be what they say."""
    file = work / "figures.json"
    command = ["--quick", "--json", str(file), "--work", str(work), "--only", *only]
    with pytest.raises(SystemExit) as ended:
        exit_with(order_from([*command, *(("--model", str(model)) if model else ())], "bench", parts))
    found: dict[str, Any] = json.loads(file.read_text())
    kept = all("unmeasured" not in one and one.get("holds", True) for one in found.values())
    assert ended.value.code == (0 if kept else 1)
    return found


def check_measured(found: Mapping[str, Any], *names: str) -> None:
    """These figures were found and no others, each with a value in its interval."""
    assert set(found) == set(names)
    for name, figure in found.items():
        assert "unmeasured" not in figure, (name, figure)
        assert 0 < figure["low"] <= figure["value"] <= figure["high"], (name, figure)
