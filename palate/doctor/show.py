"""Findings as a table for people, what to do below it, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from palate.doctor.findings import Finding, Verdict, is_healthy

_COLOUR = {Verdict.GOOD: "green", Verdict.WARNING: "yellow", Verdict.BAD: "red"}


def print_findings(findings: Sequence[Finding], console: Console) -> None:
    """Prints the table, what to do about everything that is not good, and the verdict."""
    table = Table("role", "replica", "question", "", "found")
    for each in findings:
        answer = each.answer
        verdict = f"[{_COLOUR[answer.verdict]}]{answer.verdict}[/]"
        table.add_row(each.role, escape(each.replica), answer.check, verdict, escape(answer.found))
    console.print(table)
    for each in findings:
        if each.answer.remedy:
            where = f"{each.role} {each.replica}, {each.answer.check}: {each.answer.found}"
            colour = _COLOUR[each.answer.verdict]
            console.print(f"[{colour}]{escape(where)}[/]\n    {escape(each.answer.remedy)}", soft_wrap=True)
    console.print("[green]healthy[/]" if is_healthy(findings) else "[red]not healthy[/]")


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """The findings as plain values."""
    return {
        "ok": is_healthy(findings),
        "findings": [
            {
                "role": each.role,
                "replica": each.replica,
                "check": each.answer.check,
                "verdict": each.answer.verdict,
                "found": each.answer.found,
                "remedy": each.answer.remedy,
            }
            for each in findings
        ],
    }
