"""What starting a pass costs on a GPU, measured on the model that is to be served."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch

from palate.models.classifier import MaskedClassifier

_ROWS, _LENGTH, _TRIES = 8, 512, 3

MOST_TOKENS = 8192
"""Of what is found; a card that was busy with something else would seem to start without end."""


def tokens_in_a_start(model: MaskedClassifier, device: torch.device, longest: int) -> int:
    """Tokens that a GPU computes in the time that the smallest pass takes, at least 1.

    That time goes into starting kernels and reading weights, and a pass of so many tokens takes hardly longer.

    Args:
        model: On that GPU.
        device: The GPU.
        longest: Tokens that a row may have.
    """
    length = min(_LENGTH, longest)
    large = _seconds(partial(_compute, model, device, _ROWS, length), device)
    small = _seconds(partial(_compute, model, device, 1, 1), device)
    return tokens_within(small, large, _ROWS * length)


def tokens_within(start: float, large: float, tokens: int) -> int:
    """Tokens computed in `start` seconds, where a pass of `tokens` takes `large`; 1 to MOST_TOKENS."""
    # A large pass that takes no longer than a small one has not shown what tokens cost.
    return max(1, min(MOST_TOKENS, round(start * tokens / max(large - start, 1e-9))))


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
