"""The reward service as a trainer's reward function sees it: where it is, and the results of some pairs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypedDict, Unpack

from palate.access import HELP, Access, channel_options
from palate.client.errors import PalateError
from palate.client.reward import RewardClient
from palate.client.stream_state import Pair
from palate.client.types import ContentLike, Message, Provenance, ScoreResult

VARIABLES: Mapping[str, str] = {
    "target": "PALATE_REWARD_TARGET",
    "model": "PALATE_REWARD_MODEL_NAME",  # PALATE_REWARD_MODEL is the server's own: its folder
    "revision": "PALATE_REWARD_REVISION",
    "timeout": "PALATE_REWARD_TIMEOUT",
    "patience": "PALATE_REWARD_PATIENCE",
    **{name: f"PALATE_{name.upper()}" for name in HELP},
}
"""Option → environment variable; those of `Access` are the commands' own."""


class AdapterError(PalateError):
    """A setting, or what the trainer hands over, cannot be used; the message says what to give instead."""


class Options(TypedDict, total=False):
    """What every reward function can be told besides the target.

    Attributes:
        model: Name of the model; without one the server's default.
        revision: The revision to insist on; without one, the first that answers.
        timeout: Seconds an item may take.
        patience: Seconds for which an absent or full server is waited for.
        ca: As in `palate.access.HELP`, and so are the four below.
        certificate: See there.
        key: See there.
        server_name: See there.
        token_file: See there.
    """

    model: str
    revision: str
    timeout: float
    patience: float
    ca: str | Path
    certificate: str | Path
    key: str | Path
    server_name: str
    token_file: str | Path


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A reward service and how to ask it; holds no connection, so that it can travel to other processes."""

    target: str
    model: str = ""
    revision: str = ""
    timeout: float = 60.0
    patience: float = 300.0
    access: Access = field(default_factory=Access)

    def __post_init__(self) -> None:
        for name in ("timeout", "patience"):
            seconds = getattr(self, name)
            if not (math.isfinite(seconds) and seconds > 0):
                raise AdapterError(f"{name} is {seconds}; give seconds above 0")


def endpoint(target: str, **options: Unpack[Options]) -> Endpoint:
    """What the options say; the files they name are read, so that a wrong one shows before training begins.

    Raises:
        AdapterError: A number is none.
        AccessError: A file cannot be used, or one is missing.
    """
    given: dict[str, Any] = dict(options)
    of_access: dict[str, Any] = {name: given.pop(name) for name in HELP if name in given}
    files = {name: Path(value) for name, value in of_access.items() if name != "server_name"}
    access = Access(**of_access | files)
    channel_options(access)
    return Endpoint(target, access=access, **given)


def endpoint_from_environment() -> Endpoint:
    """What the variables in `VARIABLES` say; an empty one is as good as none.

    Raises:
        AdapterError: The target is missing, or a number is none.
        AccessError: A file cannot be used, or one is missing.
    """
    given: dict[str, Any] = {name: os.environ[key] for name, key in VARIABLES.items() if os.environ.get(key)}
    if "target" not in given:
        raise AdapterError(f"{VARIABLES['target']} is not set; give the reward service's address, e.g. reward:50051")
    return endpoint(**given | {name: _number(name, given[name]) for name in ("timeout", "patience") if name in given})


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise AdapterError(f"{VARIABLES[name]} is {text!r}; give seconds, e.g. 60") from error


class Scorer:
    """One process's connection to an endpoint; threads may share it."""

    def __init__(self, place: Endpoint) -> None:
        self._place = place
        options = channel_options(place.access)
        self._client = RewardClient(place.target, model=place.model, revision=place.revision, options=options)
        self._revision = place.revision

    def results(self, pairs: Sequence[Pair]) -> list[ScoreResult]:
        """A score or an error for each pair, in their order.

        Raises:
            CallError: The service refuses, or stayed away for longer than the patience.
            AdapterError: The service has another model than before.
        """
        place = self._place
        with self._client.score_stream(pairs, timeout_per_item=place.timeout, patience=place.patience) as stream:
            found = dict(stream)
        if stream.provenance is not None:
            self._insist(stream.provenance)
        return [found[index] for index in range(len(pairs))]

    def _insist(self, provenance: Provenance) -> None:
        """Scores of two models do not mix in one training, whether or not the user pinned one."""
        self._revision = self._revision or provenance.revision
        if provenance.revision != self._revision:
            raise AdapterError(
                f"{self._place.target} scored with revision {self._revision} and now has {provenance.revision}; "
                "bring the first one back, or start the training anew"
            )


scorer_of = cache(Scorer)
"""The connection of this process to an endpoint, opened at the first call and kept until the process ends."""


def content_of(value: str | Iterable[Mapping[str, Any]]) -> ContentLike:
    """A trainer's prompt or completion: a text, or messages with role and content (arrays of them too).

    Raises:
        AdapterError: A message holds something else, e.g. images or tool calls, which no score would take into account.
    """
    return value if isinstance(value, str) else [_message(message) for message in value]


def _message(message: Mapping[str, Any]) -> Message:
    filled = {key: value for key, value in message.items() if value is not None}  # tables fill up with None
    if filled.keys() != {"role", "content"} or not all(isinstance(value, str) for value in filled.values()):
        kinds = ", ".join(f"{key} ({type(value).__name__})" for key, value in filled.items())
        raise AdapterError(f"a message has {kinds}; the reward service takes a role and a content, both texts")
    return Message(**filled)
