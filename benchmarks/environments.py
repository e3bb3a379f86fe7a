"""Virtual environments for whoever cannot live beside us: other servers, trainers of another day."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import python


def environment(name: str, packages: Sequence[str], cache: Path) -> Path:
    """The interpreter of an environment with `packages`, which is made in `cache` where it is not there yet.

    Raises:
        Unavailable: It cannot be installed.
    """
    folder, wanted = cache / name, str(tuple(packages))
    interpreter, done = folder / "bin" / "python", folder / "installed"
    if not done.is_file() or done.read_text() != wanted:
        python(f"making an environment for {name}", "-m", "venv", "--clear", str(folder))
        python(f"installing {name}", "-m", "pip", "install", "--quiet", *packages, interpreter=interpreter)
        done.write_text(wanted)
    return interpreter
