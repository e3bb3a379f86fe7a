"""What deduplication and the cache save where texts repeat, and what they cost where none does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from random import Random

from benchmarks.bench import Bench
from benchmarks.figures import Figure, Finding
from benchmarks.paired import Contest, Way, times_as_fast
from benchmarks.serving.efficiency import one_pair_requests, same_scores
from benchmarks.texts import Texts

_COPIES = 4

_SERVERS = {
    "off": (),
    "dedup": ("--deduplicate",),
    "cache": ("--cache-items=16384",),
    "both": ("--deduplicate", "--cache-items=16384"),
}


def reuse(bench: Bench) -> Iterator[Finding]:
    """Servers with and without, in turns, on three workloads."""
    bench.need("--deduplicate", "--cache-items")
    with ExitStack() as stack:
        servers = {name: stack.enter_context(bench.server(f"reuse-{name}", *flags)) for name, flags in _SERVERS.items()}
        ways = {name: Way(name, partial(one_pair_requests, bench.load, server)) for name, server in servers.items()}

        def compared(name: str, workload: Callable[[Bench, int], Texts], text: str) -> Figure:
            contest = Contest([ways["off"], ways[name]], partial(workload, bench), same_scores)
            runs = bench.turns(text, contest)
            return Figure(f"reuse/{name}", f"{text}: with / without", times_as_fast(runs[name], runs["off"]))

        yield compared("dedup", _together, f"deduplication, each text {_COPIES} times at once")
        yield compared("cache", _apart, f"cache, each text {_COPIES} times, far apart")
        yield compared("both", Bench.fresh_dialogues, "deduplication and cache, no text twice")


def _together(bench: Bench, number: int) -> Texts:
    return _repeated(bench, number, lambda count: [place for place in range(count) for _ in range(_COPIES)])


def _apart(bench: Bench, number: int) -> Texts:
    def order(count: int) -> list[int]:
        return [place for turn in range(_COPIES) for place in Random(turn).sample(range(count), count)]

    # Others than those of the round's other workloads, which a cache would know.
    return _repeated(bench, number + 1000, order)


def _repeated(bench: Bench, number: int, order: Callable[[int], list[int]]) -> Texts:
    some = bench.dialogues.take(number, bench.sizes.items // _COPIES)
    return some.at(order(len(some.pairs)))
