"""Best of n by a proxy, and what it is worth in gold: an estimate that uses every one of N samples, without bias."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def best_of_n(proxy: Array, values: Array, n: int) -> float:
    """Expected value of the sample that the proxy likes best among n drawn without replacement from N.

    Args:
        proxy: (N,) what is chosen by.
        values: (N,) what is reported: gold, or the proxy itself.
        n: From 1 to N.

    Raises:
        ValueError: n is out of range, or the lengths differ.
    """
    if proxy.shape != values.shape or proxy.ndim != 1:
        raise ValueError(f"proxy {proxy.shape} and values {values.shape} are not two rows of one length")
    return float(selection(proxy, n) @ values)


def selection(proxy: Array, n: int) -> Array:
    """(N,) how likely each of N samples is the one that the proxy likes best among n drawn without replacement.

    C(i−1, n−1) / C(N, n) for the i-th in the order of the proxy: the number of subsets whose other n − 1 members lie
    below it. Samples that the proxy finds equal share theirs: what a fair draw between them is worth.

    Source: Nakano et al. 2021 (WebGPT), appendix I; Gao et al. 2022.

    Args:
        proxy: (N,) what is chosen by.
        n: From 1 to N.

    Raises:
        ValueError: n is out of range.
    """
    if not 1 <= n <= len(proxy):
        raise ValueError(f"the best of {n} cannot be estimated from {len(proxy)} samples")
    _, places = np.unique(proxy, return_inverse=True)
    shared = np.bincount(np.sort(places), _weights(len(proxy), n)) / np.bincount(places)
    found: Array = shared[places]
    return found


def kl_of_best_of_n(n: int) -> float:
    """KL of best of n to the policy that is drawn from, nats: ln n − (n − 1) / n, where no two samples are equal."""
    return math.log(n) - (n - 1) / n


def _weights(count: int, n: int) -> Array:
    """(N,) C(i−1, n−1) / C(N, n) for i = 1 … N, from the last on: each is the next one times (i + 1 − n) / i."""
    later = np.arange(count - 1, n - 1, -1)
    weights = np.zeros(count)
    weights[n - 1 :] = n / count * np.cumprod(np.append(1.0, (later + 1 - n) / later))[::-1]
    return weights
