"""OpenRLHF: `reward_func` for `--reward.remote_url`, which takes the path of this file or of one that imports it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, Unpack

from palate.client.adapters.endpoint import (
    AdapterError,
    Endpoint,
    Options,
    endpoint,
    endpoint_from_environment,
    scorer_of,
)
from palate.client.types import scores_of

if TYPE_CHECKING:
    import torch

END_TOKEN = "PALATE_REWARD_END_TOKEN"
"""Environment variable: what ends a completion and is not part of its text, e.g. "<|im_end|>"."""

Rewards: TypeAlias = "dict[str, torch.Tensor]"
"""rewards and scores, both (B,)."""


def reward_function(target: str, *, end_token: str = "", **options: Unpack[Options]) -> Callable[..., Rewards]:
    """A `reward_func` that asks the reward service at `target`.

    Args:
        target: Address, e.g. "127.0.0.1:50051" or "dns:///reward:50051".
        end_token: What ends a completion and is not part of its text; OpenRLHF leaves special tokens in.
        **options: See `Options`.

    Raises:
        AdapterError: A number is none.
        AccessError: A file cannot be used, or one is missing.
    """
    return partial(_rewards, endpoint(target, **options), end_token)


def __getattr__(name: str) -> Callable[..., Rewards]:
    """`reward_func`, made from the environment when OpenRLHF looks it up, so that a missing address shows at once."""
    if name != "reward_func":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return partial(_rewards, endpoint_from_environment(), os.environ.get(END_TOKEN, ""))


def _rewards(
    place: Endpoint, end_token: str, queries: Sequence[str], prompts: Sequence[str], labels: object = None, **_: object
) -> Rewards:
    """Scores of the completions that the queries end with.

    OpenRLHF knows no reward that is missing: NaN would spread to the whole group, and from there to the weights.

    Raises:
        ItemsFailed: A completion has no score.
        CallError: The service refuses, or stayed away for longer than the patience.
        AdapterError: A query does not begin with its prompt; the service has another model than before.
    """
    import torch  # OpenRLHF has it; the client does not need it

    completions = [_completion(q, p, end_token) for q, p in zip(queries, prompts, strict=True)]
    results = scorer_of(place).results(list(zip(prompts, completions, strict=True)))
    scores = torch.tensor(scores_of(results), dtype=torch.float32)
    return {"rewards": scores, "scores": scores}


def _completion(query: str, prompt: str, end_token: str) -> str:
    if not query.startswith(prompt):
        raise AdapterError(
            "a query does not begin with its prompt, so where its completion begins is unknown: either OpenRLHF cut "
            "the prompt (raise --data.max_len), or the tokenizer does not give back the text it was given"
        )
    return query.removeprefix(prompt).removesuffix(end_token)
