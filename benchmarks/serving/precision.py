"""Engines and number formats against ONNX Runtime in float32: speed, and what becomes of the scores."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.bench import Bench, Unavailable, palate
from benchmarks.figures import Figure, Finding, Unmeasured, exact
from benchmarks.load import closed_loop
from benchmarks.paired import Contest, Estimate, Way, bounds, client_share, times_as_fast
from benchmarks.serving.efficiency import group_requests
from benchmarks.texts import Texts, review_sentences
from benchmarks.wire import Pair, method, score_requests, scores
from palate.local_server import LocalServer, ServerStartError

_BASELINE = "onnx-float32"
_CLOSE = 0.1
"""Two texts are a close pair when their scores differ by less, in standard deviations."""

_RESAMPLES = 200
"""Of the texts, for an interval."""

Scores: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How scores stand to those they should be; the shift in standard deviations of the right ones.

    Attributes:
        spearman: Rank correlation.
        flips: Share of close pairs whose order changed.
        shift: Largest change of a score.
    """

    spearman: Estimate
    flips: Estimate
    shift: Estimate


def precision(bench: Bench) -> Iterator[Finding]:
    """Each number format, served, against the baseline, served too."""
    texts = _texts(bench)
    with bench.server("precision-baseline", "--engine", "onnx") as baseline:
        expected = _scores(bench, baseline, texts.pairs, 16)
        yield from _batch_figure(bench, _BASELINE, baseline, texts, statistics.pstdev(expected))
        for name in ("onnx-int8", "torch-float32", "torch-bfloat16"):
            try:
                model, flags = _variant(bench, name)
                with bench.server(f"precision-{name}", *flags, model=model) as server:
                    yield _speed(bench, name, server, baseline)
                    yield from _fidelity_figures(bench, name, server, texts, expected)
            except (Unavailable, ServerStartError) as error:
                yield Unmeasured(f"precision/{name}", str(error))


def fidelity(expected: Sequence[float], found: Sequence[float]) -> Fidelity:
    """Compares the scores of the same texts."""
    right, given = np.array(expected), np.array(found)
    shift = exact(float(np.abs(right - given).max() / right.std()))
    return Fidelity(_over_texts(_spearman, right, given), _over_texts(_flips, right, given), shift)


def _over_texts(of: Callable[[Scores, Scores], float], right: Scores, given: Scores) -> Estimate:
    """With the interval that other texts of this kind would give, by the bootstrap over texts."""
    draws = np.random.default_rng(0).integers(len(right), size=(_RESAMPLES, len(right)))
    low, high = bounds(np.array([of(right[draw], given[draw]) for draw in draws]))
    return Estimate(of(right, given), low, high, len(right))


def _spearman(right: Scores, given: Scores) -> float:
    return float(spearmanr(right, given).statistic)


def _flips(right: Scores, given: Scores) -> float:
    first, second = np.triu_indices(len(right), 1)
    before, after = right[first] - right[second], given[first] - given[second]
    close = (np.abs(before) < _CLOSE * right.std()) & (before != 0)
    return float(np.mean(before[close] * after[close] <= 0)) if close.any() else 0.0


def _variant(bench: Bench, name: str) -> tuple[Path, tuple[str, ...]]:
    """Folder and flags."""
    if name == "onnx-int8":
        folder = bench.work / "int8"
        palate("export", "--model", str(bench.checkpoint), "--out", str(folder), "--precision", "int8")
        return folder, ("--engine", "onnx")
    if name == "torch-bfloat16":
        bench.need("--dtype")
        return bench.checkpoint, ("--engine", "torch", "--dtype", "bfloat16")
    return bench.checkpoint, ("--engine", "torch")


def _speed(bench: Bench, name: str, server: LocalServer, baseline: LocalServer) -> Figure:
    ways = [Way(one, partial(group_requests, bench.load, at)) for one, at in ((_BASELINE, baseline), (name, server))]
    contest = Contest(ways, bench.fresh_dialogues, lambda *_: True)
    runs = bench.turns(f"{name} against {_BASELINE}", contest)
    beside = {"client CPU share": client_share(runs[name])}
    found = times_as_fast(runs[name], runs[_BASELINE])
    return Figure(f"precision/{name}-speed", f"throughput: {name} / {_BASELINE}", found, beside=beside)


def _fidelity_figures(
    bench: Bench, name: str, server: LocalServer, texts: Texts, expected: Sequence[float]
) -> Iterator[Finding]:
    found = fidelity(expected, _scores(bench, server, texts.pairs, 16))
    head = "a trained" if bench.has_trained_head else "a RANDOM"
    text = f"{len(texts.pairs)} texts, {head} head, {name} against {_BASELINE}: "
    yield Figure(f"precision/{name}-spearman", f"{text}rank correlation", found.spearman)
    yield Figure(f"precision/{name}-flips", f"{text}close pairs (< {_CLOSE} SD) that flip", found.flips)
    yield Figure(f"precision/{name}-shift", f"{text}largest change of a score", found.shift, "SD")
    yield from _batch_figure(bench, name, server, texts, statistics.pstdev(expected))


def _batch_figure(bench: Bench, name: str, server: LocalServer, texts: Texts, scale: float) -> Iterator[Finding]:
    some = texts.pairs[: len(texts.pairs) // 4]
    alone = _scores(bench, server, some, 1)
    beside = _scores(bench, server, some, min(len(some), 64))
    moved = [abs(a - b) for a, b in zip(alone, beside, strict=True)]
    text = f"{name}: largest difference of a score alone and beside others"
    share = sum(one > 0 for one in moved) / len(moved)
    yield Figure(f"precision/{name}-batch", text, exact(max(moved) / scale), "SD", beside={"share that moves": share})


def _scores(bench: Bench, server: LocalServer, pairs: Sequence[Pair], items: int) -> list[float]:
    return scores(bench.load(closed_loop, method(server, "Score"), score_requests(pairs, items), 1).answers)


def _texts(bench: Bench) -> Texts:
    """Half of what the head was trained for, half dialogues."""
    half = bench.sizes.fidelity_items // 2
    reviews, others = review_sentences(bench.data, bench.renderer).take(0, half), bench.dialogues.take(1, half)
    return Texts(reviews.pairs + others.pairs, reviews.rows + others.rows)
