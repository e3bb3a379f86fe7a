"""The reward service: one call against many, against plain transformers, and ONNX Runtime against PyTorch."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.models import make_encoder, texts
from benchmarks.paired import Measurement, Way
from palate.client import RewardClient
from palate.local_server import local_server
from palate.models.export import export

Pairs: TypeAlias = list[tuple[str, str]]

ITEMS = 64

_TOLERANCE = 1e-3
"""In standard deviations of the scores."""


@contextmanager
def scoring(folder: Path, logs: Path) -> Iterator[list[Measurement[Pairs, list[float]]]]:
    """What there is to measure, while the servers run; models are made in `folder`."""
    source = make_encoder(folder / "encoder")
    served = export(source, folder / "served").path
    plain = PlainTransformers(source)
    command = ("-m", "services.reward", "--model", str(served), "--cache-items", "0", "--engine")
    with (
        local_server((*command, "onnx"), log=logs / "reward-onnx.log") as onnx_server,
        local_server((*command, "torch"), log=logs / "reward-torch.log") as torch_server,
        RewardClient(onnx_server.target, timeout=120.0) as onnx,
        RewardClient(torch_server.target, timeout=120.0) as pytorch,
    ):
        one_call = Way(f"{ITEMS} items in one call", partial(_score, onnx))
        calls = Way("a call per item", partial(_score_singly, onnx))
        by_torch = Way("service, PyTorch", partial(_score, pytorch))
        by_onnx = Way("service, ONNX", partial(_score, onnx))
        one_by_one = Way("transformers, 1 by 1", partial(plain.score, batch=1))
        in_batches = Way("transformers, 16 by 16", partial(plain.score, batch=16))
        yield [
            Measurement("Score, short texts", calls, one_call, short_pairs, same_scores),
            Measurement("Score, mixed texts", calls, one_call, mixed_pairs, same_scores),
            Measurement("Score, mixed texts", one_by_one, by_torch, mixed_pairs, same_scores),
            Measurement("Score, mixed texts", in_batches, by_torch, mixed_pairs, same_scores),
            Measurement("Score, mixed texts", by_torch, by_onnx, mixed_pairs, same_scores),
        ]


class PlainTransformers:
    """What one writes without a service: the texts in the order they come, `batch` at a time, padded to the longest."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    @torch.inference_mode()
    def score(self, pairs: Pairs, batch: int) -> list[float]:
        """One raw score per pair."""
        scores: list[float] = []
        for start in range(0, len(pairs), batch):
            prompts, completions = zip(*pairs[start : start + batch], strict=True)
            encoded = self._tokenizer(list(prompts), list(completions), padding=True, return_tensors="pt")
            scores.extend(self._model(**encoded).logits[:, 0].tolist())
        return scores


def same_scores(expected: Sequence[float], found: Sequence[float]) -> bool:
    """Whether no two scores differ by more than rounding can explain."""
    largest = max(abs(a - b) for a, b in zip(expected, found, strict=True))
    return largest <= _TOLERANCE * statistics.pstdev(expected)


def short_pairs(number: int) -> Pairs:
    """Prompts of 2 to 4 words, completions of 2 to 8: a call costs more than its item."""
    return list(zip(texts(ITEMS, 2, 4, 2 * number), texts(ITEMS, 2, 8, 2 * number + 1), strict=True))


def mixed_pairs(number: int) -> Pairs:
    """Prompts of 4 to 64 words, completions of 8 to 256: what is padded in the order it comes is mostly padding."""
    return list(zip(texts(ITEMS, 4, 64, 2 * number), texts(ITEMS, 8, 256, 2 * number + 1), strict=True))


def _score(client: RewardClient, pairs: Pairs) -> list[float]:
    prompts, completions = zip(*pairs, strict=True)
    return client.score(prompts, completions).scores()


def _score_singly(client: RewardClient, pairs: Pairs) -> list[float]:
    return [score for pair in pairs for score in _score(client, [pair])]
