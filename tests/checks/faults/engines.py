"""Engines that fail: on one item, or for want of memory."""

from __future__ import annotations

import asyncio
import os
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from palate.client import AsyncRewardClient, Failed, ItemErrorCode, Scored, ScoreReply
from tests.checks.faults import faulty_reward
from tests.checks.faults.accounting import Fate
from tests.checks.faults.callers import ONE_TRY, PROMPT, TEXTS, answers, more, score, scores_of, scoring
from tests.checks.faults.case import Case, Report
from tests.checks.faults.servers import FAULTY_REWARD, reward_server
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
    Case("memory", "batches too large for the memory: they are computed in parts, and every caller is answered",
         out_of_memory),
)  # fmt: skip
