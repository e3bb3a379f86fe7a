"""What every reward model takes and gives in this protocol: names, datatypes, shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.reward.oip.tensors import BYTES, shown
from services.reward.unary import check_count
from services.runtime.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor as metadata describes it; -1 is a size that varies. A column, (N, 1), may also come as (N,)."""

    name: str
    datatype: str
    shape: tuple[int, int] = (-1, 1)


INPUTS: Mapping[str, TensorSpec] = {
    spec.name: spec
    for spec in (
        TensorSpec("PROMPT", BYTES),
        TensorSpec("RESPONSE", BYTES),
        TensorSpec("MESSAGES", BYTES),
        TensorSpec("INPUT_IDS", "INT64", (-1, -1)),
        TensorSpec("SEQUENCE_LENGTH", "INT64"),
    )
}

OUTPUTS: Mapping[str, TensorSpec] = {
    spec.name: spec
    for spec in (
        TensorSpec("REWARD", "FP32"),
        TensorSpec("TOKENS", "INT32"),
        TensorSpec("TRUNCATED", "BOOL"),
        TensorSpec("STATUS", "INT32"),
        TensorSpec("ERROR", BYTES),
    )
}

ALIASES = {"tokens": "INPUT_IDS", "sequence_lengths": "SEQUENCE_LENGTH", "rewards": "REWARD"}
"""Names that clients of NeMo's reward models use."""


def spec_of(name: str, specs: Mapping[str, TensorSpec], kind: str) -> TensorSpec:
    """The tensor of that name, or of the name that it stands for; `kind` is "input" or "output".

    Raises:
        InvalidRequest: There is none.
    """
    spec = specs.get(ALIASES.get(name, name))
    if spec is None:
        raise InvalidRequest(f"there is no {kind} {shown(name)}; {kind}s are {', '.join(specs)}")
    return spec


def check_no_parameters(tensor: Any) -> None:
    """Refuses parameters of single tensors (shared memory, classification), rather than ignoring them."""
    if tensor.parameters:
        names = ", ".join(shown(name) for name in sorted(tensor.parameters)[:8])
        raise InvalidRequest(f"{shown(tensor.name)} has parameters ({names}); tensors take none here")


def check_input(tensor: Any, spec: TensorSpec, max_items: int) -> None:
    """Compares an InferInputTensor with what is expected, before its contents are looked at.

    Raises:
        InvalidRequest: Datatype, shape or parameters are wrong.
        TooLarge: It holds too many items.
    """
    check_no_parameters(tensor)
    if tensor.datatype != spec.datatype:
        raise InvalidRequest(f"{shown(tensor.name)} is {spec.datatype}, not {shown(tensor.datatype)}")
    shape = list(tensor.shape)
    if shape and min(shape) < 0:
        raise InvalidRequest(
            f"{shown(tensor.name)} has shape {shape[:8]}; what is sent has a size: give the number of items for -1"
        )
    is_column = spec.shape[1] == 1 and (len(shape) == 1 or shape[1:] == [1])
    is_table = spec.shape[1] == -1 and len(shape) == 2
    if not (is_column or is_table):
        raise InvalidRequest(
            f"{shown(tensor.name)} has shape {shape[:8]}; it must be {list(spec.shape)}, -1 = any size"
        )
    check_count(shape[0], max_items)
