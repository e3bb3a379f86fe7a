"""Completions of a prompt from the policy service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from palate.client import GeneratedCompletion, InvalidArgument, PolicyClient, PolicyInfo, PolicyVersion, SamplingParams
from palate.waiting import patiently, say_waiting
from trainer.best_of_n.config import BestOfNConfig
from trainer.data.lines import DataError
from trainer.data.prompts import PromptRow, read_prompts

MOST_COMPLETIONS = 1_000_000
"""Of all prompts together: their numbers are held in memory."""


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
        CallError: The service refuses otherwise, or stayed away too long.
    """
    found: list[GeneratedCompletion] = []
    try:
        for part, count in enumerate(_parts(config.samples, info.max_completions)):
            call = partial(_drawn, policy, asked, config, info.policy_version, part, count)
            found += patiently(call, say_waiting)
    except InvalidArgument as error:
        raise Refused(str(error)) from error
    return found


def _drawn(
    policy: PolicyClient, asked: Asked, config: BestOfNConfig, version: PolicyVersion, part: int, count: int
) -> Sequence[GeneratedCompletion]:
    """One call; the same seed, prompt and part give the same completions."""
    completions = policy.generate(
        [asked.prompt.text],
        sampling=SamplingParams(temperature=config.temperature, max_new_tokens=config.max_new_tokens),
        completions_per_prompt=count,
        seeds=[Random(f"{config.seed}/draw/{asked.prompt.text}/{part}").getrandbits(63)],
        required_policy_version=version,
    )
    return sorted(completions, key=lambda each: each.completion_index)


def _parts(samples: int, most: int) -> Iterator[int]:
    """How many to draw in each call."""
    for begin in range(0, samples, most):
        yield min(most, samples - begin)
