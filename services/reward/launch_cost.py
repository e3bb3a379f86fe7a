"""What starting a pass costs on a GPU, measured on the model that is to be served."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch

from palate.models.classifier import MaskedClassifier
from services.reward.recorded_passes import ALONE

_LENGTH, _TRIES = 512, 3

_MANY = 3
"""So many times as long as the smallest pass, and a pass shows what its tokens cost."""


def tokens_in_a_start(model: MaskedClassifier, device: torch.device, longest: int, most_tokens: int) -> int:
    """Tokens that a GPU computes in the time that the smallest pass takes, at least 1.

    That time goes into starting kernels and reading weights, and a pass of so many tokens takes hardly longer.

    Args:
        model: On that GPU.
        device: The GPU.
        longest: Tokens that a row may have.
        most_tokens: Tokens that a pass may have there.
    """
    length = min(_LENGTH, longest)
    with ALONE:
        start = _seconds(partial(_compute, model, device, 1, 1), device)
        return tokens_within(
            start,
            lambda rows: _seconds(partial(_compute, model, device, rows, length), device),
            length,
            max(1, most_tokens // length),
        )


def tokens_within(start: float, seconds_of: Callable[[int], float], length: int, most_rows: int) -> int:
    """Tokens that are computed in `start` seconds, by the first pass that takes much longer, or the largest tried.

    Args:
        start: Seconds of the smallest pass.
        seconds_of: Seconds of a pass of so many rows.
        length: Tokens of a row.
        most_rows: No more are tried.
    """
    rows, seconds = 1, seconds_of(1)
    while seconds < _MANY * start and 2 * rows <= most_rows:
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
