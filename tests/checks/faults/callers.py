"""Callers of a reward or a policy server who know what the right answer is, and write down what they get."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from palate.client import AsyncPolicyClient, AsyncRewardClient, ChannelOptions, SamplingParams, Scored
from tests.checks.faults.accounting import Fate, Ledger

PROMPT = "Is this honest?"
TEXTS = tuple(f"Text {number} is honest." for number in range(64))
SAMPLING = SamplingParams(max_new_tokens=16, ignore_eos=True)
ONE_TRY = ChannelOptions(max_attempts=1)

_PAUSE = 0.005
"""Between a caller's calls: one who is refused at once must not spin."""


def own_connection(number: int, attempts: int = 1) -> ChannelOptions:
    """Options of a caller with a connection of his own: gRPC shares one among channels that are alike."""
    return ChannelOptions(max_attempts=attempts, retry_buffer_bytes=1_000_000 + number)


async def scores_of(target: str, options: ChannelOptions | None = None) -> dict[str, float]:
    """The right score of every text."""
    async with AsyncRewardClient(target, timeout=60, options=options) as client:
        return dict(zip(TEXTS, (await client.score([PROMPT] * len(TEXTS), TEXTS)).scores(), strict=True))


def wrong_score(text: str, right: Mapping[str, float], reply: Any) -> str | None:
    """What is wrong with the reply to one text."""
    result = reply.results[0]
    if isinstance(result, Scored) and result.score == right[text]:
        return None
    return f"{result} instead of {right[text]}"


def wrong_tokens(right: tuple[int, ...], got: tuple[int, ...]) -> str | None:
    """What is wrong with a completion."""
    return None if got == right else f"{got} instead of {right}"


async def score(
    client: AsyncRewardClient, ledger: Ledger, text: str, right: Mapping[str, float], seconds: float
) -> Fate:
    """One call."""
    call = client.score([PROMPT], [text], timeout=seconds)
    return await ledger.enter(call, seconds, partial(wrong_score, text, right))


@asynccontextmanager
async def scoring(
    target: str,
    ledger: Ledger,
    right: Mapping[str, float],
    *,
    callers: int = 16,
    seconds: float = 5.0,
    options: ChannelOptions | None = None,
) -> AsyncIterator[None]:
    """Callers of one connection who score text after text until the context ends."""
    over = asyncio.Event()
    async with AsyncRewardClient(target, options=options) as client:

        async def call(number: int) -> None:
            while not over.is_set():
                number += 1
                await score(client, ledger, TEXTS[number % len(TEXTS)], right, seconds)
                await asyncio.sleep(_PAUSE)

        tasks = [asyncio.create_task(call(number)) for number in range(callers)]
        try:
            yield
        finally:
            over.set()
            await asyncio.gather(*tasks)


async def generate(client: AsyncPolicyClient, seed: int, seconds: float) -> tuple[int, ...]:
    """The tokens that a seed draws."""
    replies = client.generate([PROMPT], sampling=SAMPLING, seeds=[seed], timeout=seconds)
    (completion,) = [each async for each in replies]
    return tuple(completion.token_ids)


async def tokens_of(target: str) -> dict[int, tuple[int, ...]]:
    """What sixteen seeds draw."""
    async with AsyncPolicyClient(target) as client:
        return {seed: await generate(client, seed, 60) for seed in range(16)}


@asynccontextmanager
async def generating(
    target: str, ledger: Ledger, right: Mapping[int, tuple[int, ...]], *, callers: int = 4, seconds: float = 5.0
) -> AsyncIterator[None]:
    """Callers who draw completions until the context ends; the same seed always draws the same."""
    over = asyncio.Event()
    async with AsyncPolicyClient(target) as client:

        async def call(number: int) -> None:
            while not over.is_set():
                number += 1
                seed = number % len(right)
                call = generate(client, seed, seconds)
                await ledger.enter(call, seconds, partial(wrong_tokens, right[seed]))
                await asyncio.sleep(_PAUSE)

        tasks = [asyncio.create_task(call(number)) for number in range(callers)]
        try:
            yield
        finally:
            over.set()
            await asyncio.gather(*tasks)


async def more(ledger: Ledger, count: int, fate: Fate = Fate.ANSWERED, seconds: float = 120.0) -> None:
    """Waits until so many more have ended so.

    Raises:
        TimeoutError: They have not.
    """
    aim = ledger.ended[fate] + count
    async with asyncio.timeout(seconds):
        while ledger.ended[fate] < aim:
            await asyncio.sleep(0.02)


async def answers(target: str, right: Mapping[str, float], options: ChannelOptions | None = None) -> bool:
    """Whether a new caller gets the right score."""
    ledger = Ledger()
    async with AsyncRewardClient(target, options=options) as client:
        return await score(client, ledger, TEXTS[0], right, 60.0) is Fate.ANSWERED and not ledger.wrong
