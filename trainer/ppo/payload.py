"""Weights on their way to the replicas: what is announced and the pieces that follow, whole or as what has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from palate.client.types import PolicyVersion, TensorSpec, WeightsChunk
from palate.models.adapters import AddedTo
from palate.models.weights import (
    CHUNK_BYTES,
    TensorEntry,
    changed_positions,
    describe_tensors,
    encode_changes,
    iter_chunks,
    sent_bytes,
    untied_state_dict,
    weights_digest,
)

PayloadMaker = Callable[[nn.Module, str, int, int], "Payload"]
"""(model, run id, incarnation, step) → what is sent of the model."""

_WORTH_IT = 0.9
"""A delta of more than this share of the whole weights is not sent: it costs memory and time on both sides."""


@dataclass(frozen=True, slots=True)
class Delta:
    """What has changed since `base`: for each tensor, how many elements, and what is sent of it."""

    base: PolicyVersion
    changed: tuple[int | None, ...]
    sent: Mapping[int, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Payload:
    """Weights, ready to be sent to any number of replicas; the tensors must not change while it is used.

    Attributes:
        version: What they are.
        entries: The tensors: of the model, or the factors of its adapters.
        state: The same by name.
        delta: What has changed, for those who serve its base.
        added: The tensors are adapters, to be added to this.
    """

    version: PolicyVersion
    entries: tuple[TensorEntry, ...]
    state: Mapping[str, Tensor] = field(repr=False)
    delta: Delta | None = None
    added: AddedTo | None = None

    @property
    def size_bytes(self) -> int:
        """What is sent to a replica that serves what was published before."""
        changed = self.delta.changed if self.delta else (None,) * len(self.entries)
        return sum(sent_bytes(entry, count) for entry, count in zip(self.entries, changed, strict=True))

    def tensors(self, delta: Delta | None = None) -> tuple[TensorSpec, ...]:
        """What is announced."""
        changed = delta.changed if delta else (None,) * len(self.entries)
        return tuple(
            TensorSpec(e.name, e.dtype, e.shape, e.size_bytes, e.sha256, count)
            for e, count in zip(self.entries, changed, strict=True)
        )

    def chunks(self, delta: Delta | None = None) -> Iterator[WeightsChunk]:
        """What is sent, cut as it is asked for."""
        if delta is None:
            for chunk in iter_chunks(self.state, self.entries):
                yield WeightsChunk(chunk.tensor_index, chunk.offset_bytes, chunk.data)
            return
        for index in range(len(self.entries)):
            data = delta.sent.get(index)
            if data is None:  # whole, or nothing
                yield from self._whole(index) if delta.changed[index] is None else ()
                continue
            for offset in range(0, len(data), CHUNK_BYTES):
                yield WeightsChunk(index, offset, data[offset : offset + CHUNK_BYTES])

    def copied(self) -> Payload:
        """The same, of tensors of its own."""
        return replace(self, state={name: tensor.clone() for name, tensor in self.state.items()})

    def _whole(self, index: int) -> Iterator[WeightsChunk]:
        for chunk in iter_chunks(self.state, [self.entries[index]]):
            yield WeightsChunk(index, chunk.offset_bytes, chunk.data)


def weights_payload(
    model: nn.Module, run_id: str, incarnation: int, step: int, dtype: torch.dtype | None = None
) -> Payload:
    """The weights of `model`, each tied tensor once, under a version that carries their digest.

    Args:
        model: Of which the weights are.
        run_id: Of the run that publishes.
        incarnation: How often the run has been started.
        step: Optimiser steps behind the weights.
        dtype: What floating-point tensors are rounded to; None = as they are.
    """
    state = rounded(untied_state_dict(model), dtype)
    entries = describe_tensors(state)
    return Payload(PolicyVersion(run_id, incarnation, step, weights_digest(entries)), tuple(entries), state)


def rounded(state: Mapping[str, Tensor], dtype: torch.dtype | None) -> Mapping[str, Tensor]:
    """`state` with floating-point tensors in another number format; None = as it is."""
    if dtype is None:
        return state
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}


class DeltaEncoder:
    """Adds to payloads what has changed since the one before, except to every nth, which goes whole to all.

    Args:
        full_every: Every how many publications the weights go whole; 1 = always.
    """

    def __init__(self, full_every: int) -> None:
        self._full_every = full_every
        self._since_full = 0
        self._base: Payload | None = None

    def encoded(self, payload: Payload) -> Payload:
        """`payload`, with a delta where one is due and worth it."""
        if self._base is None or self._since_full + 1 >= self._full_every:
            return payload
        return replace(payload, delta=_delta(payload, self._base))

    def published(self, payload: Payload) -> None:
        """Every replica serves `payload`; the next delta says what differs from it."""
        if self._full_every == 1:
            return
        self._since_full = 0 if payload.delta is None else self._since_full + 1
        self._base = replace(payload, delta=None).copied()  # training goes on in the original


def _delta(payload: Payload, base: Payload) -> Delta | None:
    changed: list[int | None] = []
    sent: dict[int, bytes] = {}
    for index, (entry, before) in enumerate(zip(payload.entries, base.entries, strict=True)):
        if entry.sha256 == before.sha256:
            changed.append(0)
            continue
        tensor = payload.state[entry.name]
        positions = changed_positions(tensor, base.state[entry.name])
        if sent_bytes(entry, len(positions)) >= entry.size_bytes or tensor.numel() >= 2**32:
            changed.append(None)
            continue
        changed.append(len(positions))
        sent[index] = encode_changes(tensor, positions)
    size = sum(sent_bytes(entry, count) for entry, count in zip(payload.entries, changed, strict=True))
    if size > _WORTH_IT * sum(entry.size_bytes for entry in payload.entries):
        return None
    return Delta(base.version, tuple(changed), sent)
