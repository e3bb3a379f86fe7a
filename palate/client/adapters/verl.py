"""verl: `compute_score` for `reward.custom_reward_function`, which verl calls for one completion at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Unpack

from palate.client.adapters.endpoint import (
    AdapterError,
    Endpoint,
    Options,
    content_of,
    endpoint,
    endpoint_from_environment,
    scorer_of,
)
from palate.client.types import scores_of

PROMPT_KEY = "PALATE_REWARD_PROMPT_KEY"
"""Environment variable: where in `extra_info` the prompt is."""


def reward_function(target: str, *, prompt_key: str = "prompt", **options: Unpack[Options]) -> Callable[..., float]:
    """A `compute_score` that asks the reward service at `target`.

    Args:
        target: Address, e.g. "127.0.0.1:50051" or "dns:///reward:50051".
        prompt_key: Where in `extra_info` the prompt is, a text or messages; verl hands over the completion alone.
        **options: See `Options`.

    Raises:
        AdapterError: A number is none.
        AccessError: A file cannot be used, or one is missing.
    """
    return partial(_score, endpoint(target, **options), prompt_key)


def __getattr__(name: str) -> Callable[..., float]:
    """`compute_score`, made from the environment when verl looks it up, so that a missing address shows at once."""
    if name != "compute_score":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return partial(_score, endpoint_from_environment(), os.environ.get(PROMPT_KEY) or "prompt")


def _score(
    place: Endpoint,
    prompt_key: str,
    data_source: str,
    solution_str: str,
    ground_truth: object,
    extra_info: Mapping[str, Any] | None = None,
    **_: object,
) -> float:
    """The score of `solution_str`; verl knows no reward that is missing, so a failure ends the training.

    Raises:
        ItemsFailed: The completion has no score.
        CallError: The service refuses, or stayed away for longer than the patience.
        AdapterError: There is no prompt; the service has another model than before.
    """
    prompt = (extra_info or {}).get(prompt_key)
    if prompt is None:
        known = ", ".join(sorted(extra_info or {})) or "nothing"
        raise AdapterError(
            f"extra_info of a row of {data_source} has no {prompt_key!r} but {known}; put the prompt into extra_info, "
            f"or name its key in {PROMPT_KEY} or prompt_key"
        )
    (score,) = scores_of(scorer_of(place).results([(content_of(prompt), solution_str)]))
    return score
