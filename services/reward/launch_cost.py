"""What starting a pass costs on a GPU, measured on the model that is to be served."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch

from palate.models.classifier import MaskedClassifier

_LENGTH, _MOST_ROWS, _TRIES = 512, 128, 3

_MANY = 3
"""So many times as long as the smallest pass, and a pass shows what its tokens cost."""


def tokens_in_a_start(model: MaskedClassifier, device: torch.device, longest: int) -> int:
    """Tokens that a GPU computes in the time that the smallest pass takes, at least 1.

    That time goes into starting kernels and reading weights, and a pass of so many tokens takes hardly longer.

    Args:
        model: On that GPU.
        device: The GPU.
        longest: Tokens that a row may have.
    """
    length = min(_LENGTH, longest)
    start = _seconds(partial(_compute, model, device, 1, 1), device)
    return tokens_within(start, lambda rows: _seconds(partial(_compute, model, device, rows, length), device), length)


def tokens_within(start: float, seconds_of: Callable[[int], float], length: int) -> int:
    """Tokens that are computed in `start` seconds, by the first pass that takes much longer, or the largest tried.

    Args:
        start: Seconds of the smallest pass.
        seconds_of: Seconds of a pass of so many rows.
        length: Tokens of a row.
    """
    rows, seconds = 1, seconds_of(1)
    while seconds < _MANY * start and rows < _MOST_ROWS:
        rows *= 2
        seconds = seconds_of(rows)
    return max(1, min(rows * length, round(start * rows * length / max(seconds - start, 1e-9))))


@torch.inference_mode()
def _compute(model: MaskedClassifier, device: torch.device, rows: int, length: int) -> None:
    ids = torch.zeros(rows, length, dtype=torch.long, device=device)
    model(ids, torch.ones_like(ids))


def _seconds(compute: Callable[[], None], device: torch.device) -> float:
    """The best of some tries, after one that warms up."""
    return min([_timed(compute, device) for _ in range(1 + _TRIES)][1:])


def _timed(compute: Callable[[], None], device: torch.device) -> float:
    torch.cuda.synchronize(device)
    begin = time.perf_counter()
    compute()
    torch.cuda.synchronize(device)
    return time.perf_counter() - begin
