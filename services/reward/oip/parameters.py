"""Parameters of a ModelInferRequest: Triton's scheduling policy, and how items are read and failures told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palate.v1 import reward_service_pb2 as reward
from services.reward.oip.tensors import shown
from services.runtime.errors import InvalidRequest

_KINDS = {
    "priority": ("int64_param", "uint64_param"),
    "timeout": ("int64_param", "uint64_param"),
    "truncation": ("string_param",),
    "partial": ("bool_param",),
    "tokenizer_digest": ("string_param",),
}
"""Every parameter that is known, and the fields that may hold its value."""

_PRIORITIES = {
    0: reward.PRIORITY_UNSPECIFIED,
    1: reward.PRIORITY_HIGH,
    2: reward.PRIORITY_NORMAL,
    3: reward.PRIORITY_LOW,
}
"""As in Triton 1 is served first, and 0 leaves it to the server."""

_TRUNCATIONS = {
    "": reward.TRUNCATION_UNSPECIFIED,
    "reject": reward.TRUNCATION_REJECT,
    "left": reward.TRUNCATION_LEFT,
    "right": reward.TRUNCATION_RIGHT,
}


@dataclass(frozen=True, slots=True)
class Parameters:
    """How to score.

    Attributes:
        priority: A `palate.v1.Priority`.
        truncation: A `palate.v1.Truncation`.
        seconds: In which the reply is worth something; infinite where the caller says nothing.
        partial: Whether failed items leave the others' scores standing.
        tokenizer_digest: Of what made the ids; empty = there are none.
    """

    priority: reward.Priority
    truncation: reward.Truncation
    seconds: float
    partial: bool
    tokenizer_digest: str


def read_parameters(given: Mapping[str, Any]) -> Parameters:
    """The parameters of a request, each by its name an InferParameter.

    Raises:
        InvalidRequest: One is unknown or has a value it cannot have; the message names it.
    """
    values = {name: _value(name, parameter) for name, parameter in given.items()}
    microseconds = values.get("timeout", 0)
    if microseconds < 0:
        raise InvalidRequest(f"the parameter timeout is {microseconds}; it is in microseconds, 0 = none")
    return Parameters(
        _choice("priority", values.get("priority", 0), _PRIORITIES),
        _choice("truncation", values.get("truncation", ""), _TRUNCATIONS),
        microseconds / 1e6 or math.inf,
        values.get("partial", False),
        values.get("tokenizer_digest", ""),
    )


def _value(name: str, parameter: Any) -> Any:
    kinds = _KINDS.get(name)
    if kinds is None:
        raise InvalidRequest(f"there is no parameter {shown(name)}; parameters are {', '.join(_KINDS)}")
    kind = parameter.WhichOneof("parameter_choice")
    if kind not in kinds:
        raise InvalidRequest(f"the parameter {name} is a {' or '.join(kinds)}, not a {kind}")
    return getattr(parameter, kind)


def _choice(name: str, value: Any, choices: Mapping[Any, Any]) -> Any:
    if value not in choices:
        known = ", ".join(repr(choice) for choice in choices)
        raise InvalidRequest(f"the parameter {name} is {repr(value)[:100]}; it is one of {known}")
    return choices[value]
