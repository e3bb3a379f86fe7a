"""Engines that fail: on one item, or for want of memory."""

from __future__ import annotations

import asyncio
import os
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from palate.client import (
    AsyncPolicyClient,
    AsyncRewardClient,
    Failed,
    InternalError,
    ItemErrorCode,
    Scored,
    ScoreReply,
    TokenChunk,
)
from tests.checks.faults import faulty_policy, faulty_reward
from tests.checks.faults.accounting import Fate
from tests.checks.faults.callers import (
    ONE_TRY,
    PROMPT,
    SAMPLING,
    TEXTS,
    answers,
    generating,
    more,
    score,
    scores_of,
    scoring,
    tokens_of,
)
from tests.checks.faults.case import Case, Report
from tests.checks.faults.servers import FAULTY_POLICY, FAULTY_REWARD, policy_server, reward_server
from tests.checks.service import Service

_POISON = "This is the one that no engine survives, and it is longer than all the others are."
_SPARE_BYTES = 256 * 2**20
_ROW_BYTES = 32 * 2**20


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """For processes that are started now."""
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]


async def poisoned(folder: Path, report: Report) -> None:
    """A poisoned item between sixty-three others of its call, and beside those of other callers."""
    async with reward_server(folder, name="calm") as calm:
        right = await scores_of(calm.target)
        async with AsyncRewardClient(calm.target) as client:
            length = len((await client.explain(PROMPT, _POISON)).token_ids)
    with environment(**{faulty_reward.POISON_TOKENS: str(length)}):
        async with reward_server(folder, "--min-batch-seconds", "0.002", program=FAULTY_REWARD) as reward:
            await _beside_others(reward, right, report)
            runs = reward.log.read_text().count("the engine failed on a batch")
            report.facts["runs that failed"] = str(runs)


async def _beside_others(reward: Service, right: dict[str, float], report: Report) -> None:
    others, mixed = report.ledger("Score beside it"), report.ledger("Score with it")
    items: Counter[str] = Counter()

    def check(reply: ScoreReply) -> str | None:
        items.update(type(result).__name__ for result in reply.results)
        poisoned, *rest = reply.results
        scores = [result.score for result in rest if isinstance(result, Scored)]
        if scores != [right[text] for text in TEXTS[1:]]:
            return f"{len(scores)} of {len(rest)} have their score"
        return None if isinstance(poisoned, Failed) and poisoned.code is ItemErrorCode.FAILED else str(poisoned)

    async with scoring(reward.target, others, right, seconds=60.0), AsyncRewardClient(reward.target) as client:
        for _ in range(20):
            call = client.score([PROMPT] * len(TEXTS), [_POISON, *TEXTS[1:]], timeout=60)
            await mixed.enter(call, 60, check)
        await more(others, 50)
    report.facts["items"] = ", ".join(f"{count} {name}" for name, count in items.items())
    for ledger in (others, mixed):
        report.expect(ledger.ended[Fate.ANSWERED] == ledger.made, f"callers were not answered: {ledger.told()}")


async def poisoned_completion(folder: Path, report: Report) -> None:
    """A completion on which the step fails, between sixty-three of its call, and beside those of other callers."""
    async with policy_server(folder, name="calm") as calm, AsyncPolicyClient(calm.target) as client:
        right = await tokens_of(calm.target)
        (alone,) = [each async for each in client.generate([_POISON], sampling=SAMPLING)]
    with environment(**{faulty_policy.POISON_TOKENS: str(len(alone.prompt_token_ids))}):
        async with policy_server(folder, "--min-step-seconds", "0.002", program=FAULTY_POLICY) as policy:
            await _drawn_beside_others(policy, right, report)
            log = policy.log.read_text()
            report.facts["steps that failed"] = str(log.count("the engine failed on a step"))
            report.expect(_POISON not in log, "the log has the caller's text")


