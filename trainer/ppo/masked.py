"""Means, variances and whitening that never see padding."""

from __future__ import annotations

import torch
from torch import Tensor

_EPSILON = 1e-8


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real positions of (B, T) `values`: where `mask` is 1 (or True), which is at least once."""
    return torch.where(mask.bool(), values, 0).sum() / mask.sum()


def masked_variance(values: Tensor, mask: Tensor, *, unbiased: bool) -> Tensor:
    """Variance over the real positions: divided by n (population), or by n - 1 (`unbiased`)."""
    deviations = values - masked_mean(values, mask)
    variance = masked_mean(deviations**2, mask)
    count = mask.sum()
    return variance * count / (count - 1).clamp(min=1) if unbiased else variance


def masked_whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True, unbiased: bool = True) -> Tensor:
    """(B, T) `values` scaled to variance 1, and to mean 0 unless the mean is to be kept; padding becomes 0.

    Population variance is what OpenAI's lm-human-preferences divides by, the unbiased one what TRL and verl do.
    """
    mean = masked_mean(values, mask)
    whitened = (values - mean) * torch.rsqrt(masked_variance(values, mask, unbiased=unbiased) + _EPSILON)
    return torch.where(mask.bool(), whitened if shift_mean else whitened + mean, 0)
