"""Best of n by a proxy, and what it is worth in gold: an estimate that uses every one of N samples, without bias."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def best_of_n(proxy: Array, values: Array, n: int) -> float:
    """Expected value of the sample that the proxy likes best among n drawn without replacement from N.

    Σ_{i ≥ n} C(i−1, n−1) / C(N, n) · values_(i), with samples in the order of the proxy: the i-th is the best of those
    subsets whose other n − 1 members lie below it. Samples that the proxy finds equal count as their mean: what a fair
    draw between them is worth.

    Source: Nakano et al. 2021 (WebGPT), appendix I; Gao et al. 2022.

    Args:
        proxy: (N,) what is chosen by.
        values: (N,) what is reported: gold, or the proxy itself.
        n: From 1 to N.

    Raises:
        ValueError: n is out of range, or the lengths differ.
    """
    if proxy.shape != values.shape or proxy.ndim != 1:
        raise ValueError(f"proxy {proxy.shape} and values {values.shape} are not two rows of one length")
    if not 1 <= n <= len(proxy):
        raise ValueError(f"the best of {n} cannot be estimated from {len(proxy)} samples")
    _, places = np.unique(proxy, return_inverse=True)
    means = np.bincount(places, values) / np.bincount(places)
    return float(means[np.sort(places)] @ _weights(len(proxy), n))


def best_of_n_curve(proxies: Array, values: Array, sizes: Sequence[int]) -> Array:
    """(P, K) the estimate for each prompt and size, from (P, N) proxies and values."""
    return np.array([[best_of_n(*row, n) for n in sizes] for row in zip(proxies, values, strict=True)])


def kl_of_best_of_n(n: int) -> float:
    """KL of best of n to the policy that is drawn from, nats: ln n − (n − 1) / n, where no two samples are equal."""
    return math.log(n) - (n - 1) / n


def _weights(count: int, n: int) -> Array:
    """(N,) C(i−1, n−1) / C(N, n) for i = 1 … N, from the last on: each is the next one times (i + 1 − n) / i."""
    weights = np.zeros(count)
    weights[-1] = n / count
    for i in range(count - 1, n - 1, -1):
        weights[i - 1] = weights[i] * (i + 1 - n) / i
    return weights
