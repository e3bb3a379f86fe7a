"""The decode loop over a Hugging Face causal model: prefill each prompt once, then one token per row and step.

Where the weights change on the way, prompts and tokens so far are prefilled again under the new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from palate.models.logprobs import masked_positions
from services.policy.engine import DecodeStep, DrawnToken, FinishedRow, GenerationBatch
from services.policy.sampling import RowNoise, draw

_COMPACT_SHARE = 8
"""Finished rows are dropped once they are an eighth of the batch: dropping copies the cache, as a step does anyway."""


def left_padded(sequences: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Sequences that end at the same column, and their mask, both (B, T); padding holds token 0, which nobody reads."""
    longest = max(map(len, sequences))
    ids = torch.tensor([[0] * (longest - len(sequence)) + list(sequence) for sequence in sequences], device=device)
    lengths = torch.tensor([len(sequence) for sequence in sequences], device=device)
    mask = (torch.arange(longest, device=device) >= longest - lengths.unsqueeze(1)).long()
    return ids, mask


class Decoding:
    """One batch on its way; every `step` draws one token for each row that has not ended.

    Args:
        weights: The model to draw from, asked before every step.
        batch: What to draw.
        eos_token_ids: Tokens that end a row.
    """

    def __init__(self, weights: Callable[[], Any], batch: GenerationBatch, eos_token_ids: Sequence[int]) -> None:
        self._weights = weights
        self._model: Any = None
        self._batch = batch
        self._eos = frozenset() if batch.sampling.ignore_eos else frozenset(eos_token_ids)
        self._rows = list(range(len(batch.rows)))  # which row of the batch stands at which place
        self._running = [True] * len(batch.rows)
        self._drawn = 0

    @property
    def finished(self) -> bool:
        """Whether every row has ended."""
        return not any(self._running)

    @torch.inference_mode()
    def step(self) -> DecodeStep:
        """Draws one token per unfinished row."""
        logits = self._logits()  # (B, V)
        tokens, logprobs = draw(logits, self._noise.next(), self._batch.sampling)
        self._ids[:, self._drawn] = tokens
        self._logprobs[:, self._drawn] = logprobs
        self._drawn += 1
        step = self._collect(tokens.tolist(), logprobs.tolist())
        self._compact()
        return step

    def _logits(self) -> Tensor:
        """What the next token of each place is drawn from, (B, V), under the weights of this very step."""
        former, self._model = self._model, self._weights()
        if former is self._model:
            return self._forward()
        self._cache = DynamicCache(config=self._model.config)
        if former is not None:
            return self._read_again()
        logits = self._prefill()
        self._noise = RowNoise([row.seed for row in self._batch.rows], logits.shape[-1], logits.device)
        return logits

    def _prefill(self) -> Tensor:
        """Runs every distinct prompt once and copies its cache to the rows that continue it."""
        prompts = list(dict.fromkeys(row.prompt_ids for row in self._batch.rows))
        ids, mask = left_padded(prompts, self._model.device)
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=masked_positions(mask),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        places = {prompt: place for place, prompt in enumerate(prompts)}
        owner = torch.tensor([places[row.prompt_ids] for row in self._batch.rows], device=ids.device)
        if len(prompts) < len(owner):
            self._cache.batch_select_indices(owner)
        shape = (len(owner), self._batch.sampling.max_new_tokens)
        self._ids = torch.zeros(shape, dtype=torch.long, device=ids.device)  # (B, T)
        self._logprobs = torch.zeros(shape, device=ids.device)  # (B, T)
        self._prompt_ids = ids[owner]  # (B, P)
        self._mask = torch.cat([mask[owner], torch.ones(shape, dtype=mask.dtype, device=ids.device)], dim=1)  # (B, P+T)
        self._padded = bool((mask == 0).any())
        self._positions = mask.sum(1)[owner].unsqueeze(1)  # (B, 1)
        logits: Tensor = output.logits[owner, -1]
        return logits

    def _forward(self) -> Tensor:
        """Logits after the tokens drawn last, (B, V)."""
        mask = self._mask[:, : self._prompt_ids.shape[1] + self._drawn] if self._padded else None
        output = self._model(
            input_ids=self._ids[:, self._drawn - 1 : self._drawn],
            attention_mask=mask,
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
        )
        self._positions = self._positions + 1
        logits: Tensor = output.logits[:, -1]
        return logits

    def _read_again(self) -> Tensor:
        """Logits after prompts and tokens so far, read from the beginning under the present weights, (B, V)."""
        mask = self._mask[:, : self._prompt_ids.shape[1] + self._drawn]
        output = self._model(
            input_ids=torch.cat([self._prompt_ids, self._ids[:, : self._drawn]], dim=1),
            attention_mask=mask,
            position_ids=masked_positions(mask),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._positions = mask.sum(1, keepdim=True)
        logits: Tensor = output.logits[:, -1]
        return logits

    def _collect(self, tokens: list[int], logprobs: list[float]) -> DecodeStep:
        """The tokens just drawn, and the rows that they end."""
        at_limit = self._drawn == self._batch.sampling.max_new_tokens
        drawn, finished = [], []
        for place, token in enumerate(tokens):
            if not self._running[place]:
                continue
            drawn.append(DrawnToken(self._rows[place], token, logprobs[place]))
            stopped = token in self._eos or self._ends_text(place)
            if stopped or at_limit:
                self._running[place] = False
                finished.append(self._result(place, stopped))
        return DecodeStep(tuple(drawn), tuple(finished))

    def _ends_text(self, place: int) -> bool:
        if self._batch.ends_text is None:
            return False
        return self._batch.ends_text(self._rows[place], self._ids[place, : self._drawn].tolist())

    def _result(self, place: int, stopped: bool) -> FinishedRow:
        ids = tuple(self._ids[place, : self._drawn].tolist())
        logprobs = tuple(self._logprobs[place, : self._drawn].tolist())
        return FinishedRow(self._rows[place], ids, logprobs, stopped)

    def _compact(self) -> None:
        """Drops finished rows where enough of them stand idle."""
        ended = self._running.count(False)
        if ended * _COMPACT_SHARE < len(self._running) or ended == len(self._running) or ended == 0:
            return
        places = [place for place, running in enumerate(self._running) if running]
        keep = torch.tensor(places, device=self._ids.device)
        self._cache.batch_select_indices(keep)
        self._noise.keep(keep)
        self._ids, self._logprobs, self._mask = self._ids[keep], self._logprobs[keep], self._mask[keep]
        self._positions, self._prompt_ids = self._positions[keep], self._prompt_ids[keep]
        self._rows = [self._rows[place] for place in places]
        self._running = [True] * len(places)
