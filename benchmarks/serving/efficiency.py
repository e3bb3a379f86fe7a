"""How much of the engine's own throughput comes out of the service."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from functools import partial

from benchmarks.bench import Bench
from benchmarks.figures import Beside, Figure, Finding, Goal
from benchmarks.load import Load, closed_loop, stream
from benchmarks.offline import LAYOUTS, Offline
from benchmarks.paired import Contest, Run, Way, client_share, median_seconds, timed, times_as_fast
from benchmarks.texts import Texts
from benchmarks.wire import Unanswered, method, metrics, score_requests, scores, stream_requests, streamed_scores
from palate.local_server import LocalServer

CALLERS = 32
GROUP, GROUP_CALLERS = 16, 4
_BATCHES = (1, 2, 4, 8, 16, 32)
_SCREENING_ROUNDS = 3
_FINALISTS = 2

_TOLERANCE = 1e-3
"""How far the same text's scores may be apart, in standard deviations: rounding."""


def efficiency(bench: Bench) -> Iterator[Finding]:
    """One pair a request, sixteen, and a stream, each against the best way of using the engine without a service."""
    with bench.server("efficiency") as server:
        ways = {
            "one-pair-requests": (0.95, partial(_requests, bench.load, server, 1, CALLERS)),
            "16-item-requests": (0.97, partial(_requests, bench.load, server, GROUP, GROUP_CALLERS)),
            "stream": (0.97, partial(_stream, bench.load, server)),
        }
        offline = _screened(bench)
        service = [Way(name, run) for name, (_, run) in ways.items()]
        contest = Contest([*offline, *service], bench.fresh_dialogues, same_scores)
        runs = bench.turns("the service against the engine alone", contest)
        check_computed(server)
    best = min((way.name for way in offline), key=lambda name: median_seconds(runs[name]))
    for name, (goal, _) in ways.items():
        beside: Beside = {
            "client CPU share": client_share(runs[name]),
            **_speeds(bench, runs[name], runs[best]),
            "best": best,
        }
        found = times_as_fast(runs[name], runs[best])
        text = "throughput of the service / of the engine alone on sorted batches"
        yield Figure(f"efficiency/{name}", text, found, goal=Goal("≥", goal, "low"), beside=beside)


def one_pair_requests(load: Load, server: LocalServer, texts: Texts) -> Run[list[float]]:
    """`CALLERS` callers, one pair a request."""
    return _requests(load, server, 1, CALLERS, texts)


def group_requests(load: Load, server: LocalServer, texts: Texts) -> Run[list[float]]:
    """A few callers, `GROUP` pairs a request."""
    return _requests(load, server, GROUP, GROUP_CALLERS, texts)


def same_scores(expected: Sequence[float], found: Sequence[float]) -> bool:
    """Whether no two scores differ by more than rounding can explain."""
    largest = max(abs(a - b) for a, b in zip(expected, found, strict=True))
    return largest <= _TOLERANCE * statistics.pstdev(expected)


def check_computed(server: LocalServer) -> None:
    """Makes sure that nothing was remembered where everything was to be computed."""
    seen = metrics(server)
    reused = sum(seen.get(f"palate_reward_items_{how}_total", 0.0) for how in ("cached", "deduplicated"))
    if reused:
        raise Unanswered(f"{reused:.0f} items were not computed, though cache and deduplication are off")


def _requests(load: Load, server: LocalServer, items: int, callers: int, texts: Texts) -> Run[list[float]]:
    sent = load(closed_loop, method(server, "Score"), score_requests(texts.pairs, items), callers)
    return Run(sent.seconds, scores(sent.answers), sent.cpu_seconds)


def _stream(load: Load, server: LocalServer, texts: Texts) -> Run[list[float]]:
    sent = load(stream, method(server, "ScoreStream"), stream_requests(texts.pairs))
    return Run(sent.seconds, streamed_scores(sent.answers), sent.cpu_seconds)


def _screened(bench: Bench) -> list[Way[Texts, list[float]]]:
    """The quickest few of all layouts and batch sizes, as they came out of a few rounds."""
    engines = [(layout, Offline(bench.served, layout)) for layout in LAYOUTS]
    ways = [
        Way(f"{layout}, batches of {batch}", timed(partial(_offline, engine, batch)))
        for layout, engine in engines
        for batch in _BATCHES
    ]
    contest = Contest(ways, lambda number: bench.dialogues.take(number, bench.sizes.items // 4), same_scores)
    runs = bench.turns("the engine alone: layouts and batch sizes", contest, _SCREENING_ROUNDS)
    return sorted(ways, key=lambda way: median_seconds(runs[way.name]))[:_FINALISTS]


def _offline(engine: Offline, batch: int, texts: Texts) -> list[float]:
    return engine.score(texts.rows, batch)


def _speeds(bench: Bench, *ways: Sequence[Run[list[float]]]) -> dict[str, float]:
    names = ("items/s", "alone, items/s")
    return {name: bench.sizes.items / median_seconds(runs) for name, runs in zip(names, ways, strict=True)}
