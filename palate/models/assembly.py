"""Weights as they arrive: chunks in order, put together in memory, every byte checked."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from palate.models.weights import (
    CHUNK_BYTES,
    POSITION_BYTES,
    TORCH_NAMES,
    Chunk,
    TensorEntry,
    WeightsError,
    bits_of,
    raw_bytes,
    sent_bytes,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class WeightsLimits:
    """How much an assembler takes."""

    max_tensors: int
    max_bytes: int
    max_chunk_bytes: int = CHUNK_BYTES


@dataclass(frozen=True, slots=True)
class DeltaOf:
    """What a delta changes.

    Attributes:
        base: The tensors that it was made from, by name; they are not written to.
        changed: For each announced tensor how many elements differ; None = it is sent whole.
    """

    base: Mapping[str, Tensor]
    changed: tuple[int | None, ...]


class WeightsAssembler:
    """Puts chunks together; refuses the first one that is out of order, too large, or not what was announced.

    Args:
        entries: What will come.
        limits: How much may come.
        delta: What it changes; None = every tensor comes whole.

    Raises:
        WeightsError: The announcement itself is wrong or over the limits.
    """

    def __init__(self, entries: Sequence[TensorEntry], limits: WeightsLimits, delta: DeltaOf | None = None) -> None:
        _check_announcement(entries, limits)
        if delta is not None:
            _check_delta(entries, delta)
        self._entries = tuple(entries)
        self._limits = limits
        self._delta = delta
        self._state: dict[str, Tensor] = {}
        self._begin_next()

    def add(self, chunk: Chunk) -> None:
        """Takes the next piece.

        Raises:
            WeightsError: It is not the next piece, or a tensor that it completes is not what was announced.
        """
        if len(self._state) == len(self._entries):
            raise WeightsError(f"all {len(self._entries)} tensors are complete; nothing more is expected")
        index, entry, offset = len(self._state), self._entries[len(self._state)], self._filled
        if (chunk.tensor_index, chunk.offset_bytes) != (index, offset):
            raise WeightsError(
                f"the chunk is for byte {chunk.offset_bytes} of tensor {chunk.tensor_index}; byte {offset} of tensor "
                f"{index} ({entry.name}) is next: chunks come in order, without gaps"
            )
        if not 0 < len(chunk.data) <= self._limits.max_chunk_bytes:
            raise WeightsError(f"a chunk has 1 to {self._limits.max_chunk_bytes} bytes, this one {len(chunk.data)}")
        if offset + len(chunk.data) > self._expected:
            raise WeightsError(f"{entry.name} has {self._expected} bytes; the chunk at {offset} goes past its end")
        self._memory[offset : offset + len(chunk.data)] = chunk.data
        if self._hash is not None:
            self._hash.update(chunk.data)
        self._filled += len(chunk.data)
        if self._filled == self._expected:
            self._keep(entry)
            self._begin_next()

    def finish(self) -> dict[str, Tensor]:
        """Every tensor by name, checked.

        Raises:
            WeightsError: Something is missing.
        """
        if len(self._state) < len(self._entries):
            entry = self._entries[len(self._state)]
            raise WeightsError(
                f"the chunks end at byte {self._filled} of {self._expected} of {entry.name}, with "
                f"{len(self._state)} of {len(self._entries)} tensors complete; send the weights again"
            )
        return dict(self._state)

    def _begin_next(self) -> None:
        """Makes room for what is sent of the next tensor; where that is nothing, it is complete at once."""
        for entry in self._entries[len(self._state) :]:
            self._expected, self._filled = sent_bytes(entry, self._changed()), 0
            # Memory that torch aligned: results of some kernels depend on it in the last bit.
            self._received = _empty(entry) if self._changed() is None else _empty_bytes(self._expected)
            self._memory = raw_bytes(self._received)
            self._hash = hashlib.sha256() if self._changed() is None else None  # of what the changes make, later
            if self._expected > 0:
                return
            self._keep(entry)

    def _changed(self) -> int | None:
        return None if self._delta is None else self._delta.changed[len(self._state)]

    def _keep(self, entry: TensorEntry) -> None:
        tensor = self._received if self._changed() is None else self._patched(entry)
        digest = hashlib.sha256(raw_bytes(tensor)) if self._hash is None else self._hash
        if digest.hexdigest() != entry.sha256:
            raise WeightsError(f"the bytes of {entry.name} do not have the announced SHA-256; send the weights again")
        if not _is_finite(tensor):
            raise WeightsError(f"{entry.name} holds NaN or infinity; weights must be finite")
        self._state[entry.name] = tensor

    def _patched(self, entry: TensorEntry) -> Tensor:
        """The base's tensor with the changes that were received; where there are none, that tensor itself."""
        import torch

        assert self._delta is not None
        base, changed = self._delta.base[entry.name], self._changed()
        if not changed:
            return base
        cut = changed * POSITION_BYTES
        positions = self._received[:cut].view(torch.uint32).long()
        if int(positions[-1]) >= base.numel() or bool((positions.diff() <= 0).any()):
            raise WeightsError(f"the changed positions of {entry.name} are not ascending within its {base.numel()}")
        tensor = base.clone(memory_format=torch.contiguous_format)
        bits = bits_of(tensor)
        bits[positions] = self._received[cut:].clone().view(bits.dtype)
        return tensor


def _is_finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or infinite. NaN is both smallest and largest; one pass, where isfinite takes many."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    return all(math.isfinite(bound.item()) for bound in tensor.aminmax())


def _empty_bytes(size: int) -> Tensor:
    import torch

    return torch.empty(size, dtype=torch.uint8)


def _empty(entry: TensorEntry) -> Tensor:
    import torch

    return torch.empty(entry.shape, dtype=getattr(torch, TORCH_NAMES[entry.dtype]))


def _check_announcement(entries: Sequence[TensorEntry], limits: WeightsLimits) -> None:
    if len(entries) > limits.max_tensors:
        raise WeightsError(f"{len(entries)} tensors are announced; at most {limits.max_tensors} are taken")
    names: set[str] = set()
    for entry in entries:
        if entry.name in names:
            raise WeightsError(f"{entry.name} is announced twice")
        names.add(entry.name)
        _check_entry(entry)
    total = sum(entry.size_bytes for entry in entries)
    if total > limits.max_bytes:
        raise WeightsError(f"{total} bytes are announced; at most {limits.max_bytes} are taken")


def _check_delta(entries: Sequence[TensorEntry], delta: DeltaOf) -> None:
    for entry, changed in zip(entries, delta.changed, strict=True):
        if changed is None:
            continue
        if entry.name not in delta.base:
            raise WeightsError(f"{entry.name} is not in the weights that the delta changes; send it whole")
        if sent_bytes(entry, changed) > entry.size_bytes:
            raise WeightsError(f"{entry.name}: {changed} changes take more than the tensor; send it whole")


def _check_entry(entry: TensorEntry) -> None:
    import torch

    if entry.dtype not in TORCH_NAMES:
        raise WeightsError(f"{entry.name} has type {entry.dtype}; the types are {', '.join(TORCH_NAMES)}")
    size = math.prod(entry.shape) * getattr(torch, TORCH_NAMES[entry.dtype]).itemsize
    if entry.size_bytes != size or min(entry.shape, default=0) < 0:
        raise WeightsError(
            f"{entry.name} is announced with {entry.size_bytes} bytes; {entry.dtype} of shape {list(entry.shape)} has "
            f"{size}"
        )
