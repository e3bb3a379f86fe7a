"""One call against many, and the service against what one writes without it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.bench import Bench
from benchmarks.figures import Figure, Finding
from benchmarks.load import closed_loop
from benchmarks.models import make_encoder, texts
from benchmarks.paired import Contest, Run, Way, client_share, timed, times_as_fast
from benchmarks.serving.efficiency import same_scores
from benchmarks.wire import Pair, method, score_requests, scores
from palate.local_server import LocalServer


def batching(bench: Bench) -> Iterator[Finding]:
    """A random encoder of MiniLM's shape, which transformers itself can be asked to score with."""
    source = make_encoder(bench.work / "plain-encoder", tiny=bench.quick)
    plain = PlainTransformers(source)
    with bench.server("batching", "--engine", "torch", model=source) as server:
        one_call = Way("one call", partial(_score, bench, server, bench.sizes.items))
        calls = Way("a call for each item, one after the other", partial(_score, bench, server, 1))
        in_batches = Way("transformers, 16 by 16 in the order they come", timed(partial(plain.score, batch=16)))
        for name, baseline in (("calls", calls), ("transformers", in_batches)):
            runs = bench.turns(
                f"one call against {name}", Contest([baseline, one_call], partial(_mixed, bench), same_scores)
            )
            text = f"throughput, PyTorch, mixed lengths: one call / {baseline.name}"
            found = times_as_fast(runs[one_call.name], runs[baseline.name])
            beside = {"client CPU share": client_share(runs[one_call.name])}
            yield Figure(f"batching/over-{name}", text, found, beside=beside)


class PlainTransformers:
    """What one writes without a service: the texts in the order they come, `batch` at a time, padded to the longest."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    @torch.inference_mode()
    def score(self, pairs: list[Pair], batch: int) -> list[float]:
        """One raw score per pair."""
        scores: list[float] = []
        for start in range(0, len(pairs), batch):
            prompts, completions = zip(*pairs[start : start + batch], strict=True)
            encoded = self._tokenizer(list(prompts), list(completions), padding=True, return_tensors="pt")
            scores.extend(self._model(**encoded).logits[:, 0].tolist())
        return scores


def _mixed(bench: Bench, number: int) -> list[Pair]:
    """Prompts of 4 to 64 words, completions of 8 to 256: what is padded in the order it comes is mostly padding."""
    count = bench.sizes.items // 4
    return list(zip(texts(count, 4, 64, 2 * number), texts(count, 8, 256, 2 * number + 1), strict=True))


def _score(bench: Bench, server: LocalServer, items: int, pairs: list[Pair]) -> Run[list[float]]:
    sent = bench.load(closed_loop, method(server, "Score"), score_requests(pairs, items), 1)
    return Run(sent.seconds, scores(sent.answers), sent.cpu_seconds)
