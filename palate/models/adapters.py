"""Low-rank adapters (LoRA): what their tensors are called, and the weights they make, to the bit on every machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from palate.client.types import PolicyVersion
from palate.models.weights import TensorEntry, WeightsError

if TYPE_CHECKING:
    from torch import Tensor

_PREFIX, _A, _B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
"""As peft calls an adapter's tensors in its files."""

_FACTOR_DTYPE = "F32"
_BASE_DTYPES = ("F32", "BF16", "F16")
"""Number formats that float32 holds without rounding."""

_BLOCK_ELEMENTS = 1 << 18
"""Elements that are merged at a time: a core's cache holds them, however many products are added up."""


@dataclass(frozen=True, slots=True)
class AddedTo:
    """What adapters are added to, and what multiplies the products of their factors."""

    base: PolicyVersion
    scale: float


def factor_names(target: str) -> tuple[str, str]:
    """What the two factors of the tensor `target` are called: A, (rank, in), then B, (out, rank)."""
    module = _PREFIX + target.removesuffix(".weight")
    return module + _A, module + _B


def adapted_tensors(factors: Sequence[TensorEntry], base: Mapping[str, TensorEntry]) -> tuple[str, ...]:
    """Which tensors of `base` the announced factors are for, in their order.

    Args:
        factors: In pairs, A before B.
        base: The model's tensors by name.

    Raises:
        WeightsError: They are no such pairs, or do not fit the model.
    """
    if not factors or len(factors) % 2:
        raise WeightsError(f"{len(factors)} tensors are announced; adapters come in pairs, A before B")
    return tuple(_target(a, b, base) for a, b in zip(factors[::2], factors[1::2], strict=True))


def merged_tensors(
    base: Mapping[str, Tensor], factors: Mapping[str, Tensor], targets: Iterable[str], scale: float
) -> Mapping[str, Tensor]:
    """The tensors of `base` that have adapters, with them.

    Raises:
        WeightsError: One holds NaN or infinity then.
    """
    found = {}
    for target in targets:
        a, b = (factors[name] for name in factor_names(target))
        found[target] = merged(base[target], a, b, scale)
        if not bool(found[target].isfinite().all()):
            raise WeightsError(f"{target} holds NaN or infinity with its adapter; weights must be finite")
    return found


def merged(base: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """The weights base + scale · (b @ a), in the number format of `base`; everything is on the CPU.

    The order of all sums is fixed, and every step is an operation on single elements that IEEE 754 defines to the bit:
    how a matrix product adds up depends on the machine and its threads.

    Args:
        base: (out, in); float32, or a format that float32 holds.
        a: (rank, in) float32.
        b: (out, rank) float32.
        scale: Rounded to float32.
    """
    import torch

    with torch.no_grad():
        result = torch.empty(base.shape, dtype=base.dtype)
        rows = max(1, _BLOCK_ELEMENTS // base.shape[1])
        for start in range(0, len(base), rows):
            block = slice(start, start + rows)
            result[block] = base[block].float() + scale * _product(b[block], a)
    return result


def _product(b: Tensor, a: Tensor) -> Tensor:
    """The product b @ a, its terms rounded and added one after the other; (rows, in)."""
    import torch

    total = torch.zeros(len(b), a.shape[1])
    for column, row in zip(b.T, a, strict=True):
        total += torch.outer(column, row)
    return total


def _target(a: TensorEntry, b: TensorEntry, base: Mapping[str, TensorEntry]) -> str:
    target = a.name.removeprefix(_PREFIX).removesuffix(_A) + ".weight"
    if (a.name, b.name) != factor_names(target):
        raise WeightsError(
            f"{a.name} and {b.name} are no pair; a tensor M.weight has {_PREFIX}M{_A} and {_PREFIX}M{_B}, in this order"
        )
    if target not in base:
        raise WeightsError(f"{a.name} is for {target}, which the model does not have")
    _check_fit(base[target], a, b)
    return target


def _check_fit(base: TensorEntry, a: TensorEntry, b: TensorEntry) -> None:
    if len(base.shape) != 2 or base.dtype not in _BASE_DTYPES:
        raise WeightsError(f"{base.name} is {base.dtype} of shape {list(base.shape)}; adapters are for matrices")
    rank = a.shape[0] if a.shape else 0
    out_size, in_size = base.shape
    wanted = ((rank, in_size), (out_size, rank))
    if (a.shape, b.shape) != wanted or not 1 <= rank <= min(base.shape) or {a.dtype, b.dtype} != {_FACTOR_DTYPE}:
        raise WeightsError(
            f"the adapter of {base.name} is {a.dtype[:16]} of shape {list(a.shape)} and {b.dtype[:16]} of shape "
            f"{list(b.shape)}; of rank r it is F32 of shapes [r, {in_size}] and [{out_size}, r], r up to "
            f"{min(base.shape)}"
        )
