"""`python -m benchmarks.generation`: calls that share batches against calls that are drawn to their end one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from benchmarks import command
from benchmarks.bench import Bench, Part
from benchmarks.figures import Finding


def _generation(shape: str, bench: Bench) -> Iterator[Finding]:
    from benchmarks.generation.mixed import generation

    return generation(bench, shape)


# They load torch, which takes seconds, and the load generator's process starts from here.
PARTS: Mapping[str, Part] = {name: partial(_generation, name) for name in ("260k", "15m")}


def main() -> None:
    """Measures all parts, or those that are named."""
    command.main("python -m benchmarks.generation", PARTS)


if __name__ == "__main__":
    main()
