"""`python -m benchmarks.ppo`: what drawing rollouts while the policy learns gains over doing both in turns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks import command
from benchmarks.bench import Bench, Part
from benchmarks.figures import Finding


def _overlap(bench: Bench) -> Iterator[Finding]:
    from benchmarks.ppo.overlap import overlap

    return overlap(bench)


# They load torch, which takes seconds, and the load generator's process starts from here.
PARTS: Mapping[str, Part] = {"overlap": _overlap}


def main() -> None:
    """Measures all parts, or those that are named."""
    command.main("python -m benchmarks.ppo", PARTS)


if __name__ == "__main__":
    main()
