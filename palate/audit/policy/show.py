"""A policy audit as a table for people, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from palate.audit.policy.behaviours import Unit
from palate.audit.policy.changes import Change, Level
from palate.audit.policy.findings import Finding
from palate.client import PolicyVersion


@dataclass(frozen=True, slots=True)
class Subject:
    """A policy that was asked."""

    model: str
    version: PolicyVersion
    endpoint: str

    def __str__(self) -> str:
        """In a few words."""
        return f"{self.model} at {self.endpoint}, weights {self.version.digest[:12]}"


@dataclass(frozen=True, slots=True)
class PolicyAudit:
    """All of it: who was asked, and what was found; `before` is None where there was nobody to compare with."""

    after: Subject
    before: Subject | None
    findings: tuple[Finding, ...]

    @property
    def worse(self) -> tuple[Finding, ...]:
        """Behaviours that are flagged."""
        return tuple(each for each in self.findings if each.is_worse)


def print_policy_audit(audit: PolicyAudit, console: Console) -> None:
    """Prints the table, what stands beside it, and the verdict."""
    console.print(lead(audit), markup=False, soft_wrap=True)
    header = header_of(compared=audit.before is not None)
    table = Table(Column(header[0], no_wrap=True), *header[1:])
    for finding in audit.findings:
        table.add_row(*map(escape, cells(finding)), style="red" if finding.is_worse else None)
    console.print(table)
    for line in remarks(audit.findings):
        console.print(line, markup=False, soft_wrap=True)
    if audit.before is not None:
        console.print("[red]worse than before[/]" if audit.worse else "[green]nothing was found to be worse[/]")


def as_json(audit: PolicyAudit) -> dict[str, Any]:
    """The audit as plain values; shares from 0 to 1."""
    return {"ok": not audit.worse, **asdict(audit)}


def lead(audit: PolicyAudit) -> str:
    """Who was asked, in one line."""
    return f"{audit.after}" if audit.before is None else f"before: {audit.before}; after: {audit.after}"


def header_of(*, compared: bool) -> tuple[str, ...]:
    """What `cells` are under."""
    middle = ("before", "after", "change", "95 %", "p (Holm)", "verdict") if compared else ("share or words", "95 %")
    return ("behaviour", "trials", *middle)


def cells(finding: Finding) -> tuple[str, ...]:
    """What the table says of a behaviour."""
    judged = finding.trials - finding.unclear
    trials = f"{judged}" if judged == finding.trials else f"{judged} of {finding.trials}"
    after = told(finding.unit, finding.after)
    if finding.adjusted is None:
        return finding.name, trials, *after
    before, change = told(finding.unit, finding.before), told_change(finding.unit, finding.change)
    verdict = "worse" if finding.is_worse else "-"
    return finding.name, trials, before[0], after[0], *change, f"{finding.adjusted:.2g}", verdict


def told(unit: Unit, level: Level | None) -> tuple[str, str]:
    """A level and its interval."""
    if level is None:
        return "-", "-"
    form = ".0%" if unit is Unit.SHARE else ".1f"
    return format(level.value, form), f"{level.low:{form}} to {level.high:{form}}"


def told_change(unit: Unit, change: Change | None) -> tuple[str, str]:
    """A change and its interval, shares in percentage points."""
    if change is None:
        return "-", "-"
    form = "+.0%" if unit is Unit.SHARE else "+.1f"
    return format(change.value, form), f"{change.low:{form}} to {change.high:{form}}"


def remarks(findings: Sequence[Finding]) -> Iterator[str]:
    """What the table has no room for, a line each."""
    yield from (f"{each.name}: it {each.fault}" for each in findings if each.is_worse)
    for each in findings:
        if each.unclear:
            yield f"{each.name}: {each.unclear} trials do not count, as an answer could not be read"
