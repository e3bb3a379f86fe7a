"""How one token is drawn per row: temperature, top-k, top-p, and noise that belongs to the row, not to its batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from palate.models.logprobs import log_probabilities

_MASK64 = (1 << 64) - 1

_BLOCK_NUMBERS = 16_384
_MAX_BLOCK_STEPS = 32
"""A row's noise is drawn for several steps at once: 64 small draws a step would cost as much as the forward pass."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: Divides the logits; > 0.
        top_k: Only the k likeliest tokens are drawn; 0 = all.
        top_p: Only the likeliest tokens up to this mass are drawn; 1 = all.
        max_new_tokens: Longest completion.
        ignore_eos: The end-of-sequence token does not end a completion.
    """

    temperature: float
    top_k: int
    top_p: float
    max_new_tokens: int
    ignore_eos: bool = False


def row_seed(seed: int, completion_index: int) -> int:
    """The 64-bit seed of one completion's generator, the same on every machine.

    Source: SplitMix64 (Steele, Lea and Flood 2014), applied to the seed and again to its sum with the index.
    """
    return _mix(_mix(seed) + completion_index)


class RowNoise:
    """Gumbel noise, one generator per row, so that a row draws the same whatever rows stand beside it.

    Args:
        seeds: One per row, (B,).
        vocab_size: V; it alone decides how many steps are drawn at once.
        device: Where the noise is needed.
    """

    def __init__(self, seeds: Sequence[int], vocab_size: int, device: torch.device) -> None:
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self._steps = max(1, min(_MAX_BLOCK_STEPS, _BLOCK_NUMBERS // vocab_size))
        self._block = torch.empty(len(seeds), self._steps, vocab_size, device=device)  # (B, S, V)
        self._step = self._steps

    def next(self) -> Tensor:
        """Noise of the next step, (B, V)."""
        if self._step == self._steps:
            self._refill()
        self._step += 1
        return self._block[:, self._step - 1]

    def keep(self, rows: Tensor) -> None:
        """Forgets all rows but those at these indices."""
        self._generators = [self._generators[row] for row in rows.tolist()]
        self._block = self._block[rows]

    def _refill(self) -> None:
        for block, generator in zip(self._block, self._generators, strict=True):
            block.exponential_(generator=generator)
        # -log of exponential noise is Gumbel noise; the clamp keeps an exact zero from becoming infinite.
        self._block.clamp_(min=torch.finfo(self._block.dtype).tiny).log_().neg_()
        self._step = 0


def draw(logits: Tensor, noise: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Draws one token per row with the Gumbel-max trick: argmax(log p + noise) is a sample of p.

    Args:
        logits: (B, V) of the model.
        noise: (B, V) Gumbel noise.
        sampling: How tokens are drawn.

    Returns:
        Token ids (B,) and their logprobs (B,) float32 under exactly the distribution they were drawn from.
    """
    log_p = log_probabilities(keep_likeliest(logits, sampling), sampling.temperature)  # (B, V)
    tokens = (log_p + noise).argmax(-1)
    return tokens, log_p.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def keep_likeliest(logits: Tensor, sampling: Sampling) -> Tensor:
    """Sets the logits of tokens that must not be drawn to -inf; top-k first, then top-p of what it leaves.

    Source: top-k, Fan et al. 2018; nucleus sampling, Holtzman et al. 2020. The likeliest token always stays.

    Args:
        logits: (B, V).
        sampling: top_k, top_p, and the temperature at which the mass of top_p is counted.

    Returns:
        (B, V), the same tensor where nothing is to be dropped.
    """
    if not 0 < sampling.top_k < logits.shape[-1] and sampling.top_p >= 1.0:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    if 0 < sampling.top_k < logits.shape[-1]:
        ordered[:, sampling.top_k :] = -torch.inf
    mass = log_probabilities(ordered, sampling.temperature).exp()
    before = mass.cumsum(-1) - mass  # mass of the likelier tokens
    dropped = before >= sampling.top_p if sampling.top_p < 1.0 else torch.zeros_like(before, dtype=torch.bool)
    dropped |= ordered == -torch.inf
    dropped[:, 0] = False
    return logits.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), -torch.inf)


def _mix(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK64
    return value ^ (value >> 31)
