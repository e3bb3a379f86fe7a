"""A fake policy: one fixed distribution, whatever the prompt; everything around it is real and runs in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from palate.models.logprobs import sampled_logprobs
from palate.models.weights import TensorEntry, describe_tensors
from services.policy.engine import DecodeStep, DrawnToken, EndedRow, Row
from services.policy.sampling import NoiseState, RowNoise, draw_each

TABLE = "logits"
"""Name of its only tensor, (V,)."""


class FakeEngine:
    """Draws every token from softmax(table); its weights are that table, and can be published like any.

    Args:
        vocab_size: V.
        eos_token_ids: Tokens that end a completion.
        before_step: Called before every decode step; lets a test hold the engine where it wants it.
    """

    name = "fake"
    dtype = "float32"
    threads = 1
    joins = True
    strict = True
    one_batch = False

    def __init__(
        self, vocab_size: int, eos_token_ids: tuple[int, ...], before_step: Callable[[], None] | None = None
    ) -> None:
        self.vocab_size = vocab_size
        self.eos_token_ids = eos_token_ids
        self._before_step = before_step

    def initial_weights(self) -> Tensor:
        """The table it starts with, the same for every vocabulary size."""
        return torch.sin(torch.arange(self.vocab_size, dtype=torch.float32))

    def describe(self, weights: Tensor) -> list[TensorEntry]:
        """Its table."""
        return describe_tensors(self.tensors(weights))

    def tensors(self, weights: Tensor) -> Mapping[str, Tensor]:
        """Its table."""
        return {TABLE: weights}

    def build(self, state: Mapping[str, Tensor]) -> Tensor:
        """The table among `state`."""
        return state[TABLE]

    def batch(self, weights: Tensor) -> FakeBatch:
        """A batch without rows."""
        return FakeBatch(weights, self.eos_token_ids, self._before_step)

    def logprobs(
        self, weights: Tensor, sequences: Sequence[tuple[Sequence[int], Sequence[int]]], temperature: float
    ) -> list[list[float]]:
        """Logprobs of the completions; the prompts make no difference."""
        return [
            sampled_logprobs(weights.expand(len(ids), -1), torch.tensor(list(ids)), temperature).tolist()
            for _, ids in sequences
        ]


class FakeBatch:
    """Rows that are drawn from one table.

    Args:
        weights: The table, (V,).
        eos_token_ids: Tokens that end a row.
        before_step: As the engine's.
    """

    def __init__(self, weights: Tensor, eos_token_ids: Sequence[int], before_step: Callable[[], None] | None) -> None:
        self._weights = weights
        self._eos = frozenset(eos_token_ids)
        self._before_step = before_step
        self._rows: list[Row] = []
        self._noise = RowNoise(len(weights), weights.device)

    def join(self, rows: Sequence[Row]) -> None:
        """Takes rows in behind the others."""
        self._rows.extend(rows)
        self._noise.add([row.noise_to_come for row in rows])

    def leave(self, keys: Sequence[int]) -> dict[int, NoiseState]:
        """Lets rows go; gives where the noise of each stands."""
        left = {row.key: place for place, row in enumerate(self._rows) if row.key in set(keys)}
        noise = {key: self._noise.state(place) for key, place in left.items()}
        self._drop(left.values())
        return noise

    def step(self) -> DecodeStep:
        """One token per row."""
        if self._before_step is not None:
            self._before_step()
        logits = self._weights.expand(len(self._rows), -1)
        tokens, logprobs = draw_each(logits, self._noise.next(), [row.sampling for row in self._rows])
        drawn = tuple(map(DrawnToken, (row.key for row in self._rows), tokens.tolist(), logprobs.tolist()))
        self._rows = [
            replace(row, token_ids=(*row.token_ids, token.token_id))
            for row, token in zip(self._rows, drawn, strict=True)
        ]
        ended = {place: row for place, row in enumerate(self._rows) if self._stops(row) or self._at_limit(row)}
        self._drop(ended)
        return DecodeStep(drawn, tuple(EndedRow(row.key, self._stops(row)) for row in ended.values()))

    def _stops(self, row: Row) -> bool:
        return row.token_ids[-1] in self._eos and not row.sampling.ignore_eos

    def _at_limit(self, row: Row) -> bool:
        return len(row.token_ids) == row.sampling.max_new_tokens

    def _drop(self, places: Collection[int]) -> None:
        left = [place for place in range(len(self._rows)) if place not in places]
        self._rows = [self._rows[place] for place in left]
        self._noise.keep(left)
