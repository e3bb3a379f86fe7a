"""What an idle service adds to the time of one request."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.figures import Figure, Finding, Goal
from benchmarks.load import closed_loop
from benchmarks.offline import Offline
from benchmarks.paired import Contest, Run, Way, estimate, timed
from benchmarks.serving.efficiency import same_scores
from benchmarks.texts import Texts
from benchmarks.wire import method, score_requests, scores
from palate.models.rendering import Rendered

_TEXTS = 8
"""Of a round: few, so that both ways see the machine at the same moments."""


def idle_latency(bench: Bench) -> Iterator[Finding]:
    """One text at a time, through the service and by the engine alone, each text's time against its own."""
    engine = Offline(bench.served)

    def singly(row: Rendered) -> float:
        return engine.score([row], 1)[0]

    with bench.server("latency") as server:

        def service(texts: Texts) -> Run[list[tuple[float, float]]]:
            sent = bench.load(closed_loop, method(server, "Score"), score_requests(texts.pairs, 1), 1)
            answers = list(zip(scores(sent.answers), (answer.seconds for answer in sent.answers), strict=True))
            return Run(sent.seconds, answers, sent.cpu_seconds)

        def alone(texts: Texts) -> Run[list[tuple[float, float]]]:
            runs = [timed(singly)(row) for row in texts.rows]
            return Run(sum(run.seconds for run in runs), [(run.answer, run.seconds) for run in runs])

        ways = [Way("engine alone", alone), Way("service", service)]
        contest = Contest(ways, lambda number: bench.dialogues.take(number, _TEXTS), _same)
        runs = bench.turns("idle latency", contest, bench.sizes.items * bench.sizes.rounds // 4 // _TEXTS)
    rounds = [
        [(slow, quick) for (_, slow), (_, quick) in zip(served.answer, plain.answer, strict=True)]
        for served, plain in zip(runs["service"], runs["engine alone"], strict=True)
    ]
    added = estimate([statistics.median(1e3 * (slow - quick) for slow, quick in pairs) for pairs in rounds])
    ratio = estimate([statistics.median(slow / quick for slow, quick in pairs) for pairs in rounds])
    alone_ms = 1e3 * statistics.median(quick for pairs in rounds for _, quick in pairs)
    text = "one request at a time: the service's median latency {} the engine alone on the same text"
    yield Figure(
        "idle-latency/added", text.format("less"), added, "ms", Goal("≤", 3.0, "high"), {"alone, ms": alone_ms}
    )
    yield Figure("idle-latency/ratio", text.format("over"), ratio)


def _same(expected: list[tuple[float, float]], found: list[tuple[float, float]]) -> bool:
    return same_scores([score for score, _ in expected], [score for score, _ in found])
