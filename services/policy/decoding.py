"""The decode loop over a Hugging Face causal model: prefill what joins, then one token per row and step.

A batch has one set of weights. Where a row goes on under others, it leaves and joins another batch, which prefills its
prompt and the tokens so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from palate.models.logprobs import masked_positions
from services.policy.caches import RowCache
from services.policy.engine import DecodeStep, DrawnToken, EndedRow, Row
from services.policy.sampling import NoiseState, RowNoise, draw_each

_COMPACT_SHARE = 8
"""Rows that have gone are dropped once they are an eighth of the batch; until then they are computed for nothing."""


def left_padded(sequences: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Sequences that end at the same column, and their mask, both (B, T); padding holds token 0, which nobody reads."""
    longest = max(map(len, sequences))
    ids = torch.tensor([[0] * (longest - len(sequence)) + list(sequence) for sequence in sequences], device=device)
    lengths = torch.tensor([len(sequence) for sequence in sequences], device=device)
    mask = (torch.arange(longest, device=device) >= longest - lengths.unsqueeze(1)).long()
    return ids, mask


@dataclass(slots=True)
class _Place:
    """A row and how many tokens it has; `gone` once it has ended or left."""

    row: Row
    drawn: int
    gone: bool = False

    @property
    def length(self) -> int:
        """Tokens of prompt and completion so far."""
        return len(self.row.prompt_ids) + self.drawn

    @property
    def to_come(self) -> int:
        """Tokens that may follow."""
        return self.row.sampling.max_new_tokens - self.drawn


class Decoding:
    """Rows that are drawn together from one model.

    Args:
        model: Draws.
        eos_token_ids: Tokens that end a row.
        cache: Keeps what rows have read; empty.
    """

    def __init__(self, model: Any, eos_token_ids: Sequence[int], cache: RowCache) -> None:
        self._model = model
        self._device = model.device  # looking it up takes as long as a small layer
        self._eos = frozenset(eos_token_ids)
        self._cache = cache
        self._arriving: list[Row] = []
        self._places: list[_Place] = []
        self._noise = RowNoise(model.config.get_text_config().vocab_size, self._device)
        # Those drawn last, (B,); the next step reads them.
        self._tokens = torch.empty(0, dtype=torch.long, device=self._device)

    def join(self, rows: Sequence[Row]) -> None:
        """Takes rows in; the next step prefills them."""
        self._arriving.extend(rows)

    def leave(self, keys: Sequence[int]) -> dict[int, NoiseState | None]:
        """Lets rows go; gives where the noise of each stands."""
        wanted = set(keys)
        left: dict[int, NoiseState | None] = {row.key: row.noise for row in self._arriving if row.key in wanted}
        self._arriving = [row for row in self._arriving if row.key not in wanted]
        for index, place in enumerate(self._places):
            if not place.gone and place.row.key in wanted:
                place.gone = True
                left[place.row.key] = self._noise.state(index)
        return left

    @torch.inference_mode()
    def step(self) -> DecodeStep:
        """Draws one token per row."""
        logits = [self._forward()] if self._compacted() else []
        if self._arriving:
            logits.append(self._prefill())
        drawn = torch.cat(logits) if len(logits) > 1 else logits[0]  # (B, V)
        noise = self._noise.next()
        self._tokens, logprobs = draw_each(drawn, noise, [place.row.sampling for place in self._places])
        return self._collect(self._tokens.tolist(), logprobs.tolist())

    def _forward(self) -> Tensor:
        """Logits after the tokens drawn last, (B, V)."""
        self._cache.make_room(max(place.to_come for place in self._places))
        output = self._model(
            input_ids=self._tokens.unsqueeze(1),
            attention_mask=self._mask(self._cache.columns + 1),
            position_ids=torch.tensor([[place.length - 1] for place in self._places], device=self._device),
            past_key_values=self._cache.model_cache,
            use_cache=True,
        )
        self._cache.written()
        logits: Tensor = output.logits[:, -1]
        return logits

    def _mask(self, width: int) -> Tensor | None:
        """1 where a row has read a token, (B, width), the tokens drawn last included; None where no row is padded."""
        starts = [width - place.length for place in self._places]
        if not any(starts):
            return None
        columns = torch.arange(width, device=self._device)
        return (columns >= torch.tensor(starts, device=self._device).unsqueeze(1)).long()

    def _prefill(self) -> Tensor:
        """Reads what arrives, every distinct prefix once, and places it; logits of its next tokens, (rows, V)."""
        rows = self._arriving
        prefixes = [(*row.prompt_ids, *row.token_ids) for row in rows]
        places = {prefix: place for place, prefix in enumerate(dict.fromkeys(prefixes))}
        ids, mask = left_padded(list(places), self._device)
        read = self._cache.for_prefixes()
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=masked_positions(mask),
            past_key_values=read,
            use_cache=True,
            logits_to_keep=1,
        )
        owner = torch.tensor([places[prefix] for prefix in prefixes], device=ids.device)
        arrived = [_Place(row, len(row.token_ids)) for row in rows]
        self._cache.insert(read, owner, max(place.to_come for place in arrived))
        logits: Tensor = output.logits[owner, -1]
        self._noise.add([row.noise_to_come for row in rows])
        self._places += arrived
        self._arriving = []
        return logits

    def _collect(self, tokens: list[int], logprobs: list[float]) -> DecodeStep:
        """The tokens just drawn, and the rows that they end."""
        drawn, ended = [], []
        for place, token, logprob in zip(self._places, tokens, logprobs, strict=True):
            if place.gone:  # what it is computed for means nothing, and its position stays one that the model has
                continue
            place.drawn += 1
            drawn.append(DrawnToken(place.row.key, token, logprob))
            stopped = token in self._eos and not place.row.sampling.ignore_eos
            if stopped or not place.to_come:
                place.gone = True
                ended.append(EndedRow(place.row.key, stopped))
        return DecodeStep(tuple(drawn), tuple(ended))

    def _compacted(self) -> bool:
        """Drops rows that have gone where enough of them stand idle, or others arrive; whether any row is left."""
        gone = sum(place.gone for place in self._places)
        if gone and (gone * _COMPACT_SHARE >= len(self._places) or self._arriving):
            self._keep([index for index, place in enumerate(self._places) if not place.gone])
        return bool(self._places)

    def _keep(self, left: Sequence[int]) -> None:
        """Drops all rows but these; rows from behind fill the places that fall free."""
        staying, behind = {index for index in left if index < len(left)}, [i for i in left if i >= len(left)]
        order = [index if index in staying else behind.pop() for index in range(len(left))]
        # The token drawn last has no column yet.
        self._cache.keep(order, max((self._places[index].length for index in order), default=1) - 1)
        self._places = [self._places[index] for index in order]
        self._tokens = self._tokens[order]
        self._noise.keep(order)
