"""`python -m benchmarks.serving`: measures what the services make of the machine; started by `make bench`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks import command
from benchmarks.bench import Bench, Part
from benchmarks.figures import Finding
from benchmarks.serving.cost import cost
from benchmarks.serving.efficiency import efficiency
from benchmarks.serving.latency import idle_latency
from benchmarks.serving.overload import overload
from benchmarks.serving.precision import precision
from benchmarks.serving.reuse import reuse
from benchmarks.serving.security import security


def _prefix_reuse(bench: Bench) -> Iterator[Finding]:
    from benchmarks.serving.prefix import prefix_reuse

    return prefix_reuse(bench)


def _batching(bench: Bench) -> Iterator[Finding]:
    from benchmarks.serving.batching import batching

    return batching(bench)


def _generating(bench: Bench) -> Iterator[Finding]:
    from benchmarks.serving.generating import generating

    return generating(bench)


# Those that load torch here do so when they run: it takes seconds, and the load generator's process starts from here.
PARTS: Mapping[str, Part] = {
    "efficiency": efficiency,
    "idle-latency": idle_latency,
    "overload": overload,
    "prefix-reuse": _prefix_reuse,
    "reuse": reuse,
    "precision": precision,
    "cost": cost,
    "security": security,
    "batching": _batching,
    "generating": _generating,
}


def main() -> None:
    """Measures all parts, or those that are named."""
    command.main("python -m benchmarks.serving", PARTS)


if __name__ == "__main__":
    main()
