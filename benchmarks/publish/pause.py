"""How long a commit holds up completions that are being drawn."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks.bench import Bench
from benchmarks.figures import Figure, Finding, Goal
from benchmarks.paired import estimate
from benchmarks.publish.weights import Weights, served_weights
from palate.client import SamplingParams, TokenChunk

_TOKENS = 48
_COMMIT_AT = 16
"""The token after which the commit is sent; by then the steps have found their pace."""

_AT_MOST_MS = 100.0


@dataclass(frozen=True, slots=True)
class Held:
    """Of one completion, in ms: its usual step, and the longest from the commit on."""

    step: float
    longest: float

    @property
    def pause(self) -> float:
        """What the commit added to one step."""
        return self.longest - self.step


def pause(bench: Bench) -> Iterator[Finding]:
    """Commits that let running completions end on their weights, and commits that change them on the way."""
    with served_weights(bench) as weights, ThreadPoolExecutor(1) as publisher:
        step = 0
        for name, interrupt in (("commit", False), ("interrupt", True)):
            found = []
            for _ in range(bench.sizes.rounds):
                step += 1
                found.append(_held(weights, step, publisher, interrupt=interrupt))
            yield _figure(bench, name, found, weights)


def _held(weights: Weights, step: int, publisher: ThreadPoolExecutor, *, interrupt: bool) -> Held:
    staging_id, commit, arrived = weights.stage(step), None, list[float]()
    sampling = SamplingParams(max_new_tokens=_TOKENS, ignore_eos=True)
    for event in weights.client.generate_tokens(["ba ba ba"], sampling=sampling, seeds=[step]):
        if isinstance(event, TokenChunk):
            arrived.append(time.perf_counter())
            if len(arrived) == _COMMIT_AT:
                commit = publisher.submit(weights.commit, staging_id, interrupt=interrupt)
    assert commit is not None, "the completion is long enough"
    commit.result()
    gaps = [1000 * (later - earlier) for earlier, later in itertools.pairwise(arrived)]
    return Held(statistics.median(gaps[: _COMMIT_AT - 1]), max(gaps[_COMMIT_AT - 1 :]))


def _figure(bench: Bench, name: str, found: list[Held], weights: Weights) -> Figure:
    kinds = {"commit": "running completions end on their weights", "interrupt": "they go on with the new weights"}
    return Figure(
        f"publish/pause-{name}",
        f"longest step from a commit on, less the usual step; {kinds[name]}",
        estimate([one.pause for one in found]),
        unit="ms",
        goal=None if bench.quick else Goal("≤", _AT_MOST_MS),
        beside={
            "usual step, ms": statistics.median(one.step for one in found),
            "million parameters": weights.parameters / 1e6,
        },
    )
