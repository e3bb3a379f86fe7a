"""A case of the fault suite: a promise, what was done to it, and what is to be seen of it."""

from __future__ import annotations

import asyncio
import tempfile
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from tests.checks.faults.accounting import Ledger
from tests.checks.faults.leftovers import left_since, present

SLACK_SECONDS = 10.0
"""How long after its deadline a call may end: other people use the machine, and may hold it for a while."""

_CASE_SECONDS = 600.0


class Skipped(Exception):
    """The case cannot be tried here; the message says what is missing."""


@dataclass
class Report:
    """What a case has seen.

    Attributes:
        ledgers: Calls, by what they are called.
        facts: Figures, by name.
        broken: Promises that were not kept; empty where all is well.
    """

    ledgers: dict[str, Ledger] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def ledger(self, name: str) -> Ledger:
        """A new account."""
        return self.ledgers.setdefault(name, Ledger())

    def expect(self, kept: bool, promise: str) -> None:
        """Writes a promise down that was not kept."""
        if not kept:
            self.broken.append(promise)

    def close(self) -> None:
        """What holds in every case: accounts are balanced, no answer is wrong, no call outlives its deadline."""
        for name, ledger in self.ledgers.items():
            self.expect(ledger.balanced, f"{name}: {ledger.told()} does not add up")
            self.expect(not ledger.wrong, f"{name}: {len(ledger.wrong)} wrong answers, e.g. {ledger.wrong[:1]}")
            self.expect(ledger.latest < SLACK_SECONDS, f"{name}: a call ended {ledger.latest:.1f} s after its deadline")


Play: TypeAlias = Callable[[Path, Report], Awaitable[None]]
"""Does it, in a folder of its own, and writes down what it sees."""


@dataclass(frozen=True, slots=True)
class Case:
    """A fault.

    Attributes:
        name: As --only takes it.
        promise: What holds all the same.
        play: How it is done.
    """

    name: str
    promise: str
    play: Play


def play(case: Case) -> Report:
    """Plays one case in a folder of its own, and looks whether anything is left of it."""
    report, before = Report(), present()
    with tempfile.TemporaryDirectory(prefix="palate-fault-") as folder:
        try:
            asyncio.run(asyncio.wait_for(case.play(Path(folder), report), _CASE_SECONDS))
        except Skipped as reason:
            report.facts["skipped"] = str(reason)
        except Exception as error:
            traceback.print_exc()
            report.broken.append(f"the case itself failed: {error!r}")
            report.broken += [
                f"{log.name}: {log.read_text(errors='replace')[-400:]}" for log in Path(folder).glob("*.log")
            ]
    report.close()
    if left := left_since(before):
        report.broken.append(f"left behind: {', '.join(sorted(left))}")
    return report
