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


@dataclass(frozen=True, slots=True)
class NoiseState:
    """Where a row's noise stands.

    Attributes:
        generator: Its own.
        block: What it has drawn last, (S, V).
        step: The next step of the block.
        used: Steps of all blocks that were used; below 0 where the generator broke off amid a block.
    """

    generator: torch.Generator
    block: Tensor
    step: int
    used: int


@dataclass(frozen=True, slots=True)
class SeedNoise:
    """The noise of a row after so many steps; taken from `kept` where that has come as far, or a little further."""

    seed: int
    steps: int = 0
    kept: NoiseState | None = None


class RowNoise:
    """Gumbel noise, one generator per row, so that a row draws the same whatever rows stand beside it.

    Args:
        vocab_size: V; it alone decides how many steps are drawn at once.
        device: Where the noise is needed.
    """

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self._size = max(1, min(_MAX_BLOCK_STEPS, _BLOCK_NUMBERS // vocab_size))
        self._generators: list[torch.Generator] = []
        self._steps: list[int] = []
        self._used: list[int] = []
        self._block = torch.empty(0, self._size, vocab_size, device=device)  # (B, S, V)

    def add(self, rows: Sequence[SeedNoise]) -> None:
        """Takes rows in behind the others."""
        device, before = self._block.device, len(self._steps)
        block = torch.empty(len(rows), *self._block.shape[1:], device=device)
        for noise, own in zip(rows, block, strict=True):
            generator, step = self._kept(noise, own) or self._drawn(noise, own)
            self._generators.append(generator)
            self._steps.append(step)
            self._used.append(noise.steps)
        self._block = torch.cat([self._block, block]) if before else block

    def next(self) -> Tensor:
        """Noise of every row's next step, (B, V)."""
        if used := [row for row, step in enumerate(self._steps) if step == self._size]:
            self._refill(used)
        steps, self._steps = self._steps, [step + 1 for step in self._steps]
        self._used = [used + 1 for used in self._used]
        if len(set(steps)) == 1:
            return self._block[:, steps[0]]
        return self._block[torch.arange(len(steps)), torch.tensor(steps)]

    def state(self, row: int) -> NoiseState:
        """What `add` needs to go on with a row elsewhere."""
        return NoiseState(self._generators[row], self._block[row].clone(), self._steps[row], self._used[row])

    def keep(self, rows: Sequence[int]) -> None:
        """Forgets all rows but those at these indices, and orders them so."""
        self._generators = [self._generators[row] for row in rows]
        self._steps = [self._steps[row] for row in rows]
        self._used = [self._used[row] for row in rows]
        self._block = self._block[list(rows)]

    def _kept(self, noise: SeedNoise, block: Tensor) -> tuple[torch.Generator, int] | None:
        """The kept generator and the next step of `block`, (S, V), its own; None where that does not lead there."""
        kept = noise.kept
        if kept is None or not 0 <= kept.used - noise.steps <= kept.step:
            return None
        block.copy_(kept.block)
        return kept.generator, kept.step - (kept.used - noise.steps)

    def _drawn(self, noise: SeedNoise, block: Tensor) -> tuple[torch.Generator, int]:
        """The same from the seed: draws every block of the steps so far, which takes as long as it took before."""
        generator = torch.Generator(block.device).manual_seed(noise.seed)
        for _ in range(0, noise.steps, self._size):
            block.exponential_(generator=generator)
        if noise.steps:
            _to_gumbel(block)
        return generator, self._size - -noise.steps % self._size  # a block is drawn when the last is used up

    def _refill(self, rows: Sequence[int]) -> None:
        whole = len(rows) == len(self._steps)
        block = self._block if whole else self._block[rows]
        used, self._used = self._used, [-1] * len(self._used)  # in case that it breaks off
        for part, row in zip(block, rows, strict=True):
            part.exponential_(generator=self._generators[row])
            self._steps[row] = 0
        _to_gumbel(block)
        if not whole:
            self._block[rows] = block
        self._used = used


def _to_gumbel(exponential: Tensor) -> None:
    """-log of exponential noise is Gumbel noise; the clamp keeps an exact zero from becoming infinite."""
    exponential.clamp_(min=torch.finfo(exponential.dtype).tiny).log_().neg_()


def draw_each(logits: Tensor, noise: Tensor, samplings: Sequence[Sampling]) -> tuple[Tensor, Tensor]:
    """As `draw`, each row in its own way; rows that draw alike are drawn together."""
    alike: dict[tuple[float, int, float], list[int]] = {}
    for row, sampling in enumerate(samplings):
        alike.setdefault((sampling.temperature, sampling.top_k, sampling.top_p), []).append(row)
    if len(alike) == 1:
        return draw(logits, noise, samplings[0])
    tokens = torch.empty(len(samplings), dtype=torch.long, device=logits.device)
    logprobs = torch.empty(len(samplings), device=logits.device)
    for rows in alike.values():
        tokens[rows], logprobs[rows] = draw(logits[rows], noise[rows], samplings[rows[0]])
    return tokens, logprobs


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
