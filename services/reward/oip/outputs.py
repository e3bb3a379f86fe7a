"""Results as tensors: a score for every item, or the error that the whole request ends with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from services.reward.metrics import ItemOutcome
from services.reward.oip.signature import OUTPUTS, check_no_parameters, spec_of
from services.reward.oip.tensors import Values, add_output
from services.reward.replies import CODES
from services.reward.scoring import FailedItem, ItemResult
from services.runtime.errors import Expired, InvalidRequest, ServiceError, TooLarge

_RAISED: Mapping[ItemOutcome, type[ServiceError]] = {
    ItemOutcome.INVALID: InvalidRequest,
    ItemOutcome.TOO_LONG: TooLarge,
    ItemOutcome.EXPIRED: Expired,
    ItemOutcome.FAILED: ServiceError,
}

_NO_COUNT = -1
"""TOKENS of an item that failed: no number of tokens."""


def wanted_outputs(requested: Iterable[Any], *, partial: bool) -> list[str]:
    """Names of the outputs to send, as the caller writes them: all where he asks for none, STATUS always if `partial`.

    Raises:
        InvalidRequest: One is unknown, there twice, or has parameters.
    """
    names = []
    for output in requested:
        spec_of(output.name, OUTPUTS, "output")
        check_no_parameters(output)
        names.append(output.name)
    if len(set(names)) < len(names):
        raise InvalidRequest(f"an output is asked for twice: {', '.join(names)[:200]}")
    return [*names, *(["STATUS"] if partial and "STATUS" not in names else [])] if names else list(OUTPUTS)


def check_scored(results: Sequence[ItemResult]) -> None:
    """Whether every item has a score.

    Raises:
        ServiceError: Of the kind of the first item that has none, with its error.
    """
    failed = [(index, result) for index, result in enumerate(results) if isinstance(result, FailedItem)]
    if failed:
        index, first = failed[0]
        raise _RAISED[first.outcome](
            f"item {index}: {first.message} ({len(failed)} of {len(results)} items failed; with the parameter "
            "partial=true the others keep their scores)"
        )


def add_outputs(response: Any, names: Iterable[str], results: Sequence[ItemResult], *, raw: bool) -> None:
    """Appends a tensor for each name to a ModelInferResponse."""
    for name in names:
        spec = spec_of(name, OUTPUTS, "output")
        add_output(response, name, spec.datatype, _COLUMNS[spec.name](results), raw=raw)


def _rewards(results: Sequence[ItemResult]) -> Values:
    return np.array([math.nan if isinstance(result, FailedItem) else result.score for result in results])


def _tokens(results: Sequence[ItemResult]) -> Values:
    return np.array([_NO_COUNT if isinstance(result, FailedItem) else result.token_count for result in results])


def _truncated(results: Sequence[ItemResult]) -> Values:
    return np.array([not isinstance(result, FailedItem) and result.truncated_tokens > 0 for result in results])


def _statuses(results: Sequence[ItemResult]) -> Values:
    return np.array([CODES[result.outcome] if isinstance(result, FailedItem) else 0 for result in results])


def _errors(results: Sequence[ItemResult]) -> Values:
    return [result.message.encode() if isinstance(result, FailedItem) else b"" for result in results]


_COLUMNS: Mapping[str, Callable[[Sequence[ItemResult]], Values]] = {
    "REWARD": _rewards,
    "TOKENS": _tokens,
    "TRUNCATED": _truncated,
    "STATUS": _statuses,
    "ERROR": _errors,
}
"""How each output is filled; one value per item, in their order."""
