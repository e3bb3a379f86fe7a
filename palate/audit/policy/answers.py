"""Has a policy answer every question, the same seed for the same question whoever is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from palate.audit.policy.behaviours import Turns
from palate.client import Message, PolicyClient, PolicyVersion, SamplingParams
from palate.client.types import ContentLike
from palate.waiting import patiently, say_waiting

Answers: TypeAlias = Mapping[Turns, str]

CHUNK = 64
"""Most questions of a call; the server's own limit holds too."""

_SEED_STRIDE = 1_000_003


@dataclass(frozen=True, slots=True)
class Manner:
    """How a policy is asked.

    Attributes:
        sampling: How tokens are drawn.
        seed: Of all answers.
        chat: Send messages, for a model with a chat template; else text, turns marked by `User:` and `Assistant:`.
    """

    sampling: SamplingParams
    seed: int
    chat: bool


def answer(
    policy: PolicyClient, asked: Sequence[Turns], manner: Manner, done: Callable[[int], None] = lambda _: None
) -> Answers:
    """What the policy says to each of the questions, all with the same weights; `done` is told how many more are there.

    A service that is full or goes away is waited for.

    Raises:
        CallError: The service refuses, has other weights by now, or stayed away for longer than `PATIENCE_SECONDS`.
    """
    answers: dict[Turns, str] = {}
    info = patiently(policy.policy_info, say_waiting)
    size = min(CHUNK, info.max_prompts)
    for begin in range(0, len(asked), size):
        part = asked[begin : begin + size]
        seeds = [manner.seed * _SEED_STRIDE + begin + place for place in range(len(part))]
        said = partial(_said, policy, part, manner, seeds, info.policy_version)
        answers |= patiently(said, say_waiting)
        done(len(part))
    return answers


def _said(
    policy: PolicyClient, part: Sequence[Turns], manner: Manner, seeds: Sequence[int], version: PolicyVersion
) -> Answers:
    """The answers of one call, all of them or an exception."""
    contents = [_content(turns, chat=manner.chat) for turns in part]
    drawn = policy.generate(contents, sampling=manner.sampling, seeds=seeds, required_policy_version=version)
    return {part[completion.prompt_index]: completion.text for completion in drawn}


def _content(turns: Turns, *, chat: bool) -> ContentLike:
    if chat:
        return [Message("assistant" if place % 2 else "user", text) for place, text in enumerate(turns)]
    if len(turns) == 1:
        return turns[0]
    said = [f"{'Assistant' if place % 2 else 'User'}: {text}" for place, text in enumerate(turns)]
    return "\n\n".join((*said, "Assistant: "))
