"""A caller in a process of its own, whose clock may jump: makes calls until its input ends, then prints its account."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress

from palate.client import AsyncRewardClient
from tests.checks.faults.accounting import Ledger
from tests.checks.faults.callers import TEXTS, score, scores_of


async def main(target: str) -> None:
    """Says "ready" after the first answer."""
    ledger, right = Ledger(), await scores_of(target)
    print("ready", flush=True)
    over = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    async with AsyncRewardClient(target) as client:
        while not over.done():
            await score(client, ledger, TEXTS[ledger.made % len(TEXTS)], right, 10.0)
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(over), 0.02)
    print(json.dumps([ledger.made, ledger.ended, ledger.wrong, ledger.latest, ledger.causes]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
