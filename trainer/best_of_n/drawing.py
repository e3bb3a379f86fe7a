"""Completions of a prompt from the policy service."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from palate.client import (
    CallError,
    DeadlineExceeded,
    GeneratedCompletion,
    InternalError,
    InvalidArgument,
    MessageTooLarge,
    PalateError,
    PolicyClient,
    PolicyInfo,
    SamplingParams,
)
from palate.waiting import patiently, say_waiting
from trainer.best_of_n.config import BestOfNConfig
from trainer.best_of_n.refusals import asks_too_much
from trainer.data.lines import DataError
from trainer.data.prompts import PromptRow, read_prompts
from trainer.ppo.patience import Patience

MOST_COMPLETIONS = 1_000_000
"""Of all prompts together: their numbers are held in memory."""

_PATIENCE = Patience(tries=3)
"""With an engine that fails, or is late, and sends nothing new."""

_BACKOFF_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt and its place in the order of this seed."""

    number: int
    prompt: PromptRow

    @property
    def group(self) -> str:
        """What it belongs to; its own where nothing is said."""
        return self.prompt.group or self.prompt.text


class Refused(Exception):
    """The policy does not take a prompt; the message says why."""


class Failing(Exception):
    """The policy fails on a prompt, or is late, each time it is asked; the message says how. Another day it may not."""


def all_prompts(config: BestOfNConfig) -> list[Asked]:
    """The file's prompts, each once and in an order of the seed: a larger limit goes on where a smaller one ended.

    Raises:
        DataError: The file cannot be used.
    """
    prompts = list({row.text: row for row in read_prompts(config.prompts)}.values())
    Random(f"{config.seed}/prompts").shuffle(prompts)
    return [Asked(number, prompt) for number, prompt in enumerate(prompts)]


def check_bound(prompts: int, samples: int) -> None:
    """Refuses what would not be held in memory.

    Raises:
        DataError: There would be too many completions.
    """
    if prompts * samples > MOST_COMPLETIONS:
        raise DataError(
            f"{prompts} prompts with {samples} completions each are more than {MOST_COMPLETIONS}; lower --limit or "
            "--samples"
        )


def draw(policy: PolicyClient, asked: Asked, config: BestOfNConfig, info: PolicyInfo) -> list[GeneratedCompletion]:
    """`config.samples` completions of a prompt, all from the weights that `info` names, in as many calls as it takes.

    Raises:
        Refused: The policy does not take the prompt.
        Failing: It fails on some completions, or is late with them, try after try.
        DataError: A single completion is more than the service takes.
        CallError: The service refuses otherwise, or stayed away too long.
    """
    draws = _Draws(policy, asked, config, info)
    pauses = _PATIENCE.pauses(_BACKOFF_SECONDS)
    while draws.missing:
        before = len(draws.missing)
        try:
            patiently(draws.ask, say_waiting)
        except (InvalidArgument, MessageTooLarge) as error:
            if not asks_too_much(error):
                raise Refused(str(error)) from error
            draws.ask_for_less(error)
        except (InternalError, DeadlineExceeded) as error:
            if len(draws.missing) < before:
                pauses = _PATIENCE.pauses(_BACKOFF_SECONDS)
            _pause(pauses, error)
    return [draws.found[index] for index in range(config.samples)]


def seed_of(asked: Asked, index: int, seed: int) -> int:
    """What a completion is drawn with, whichever call it comes in."""
    return Random(f"{seed}/draw/{asked.prompt.text}/{index}").getrandbits(63)


class _Draws:
    """The completions of a prompt, those that have come and those that are missing."""

    def __init__(self, policy: PolicyClient, asked: Asked, config: BestOfNConfig, info: PolicyInfo) -> None:
        self._policy = policy
        self._asked = asked
        self._config = config
        self._version = info.policy_version
        self._most = min(config.samples, info.max_prompts, info.max_completions)  # in one call
        self.found: dict[int, GeneratedCompletion] = {}

    @property
    def missing(self) -> list[int]:
        """Which have not come."""
        return [index for index in range(self._config.samples) if index not in self.found]

    def ask(self) -> None:
        """One call, for as many as may be; each stands as soon as it comes, however the call ends."""
        wanted = self.missing[: self._most]
        stream = self._policy.generate(
            [self._asked.prompt.text] * len(wanted),
            sampling=SamplingParams(temperature=self._config.temperature, max_new_tokens=self._config.max_new_tokens),
            seeds=[seed_of(self._asked, index, self._config.seed) for index in wanted],
            required_policy_version=self._version,
        )
        for completion in stream:
            self.found[wanted[completion.prompt_index]] = completion
        if lacking := [index for index in wanted if index not in self.found]:
            raise Failing(f"{self._policy.target} ended its answer without {len(lacking)} of {len(wanted)} completions")

    def ask_for_less(self, error: PalateError) -> None:
        """Halves what one call asks for: how much a server's queue holds it says only by refusing.

        Raises:
            DataError: It was one completion.
        """
        self._most = min(self._most, len(self.missing)) // 2
        if not self._most:
            raise DataError(
                f"{self._policy.target} does not take a call for a single completion of a prompt: {error}. Lower "
                "--max-new-tokens, or raise the limit of the policy service (--max-queue-tokens, --max-message-bytes)"
            ) from error


def _pause(pauses: Iterator[float], error: CallError) -> None:
    """Waits before another try.

    Raises:
        Failing: There is none.
    """
    pause = next(pauses, None)
    if pause is None:
        raise Failing(f"{error} ({_PATIENCE})") from error
    time.sleep(error.retry_after or pause)
