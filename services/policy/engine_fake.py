"""A fake policy: one fixed distribution, whatever the prompt; everything around it is real and runs in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from palate.models.logprobs import sampled_logprobs
from palate.models.weights import TensorEntry, describe_tensors
from services.policy.engine import DecodeStep, DrawnToken, FinishedRow, GenerationBatch
from services.policy.sampling import RowNoise, draw

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

    def decode(self, weights: Callable[[], Tensor], batch: GenerationBatch) -> Iterator[DecodeStep]:
        """One token per unfinished row and step."""
        noise = RowNoise([row.seed for row in batch.rows], self.vocab_size, torch.device("cpu"))
        drawn: dict[int, list[DrawnToken]] = {row: [] for row in range(len(batch.rows))}
        while drawn:
            if self._before_step is not None:
                self._before_step()
            logits = weights().expand(len(batch.rows), -1)
            tokens, logprobs = draw(logits, noise.next(), batch.sampling)
            step = tuple(DrawnToken(row, int(tokens[row]), float(logprobs[row])) for row in drawn)
            for token in step:
                drawn[token.row].append(token)
            ended = [
                row for row, so_far in drawn.items() if self._ends(batch, row, [token.token_id for token in so_far])
            ]
            yield DecodeStep(step, tuple(self._finished(batch, row, drawn.pop(row)) for row in ended))

    def logprobs(
        self, weights: Tensor, sequences: Sequence[tuple[Sequence[int], Sequence[int]]], temperature: float
    ) -> list[list[float]]:
        """Logprobs of the completions; the prompts make no difference."""
        return [
            sampled_logprobs(weights.expand(len(ids), -1), torch.tensor(list(ids)), temperature).tolist()
            for _, ids in sequences
        ]

    def _ends(self, batch: GenerationBatch, row: int, tokens: list[int]) -> bool:
        return len(tokens) == batch.sampling.max_new_tokens or self._stops(batch, row, tokens)

    def _stops(self, batch: GenerationBatch, row: int, tokens: list[int]) -> bool:
        at_eos = tokens[-1] in self.eos_token_ids and not batch.sampling.ignore_eos
        return at_eos or (batch.ends_text is not None and batch.ends_text(row, tokens))

    def _finished(self, batch: GenerationBatch, row: int, drawn: list[DrawnToken]) -> FinishedRow:
        _, tokens, logprobs = zip(*drawn, strict=True)
        return FinishedRow(row, tokens, logprobs, self._stops(batch, row, list(tokens)))
