"""`python -m benchmarks.ppo`: what overlap gains over doing all in turns, and how quick PPO is beside TRL's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks import command
from benchmarks.bench import Bench, Part
from benchmarks.figures import Finding


def _overlap(bench: Bench) -> Iterator[Finding]:
    from benchmarks.ppo.overlap import overlap

    return overlap(bench)


def _against_trl(bench: Bench) -> Iterator[Finding]:
    from benchmarks.ppo.against_trl import against_trl

    return against_trl(bench)


# They load torch, which takes seconds, and the load generator's process starts from here.
PARTS: Mapping[str, Part] = {"overlap": _overlap, "trl": _against_trl}


def main() -> None:
    """Measures all parts, or those that are named."""
    command.main("python -m benchmarks.ppo", PARTS)


if __name__ == "__main__":
    main()
