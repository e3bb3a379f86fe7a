"""`python -m benchmarks.publish`: the bandwidth of a publication, and how long a commit holds up generation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks import command
from benchmarks.bench import Bench, Part
from benchmarks.figures import Finding


def _bandwidth(bench: Bench) -> Iterator[Finding]:
    from benchmarks.publish.bandwidth import bandwidth

    return bandwidth(bench)


def _pause(bench: Bench) -> Iterator[Finding]:
    from benchmarks.publish.pause import pause

    return pause(bench)


# Both load torch, which takes seconds, and the load generator's process starts from here.
PARTS: Mapping[str, Part] = {"bandwidth": _bandwidth, "pause": _pause}


def main() -> None:
    """Measures all parts, or those that are named."""
    command.main("python -m benchmarks.publish", PARTS)


if __name__ == "__main__":
    main()
