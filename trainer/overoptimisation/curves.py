"""Best of n over many prompts: gains in proxy and gold over n = 1, and how far an ensemble disagrees on the chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.overoptimisation.best_of_n import kl_of_best_of_n, selection
from trainer.overoptimisation.gao import Interval, Unit, drawn_units, interval_of

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Choice:
    """Completions of one prompt.

    Attributes:
        proxies: (V, N) what is chosen by; of several rows each chooses alone, and what they give is averaged.
        gold: (N,) what it is worth.
        spread: (N,) standard deviation over an ensemble's members; None without members.
    """

    proxies: Array
    gold: Array
    spread: Array | None = None


@dataclass(frozen=True, slots=True)
class Curves:
    """Unbiased estimates for each of P prompts and K sizes.

    Attributes:
        d: (K,) √KL of best of n to the policy.
        proxy: (P, K) gain over n = 1 in what is chosen by.
        gold: (P, K) gain over n = 1 in gold.
        spread: (P, K) expected standard deviation over members of what is chosen; None without members.
    """

    d: Array
    proxy: Array
    gold: Array
    spread: Array | None


def sizes_up_to(count: int) -> tuple[int, ...]:
    """1, 2, 4 … up to `count`."""
    return tuple(2**power for power in range(count.bit_length()))


def curves(choices: Sequence[Choice], sizes: Sequence[int]) -> Curves:
    """What best of n gives.

    Args:
        choices: A prompt each.
        sizes: n, beginning with 1.

    Raises:
        ValueError: A prompt has fewer completions than the largest n.
    """
    proxy, gold, spread = (np.zeros((len(choices), len(sizes))) for _ in range(3))
    for row, choice in enumerate(choices):
        for column, n in enumerate(sizes):
            chosen = selections(choice, n)
            proxy[row, column] = (chosen * choice.proxies).sum(axis=1).mean()
            gold[row, column] = chosen.mean(axis=0) @ choice.gold
            if choice.spread is not None:
                spread[row, column] = chosen.mean(axis=0) @ choice.spread
    d = np.sqrt([kl_of_best_of_n(n) for n in sizes])
    told = all(choice.spread is not None for choice in choices)
    return Curves(d, proxy - proxy[:, :1], gold - gold[:, :1], spread if told else None)


def selections(choice: Choice, n: int) -> Array:
    """(V, N) how likely each completion is chosen by each row of the proxies."""
    return np.stack([selection(proxy, n) for proxy in choice.proxies])


def units_of(d: Array, gains: Array, groups: Sequence[Sequence[int]]) -> list[Unit]:
    """What a fit takes: the (P, K) gains of the prompts of each group, which belong together."""
    return [Unit(np.tile(d, len(rows)), gains[list(rows)].ravel()) for rows in groups]


def means(gains: Array, groups: Sequence[Sequence[int]], seed: int) -> tuple[Interval, ...]:
    """Mean over prompts at each size, with a 95 % interval of a bootstrap over groups."""
    times = drawn_units(len(groups), seed)
    sums = np.stack([gains[list(rows)].sum(axis=0) for rows in groups])  # (G, K)
    drawn = (times @ sums) / (times @ np.array([len(rows) for rows in groups]))[:, None]
    return tuple(map(interval_of, gains.mean(axis=0).tolist(), drawn.T.tolist()))
