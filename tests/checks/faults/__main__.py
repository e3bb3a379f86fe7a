"""Breaks what can break, and looks at what callers see of it: `python -m tests.checks.faults`.

Every case states its promise and shows the account: calls made = answered + refused + expired + cancelled + failed. No
case may leave a process or a file behind.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.checks.faults import clocks, connections, disks, engines, processes
from tests.checks.faults.case import Case, Report, play
from tests.checks.faults.leftovers import own_temporary_folder
from tests.checks.faults.servers import make_models

CASES = (*processes.CASES, *engines.CASES, *connections.CASES, *disks.CASES, *clocks.CASES)


def main() -> None:
    """Exits with 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=1, help="how often in a row")
    parser.add_argument("--only", nargs="*", choices=[case.name for case in CASES], help="these cases")
    parser.add_argument("--json", type=Path, help="where figures go")
    given = parser.parse_args()
    chosen = [case for case in CASES if not given.only or case.name in given.only]
    with own_temporary_folder("palate-faults-"):
        make_models()
        rounds = [{case.name: _told(case, number) for case in chosen} for number in range(1, given.times + 1)]
    table = Table("case", "promise", "account", "seen", "broken", title="faults", show_lines=True)
    for number, found in enumerate(rounds, 1):
        for case in chosen:
            table.add_row(f"{number}: {case.name}", case.promise, *_cells(found[case.name]))
    Console(width=180).print(table)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps([{n: _plain(r) for n, r in found.items()} for found in rounds], indent=1))
    sys.exit(any(report.broken for found in rounds for report in found.values()))


def _told(case: Case, number: int) -> Report:
    begin = time.monotonic()
    report = play(case)
    accounts = "; ".join(f"{name}: {ledger.told()}" for name, ledger in report.ledgers.items())
    verdict = "BROKEN" if report.broken else "skipped" if "skipped" in report.facts else "kept"
    print(f"{number} {case.name}: {verdict}, {time.monotonic() - begin:.0f} s; {accounts}; {report.facts}", flush=True)
    for each in report.broken:
        print(f"    {each}", flush=True)
    return report


def _plain(report: Report) -> dict[str, object]:
    """As JSON takes it; `asdict` makes a counter of pairs out of a counter."""
    ledgers = {
        str(name): {"made": ledger.made, "ended": dict(ledger.ended), "wrong": ledger.wrong, "latest": ledger.latest,
                    "causes": dict(ledger.causes)}
        for name, ledger in report.ledgers.items()
    }  # fmt: skip
    return {"ledgers": ledgers, "facts": report.facts, "broken": report.broken}


def _cells(report: Report) -> tuple[str, str, str]:
    accounts = "\n".join(f"{name}: {ledger.told()}" for name, ledger in report.ledgers.items())
    facts = "\n".join(f"{name}: {fact}" for name, fact in report.facts.items())
    return accounts, facts, "\n".join(report.broken) or "nothing"


if __name__ == "__main__":
    main()
