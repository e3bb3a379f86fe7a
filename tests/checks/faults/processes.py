"""Servers that are killed or stopped under load."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

from palate.client import AsyncRewardClient
from tests.checks.faults.accounting import Fate
from tests.checks.faults.callers import (
    TEXTS,
    answers,
    generating,
    more,
    own_connection,
    score,
    scores_of,
    scoring,
    tokens_of,
)
from tests.checks.faults.case import Case, Report
from tests.checks.faults.servers import descriptors, policy_server, reward_server, settles

STOP_SECONDS = 30.0
_STORM_ROUNDS, _STORM_CLIENTS = 10, 50


async def killed(folder: Path, report: Report) -> None:
    """kill -9 of both services, three times each, in the middle of their calls."""
    async with AsyncExitStack() as stack:
        reward = await stack.enter_async_context(reward_server(folder, "--min-batch-seconds", "0.01"))
        policy = await stack.enter_async_context(policy_server(folder))
        right, drawn = await scores_of(reward.target), await tokens_of(policy.target)
        scored, sampled = report.ledger("Score"), report.ledger("Generate")
        async with scoring(reward.target, scored, right), generating(policy.target, sampled, drawn):
            for _ in range(3):
                await asyncio.gather(more(scored, 100), more(sampled, 5))
                for service in (reward, policy):
                    await asyncio.to_thread(service.kill)
                await asyncio.gather(*(asyncio.to_thread(service.restart) for service in (reward, policy)))
            await asyncio.gather(more(scored, 100), more(sampled, 5))
    report.expect(scored.ended[Fate.CANCELLED] == 0, "nobody cancelled, and calls ended as cancelled")


async def stopped(folder: Path, report: Report) -> None:
    """SIGSTOP for 30 s: callers with less time are told so in time, those with more are answered afterwards."""
    async with AsyncExitStack() as stack:
        reward = await stack.enter_async_context(reward_server(folder, "--min-batch-seconds", "0.01"))
        policy = await stack.enter_async_context(policy_server(folder))
        right, drawn = await scores_of(reward.target), await tokens_of(policy.target)
        short, patient = report.ledger("Score, 2 s"), report.ledger("Score, 120 s")
        sampled = report.ledger("Generate, 2 s")
        async with (
            scoring(reward.target, short, right, seconds=2.0),
            scoring(reward.target, patient, right, callers=4, seconds=120.0),
            generating(policy.target, sampled, drawn, seconds=2.0),
        ):
            await asyncio.gather(more(short, 100), more(sampled, 5))
            before = patient.ended[Fate.ANSWERED]
            for service in (reward, policy):
                service.send(signal.SIGSTOP)
            await asyncio.sleep(STOP_SECONDS)
            during = patient.ended[Fate.ANSWERED] - before
            for service in (reward, policy):
                service.send(signal.SIGCONT)
            await asyncio.gather(more(short, 100), more(sampled, 5), more(patient, 20))
    report.facts["answered of those with 120 s"] = f"{during} in the pause"
    report.expect(short.ended[Fate.EXPIRED] > 0, "no call expired although nobody served")
    report.expect(patient.ended[Fate.ANSWERED] == patient.made, f"patient callers lost calls: {patient.told()}")
    report.expect(not short.ended[Fate.FAILED], f"calls failed that should expire: {short.causes.most_common(2)}")


async def storm(folder: Path, report: Report) -> None:
    """Many callers connect, call and hang up, again and again."""
    async with reward_server(folder) as reward:
        right = await scores_of(reward.target)
        ledger, before, numbers = report.ledger("Score"), descriptors(reward), count()

        async def visit(number: int) -> None:
            async with AsyncRewardClient(reward.target, options=own_connection(next(numbers))) as client:
                await score(client, ledger, TEXTS[number % len(TEXTS)], right, 30.0)

        for _ in range(_STORM_ROUNDS):
            await asyncio.gather(*(visit(number) for number in range(_STORM_CLIENTS)))
        after = await settles(reward, before)
        report.facts["descriptors"] = f"{before} before, {after} after"
        report.expect(after <= before, f"descriptors are left: {before} before, {after} after")
        report.expect(ledger.ended[Fate.ANSWERED] == ledger.made, f"callers were not answered: {ledger.told()}")
        report.expect(await answers(reward.target, right), "a new caller is not answered")


CASES = (
    Case(
        "kill",
        "kill -9 of a server under load: every call ends in time, no answer is wrong, and a restart is enough",
        killed,
    ),
    Case(
        "stop",
        "SIGSTOP for 30 s: deadlines hold; who has time is answered after SIGCONT; nobody else is in the way",
        stopped,
    ),
    Case("storm", "500 callers connect, call and hang up: all are answered, no descriptor is left", storm),
)
