"""Bytes a second of a publication over those of a bare gRPC stream of the same chunks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from operator import eq

import grpc

from benchmarks.bench import Bench
from benchmarks.figures import Figure, Finding, Goal
from benchmarks.paired import Contest, Way, median_seconds, timed, times_as_fast
from benchmarks.publish.bare import METHOD, bare_server
from benchmarks.publish.weights import Weights, served_weights

_SECONDS = 300.0
_AT_LEAST = 0.5
_WARM_UP = 6
"""Publications before the measured ones: until so many are done, the server's allocator asks the system for memory."""


def bandwidth(bench: Bench) -> Iterator[Finding]:
    """Staged, checked, built and committed, against received and counted; the answer is how many bytes arrived."""
    with served_weights(bench) as weights, bare_server() as target, grpc.insecure_channel(target) as channel:
        send = channel.stream_unary(METHOD)

        def bare(step: int) -> int:
            return int.from_bytes(send((chunk.data for chunk in weights.chunks), timeout=_SECONDS), "little")

        for step in range(1, _WARM_UP + 1):
            _published(weights, step)
        ways = [Way("bare", timed(bare)), Way("publish", timed(partial(_published, weights)))]
        runs = bench.turns("publishing against a bare stream", Contest(ways, lambda number: _WARM_UP + 1 + number, eq))
    megabytes = weights.size_bytes / 1e6
    yield Figure(
        "publish/bandwidth",
        "bytes a second: staged, every tensor checked, committed / a bare gRPC stream of the same chunks",
        times_as_fast(runs["publish"], runs["bare"]),
        goal=None if bench.quick else Goal("≥", _AT_LEAST),
        beside={
            "million parameters": weights.parameters / 1e6,
            "MB": megabytes,
            **{f"{way}, MB/s": megabytes / median_seconds(runs[way]) for way in runs},
        },
    )


def _published(weights: Weights, step: int) -> int:
    """How many bytes are served that were sent."""
    version = weights.commit(weights.stage(step))
    return weights.size_bytes if (version.step, version.digest) == (step, weights.digest) else 0
