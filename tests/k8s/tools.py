"""Programs of the environment that `make ops-env` makes."""

import subprocess
from pathlib import Path

import pytest

from tests.k8s.rendering import ROOT

BIN = ROOT / ".venv-ops" / "bin"


def run_tool(name: str, *arguments: str | Path, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """What a program said; skips the test where the environment was not made."""
    if not (BIN / name).exists():
        pytest.skip(f"{name} is not installed; `make ops-env` does it")
    return subprocess.run(
        [str(BIN / name), *map(str, arguments)], capture_output=True, text=True, timeout=300, cwd=folder
    )