async def _drawn_beside_others(policy: Service, right: dict[int, tuple[int, ...]], report: Report) -> None:
    others, mixed = report.ledger("Generate beside it"), report.ledger("Generate with it")
    completions: Counter[str] = Counter()

    def check(reply: tuple[dict[int, tuple[int, ...]], dict[int, list[int]], str]) -> str | None:
        drawn, chunks, error = reply
        completions.update(drawn=len(drawn), failed=len(TEXTS) - len(drawn))
        if drawn != {place: right[place % len(right)] for place in range(1, len(TEXTS))}:
            return f"{len(drawn)} of {len(TEXTS) - 1} completions, or other ones"
        if {place: tuple(ids) for place, ids in chunks.items() if place} != drawn:
            return "the chunks of a completion are not its tokens"
        told = chunks.get(0, []) == list(right[0][: faulty_policy.DRAWN])
        return (
            None
            if told and error.startswith("INTERNAL: ") and "completion 0 of prompt 0;" in error
            else f"{chunks.get(0)}, {error}"
        )

    async with generating(policy.target, others, right, seconds=60.0), AsyncPolicyClient(policy.target) as client:
        for _ in range(20):
            await mixed.enter(_streamed(client, [_POISON, *TEXTS[1:]], len(right)), 60, check)
        await more(others, 50)
    report.facts["completions"] = ", ".join(f"{count} {name}" for name, count in completions.items())
    for ledger in (others, mixed):
        report.expect(ledger.ended[Fate.ANSWERED] == ledger.made, f"callers were not answered: {ledger.told()}")


async def _streamed(
    client: AsyncPolicyClient, prompts: list[str], seeds: int
) -> tuple[dict[int, tuple[int, ...]], dict[int, list[int]], str]:
    """What came of each prompt, as completions and as chunks, and the error at the end."""
    drawn: dict[int, tuple[int, ...]] = {}
    chunks: dict[int, list[int]] = {}
    stream = client.generate_tokens(
        prompts, sampling=SAMPLING, seeds=[place % seeds for place in range(len(prompts))], timeout=60
    )
    try:
        async for event in stream:
            if isinstance(event, TokenChunk):
                chunks.setdefault(event.prompt_index, []).extend(event.token_ids)
            else:
                drawn[event.prompt_index] = tuple(event.token_ids)
    except InternalError as error:
        return drawn, chunks, f"{error.code.name}: {error}"
    return drawn, chunks, "no error"


async def out_of_memory(folder: Path, report: Report) -> None:
    """Batches that need more than the process may have: the limit is set when the model is loaded."""
    with environment(**{faulty_reward.ROW_BYTES: str(_ROW_BYTES)}):
        async with reward_server(folder, "--min-batch-seconds", "0.05", program=FAULTY_REWARD) as reward:
            right = await scores_of(reward.target)
            taken = int(Path(f"/proc/{reward.pid}/statm").read_text().split()[0]) * resource.getpagesize()
            limit = taken + _SPARE_BYTES
            resource.prlimit(reward.pid, resource.RLIMIT_AS, (limit, limit))
            ledger = report.ledger("Score")
            async with AsyncRewardClient(reward.target, options=ONE_TRY) as client:
                for _ in range(10):
                    await asyncio.gather(*(score(client, ledger, text, right, 60.0) for text in TEXTS))
            report.facts["runs that failed"] = str(reward.log.read_text().count("MemoryError"))
            report.expect(report.facts["runs that failed"] != "0", "memory was not short")
            report.expect(ledger.ended[Fate.ANSWERED] == ledger.made, f"callers were not answered: {ledger.told()}")
            report.expect(await answers(reward.target, right), "a new caller is not answered")
            report.expect(not reward.ended, "the server ended")


CASES = (
    Case("poison", "one item that makes the engine raise: it fails alone, all others have their score", poisoned),
    Case(
        "poisoned-completion",
        "one completion on which the step fails: it fails alone, all others draw what their seeds do",
        poisoned_completion,
    ),
    Case("memory", "batches too large for the memory: they are computed in parts, and every caller is answered",
         out_of_memory),
)  # fmt: skip
