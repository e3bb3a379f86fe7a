"""The clock of the day jumps, at the server and at a caller: an hour ahead, a day back."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.checks.faults.accounting import Fate, Ledger
from tests.checks.faults.callers import answers, more, scores_of, scoring
from tests.checks.faults.case import Case, Report, Skipped
from tests.checks.faults.engines import environment
from tests.checks.faults.servers import reward_server

_LIBRARY = "/usr/lib/*/faketime/libfaketime.so.1"
_JUMPS = ("+3600", "-86400", "+0")
_SEEN_SECONDS = 1.5
"""libfaketime looks at its file once a second."""


def _library() -> Path:
    """Raises `Skipped` where there is none."""
    found = next(Path("/").glob(_LIBRARY.lstrip("/")), None)
    if found is None:
        raise Skipped("needs libfaketime (Debian: apt-get install libfaketime)")
    return found


async def jumps(folder: Path, report: Report) -> None:
    """Both clocks jump three times while calls are out; durations are counted by the clock that does not."""
    faked = {"LD_PRELOAD": str(_library()), "FAKETIME_CACHE_DURATION": "1", "DONT_FAKE_MONOTONIC": "1"}
    servers, callers = folder / "server-clock", folder / "caller-clock"
    for clock in (servers, callers):
        clock.write_text("+0")
    with environment(**faked, FAKETIME_TIMESTAMP_FILE=str(servers)):
        context = reward_server(folder, "--log-level", "DEBUG")
        reward = await context.__aenter__()
    try:
        right, ledger = await scores_of(reward.target), report.ledger("Score, the server's clock jumps")
        caller = await _caller(reward.target, {**faked, "FAKETIME_TIMESTAMP_FILE": str(callers)})
        async with scoring(reward.target, ledger, right, callers=8, seconds=10.0):
            for jump in _JUMPS:
                for clock in (servers, callers):
                    await more(ledger, 50)
                    await _jump(clock, jump)
            await more(ledger, 50)
        report.ledgers["Score, the caller's clock jumps"] = theirs = await asyncio.to_thread(_account, caller)
        for name, each in report.ledgers.items():
            lost = each.made - each.ended[Fate.ANSWERED]
            report.expect(not lost, f"{name}: {each.told()}, {each.causes.most_common(2)}")
        hours = {line[:13] for line in reward.log.read_text().splitlines() if "Score OK" in line}
        report.facts["hours of the server's log"] = ", ".join(sorted(hours))
        report.expect(len(hours) >= len(_JUMPS), "the server's clock did not jump")
        report.expect(theirs.made > 20, "the caller in its own process made no calls")
        report.expect(await answers(reward.target, right), "a new caller is not answered")
    finally:
        await context.__aexit__(None, None, None)


async def _jump(clock: Path, offset: str) -> None:
    """Sets a clock in one move and waits until it is seen: of half a file the clock would go back and forth."""
    draft = clock.with_suffix(".draft")
    draft.write_text(offset)
    draft.replace(clock)
    await asyncio.sleep(_SEEN_SECONDS)


async def _caller(target: str, variables: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.checks.faults.clock_caller", target]
    caller = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables}
    )
    assert caller.stdout is not None
    await asyncio.to_thread(caller.stdout.readline)
    return caller


def _account(caller: subprocess.Popen[str]) -> Ledger:
    """What it says once its input ends."""
    made, ended, wrong, latest, causes = json.loads(caller.communicate("", timeout=60)[0])
    return Ledger(made, Counter({Fate(fate): count for fate, count in ended.items()}), wrong, latest, Counter(causes))


CASES = (Case("clock", "the clock jumps an hour ahead and a day back: no call expires early or late", jumps),)
