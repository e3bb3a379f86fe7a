"""How the cost of an item grows with its length, with the batch, and with what waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from benchmarks.bench import Bench
from benchmarks.figures import Figure, Finding
from benchmarks.load import closed_loop
from benchmarks.paired import Contest, Run, Way, estimate
from benchmarks.texts import Texts
from benchmarks.wire import method, replies, score_requests
from palate.local_server import LocalServer

_LENGTHS = (16, 32, 64, 128, 256, 448)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)
_QUEUES = (32, 256, 1024)
_QUICK_QUEUES = (4, 8, 16)
_TOKENS = 64
"""Length of the texts that batches are made of."""

_REPEATS = 4
"""Requests of one text in a round."""


def cost(bench: Bench) -> Iterator[Finding]:
    """Seconds per item over those of the smallest, for each of the three."""
    with bench.server("cost") as server:
        count = 8 if bench.quick else 64
        lengths = {length: bench.dialogues.of_length(length, count) for length in _LENGTHS}
        yield from _growth(bench, "length", {n: partial(_alone, bench, server, lengths[n]) for n in _LENGTHS}, _compute)
        same = bench.dialogues.of_length(_TOKENS, max(_BATCHES))
        yield from _growth(bench, "batch", {n: partial(_together, bench, server, same, n) for n in _BATCHES}, _compute)
        queues = _QUICK_QUEUES if bench.quick else _QUEUES
        waiting = {n: partial(_together, bench, server, bench.short_texts, n) for n in queues}
        yield from _growth(bench, "queue", waiting, _wall)


Sized = tuple[int, float]
"""Items, and the engine's seconds for them."""


def _growth(
    bench: Bench, name: str, ways: Mapping[int, Callable[[int], Run[Sized]]], per_item: Callable[[Run[Sized]], float]
) -> Iterator[Finding]:
    contest = Contest([Way(str(size), run) for size, run in ways.items()], int, lambda *_: True)
    runs = bench.turns(f"cost of an item by {name}", contest)
    smallest, *_ = ways
    for size in ways:
        pairs = zip(runs[str(size)], runs[str(smallest)], strict=True)
        found = estimate([per_item(one) / per_item(other) for one, other in pairs])
        seconds = estimate([per_item(one) for one in runs[str(size)]]).value
        text = f"cost of an item, {name} of {size} / of {smallest}"
        yield Figure(f"cost/{name}-{size}", text, found, beside={"ms per item": 1e3 * seconds})


def _alone(bench: Bench, server: LocalServer, texts: Texts, number: int) -> Run[Sized]:
    return _sent(bench, server, score_requests(texts.take(number, _REPEATS).pairs, 1))


def _together(bench: Bench, server: LocalServer, texts: Texts, items: int, number: int) -> Run[Sized]:
    return _sent(bench, server, score_requests(texts.take(number, items).pairs, items))


def _sent(bench: Bench, server: LocalServer, requests: list[bytes]) -> Run[Sized]:
    sent = bench.load(closed_loop, method(server, "Score"), requests, 1)
    found = replies(sent.answers)
    items = sum(len(reply.results) for reply in found)
    return Run(sent.seconds, (items, sum(reply.timings.compute_seconds for reply in found)), sent.cpu_seconds)


def _compute(run: Run[Sized]) -> float:
    return run.answer[1] / run.answer[0]


def _wall(run: Run[Sized]) -> float:
    return run.seconds / run.answer[0]
