"""How weights travel: described, named by one digest, cut into chunks, or into what has changed of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CHUNK_BYTES = 1 << 20
"""Size of a chunk; under gRPC's usual message limit of 4 MiB with room for the envelope."""

POSITION_BYTES = 4
"""Size of a position in a delta; tensors with more elements than that can count are sent whole."""

TORCH_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
"""safetensors' names of number formats to torch's."""

_NAMES = {torch_name: name for name, torch_name in TORCH_NAMES.items()}


class WeightsError(ValueError):
    """Weights arrived broken, or are not what was announced; the message names the tensor."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor as it is announced.

    Attributes:
        name: Its name in the model's state dict.
        dtype: Its number format as safetensors names it, e.g. "F32".
        shape: Its shape.
        size_bytes: Its size.
        sha256: Digest of its bytes, little endian in C order, hexadecimal.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a tensor; pieces come in order, without gaps."""

    tensor_index: int
    offset_bytes: int
    data: bytes


def untied_state_dict(model: torch.nn.Module) -> dict[str, Tensor]:
    """The model's persistent tensors, each once: of tied ones the first name in module order stands for all."""
    unique = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    return {name: tensor.detach() for name, tensor in model.state_dict().items() if name in unique}


def describe_tensors(state: Mapping[str, Tensor]) -> list[TensorEntry]:
    """Announces every tensor of `state`, in its order."""
    return [_described(name, tensor) for name, tensor in state.items()]


def weights_digest(entries: Iterable[TensorEntry]) -> str:
    """SHA-256 that names a set of tensors, whatever order they come in; hexadecimal."""
    lines = sorted(f"{entry.name}\n{entry.dtype}\n{list(entry.shape)}\n{entry.sha256}\n" for entry in entries)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def iter_chunks(
    state: Mapping[str, Tensor], entries: Sequence[TensorEntry], chunk_bytes: int = CHUNK_BYTES
) -> Iterator[Chunk]:
    """Cuts `state` into pieces, in the order of `entries`; an empty tensor has none."""
    for index, entry in enumerate(entries):
        data = raw_bytes(state[entry.name])
        for offset in range(0, entry.size_bytes, chunk_bytes):
            yield Chunk(index, offset, bytes(data[offset : offset + chunk_bytes]))


def changed_positions(tensor: Tensor, base: Tensor) -> Tensor:
    """(K,) int64 positions, ascending in C order, of the elements whose bits are not those of `base`."""
    positions: Tensor = (bits_of(tensor) != bits_of(base)).nonzero().squeeze(-1)
    return positions


def encode_changes(tensor: Tensor, positions: Tensor) -> bytes:
    """What is sent of a tensor of which only the elements at `positions` differ: positions as uint32, then elements."""
    import torch

    elements = bits_of(tensor)[positions]
    return bytes(raw_bytes(positions.to(torch.uint32))) + bytes(raw_bytes(elements))


def sent_bytes(entry: TensorEntry, changed: int | None) -> int:
    """Bytes that are sent for a tensor: all of them, or so many positions and elements."""
    if changed is None:
        return entry.size_bytes
    return changed * (POSITION_BYTES + entry.size_bytes // max(1, math.prod(entry.shape)))


def _described(name: str, tensor: Tensor) -> TensorEntry:
    data = raw_bytes(tensor)
    digest = hashlib.sha256(data).hexdigest()
    return TensorEntry(name, dtype_name(tensor), tuple(tensor.shape), len(data), digest)


def dtype_name(tensor: Tensor) -> str:
    """The tensor's number format as safetensors names it."""
    name = str(tensor.dtype).removeprefix("torch.")
    if name not in _NAMES:
        raise WeightsError(f"tensors of type {name} cannot be sent; the types are {', '.join(_NAMES)}")
    return _NAMES[name]


def raw_bytes(tensor: Tensor) -> memoryview:
    """The tensor's bytes in C order, without a copy where it lies in memory so."""
    import torch

    array: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(array)


def bits_of(tensor: Tensor) -> Tensor:
    """The tensor's elements in C order as integers of their size: equal where the bits are, NaN and -0 included."""
    import torch

    sizes = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.detach().contiguous().reshape(-1).view(sizes[tensor.element_size()])
