"""A report as a table for people, and as JSON for programs."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from palate.models.agreement import CLOSE, close_pairs
from palate.verify.findings import Finding, Measured
from palate.verify.run import Report
from palate.verify.subject import EngineChoice


def print_report(report: Report, console: Console) -> None:
    """Prints the table, what went wrong, and the verdict."""
    table = Table("server", "way", "max |Δ| (SD)", "allowed", "same bits", "flips", "Spearman", "verdict")
    for each in report.verified:
        for finding in each.findings:
            table.add_row(escape(_named(each.measured)), escape(finding.way), *_cells(finding))
    if report.verified:
        console.print(table)
    if report.reference is not None:
        console.print(_about(report, report.reference))
    for problem in report.problems:
        console.print(f"[red]{escape(problem.title)}[/]: {escape(problem.reason)}")
    console.print("[green]verified[/]" if report.is_good else "[red]not verified[/]")


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain values; deviations in standard deviations of the scores."""
    return {
        "ok": report.is_good,
        "texts": report.asked,
        "close_pairs": None if report.reference is None else close_pairs(report.reference.alone.scores),
        "reference": None if report.reference is None else report.reference.title,
        "servers": [_server(each.measured, each.findings) for each in report.verified],
        "problems": [{"server": problem.title, "reason": problem.reason} for problem in report.problems],
    }


def _named(measured: Measured) -> str:
    kind = f"{measured.engine} {measured.dtype}{', strict' if measured.is_strict else ''}"
    is_plain = measured.title.partition(",")[0] in list(EngineChoice)
    return kind if is_plain else f"{measured.title} ({kind})"


def _cells(finding: Finding) -> tuple[str, ...]:
    found = finding.agreement
    return (
        "0" if found.deviation == 0 else f"{found.deviation:.1e}",
        f"{finding.allowed:g}",
        "yes" if found.is_bitwise else "no",
        str(found.flips),
        "-" if finding.spearman is None else f"{finding.spearman:.4f}",
        "[green]good[/]" if finding.is_good else "[red]beyond[/]",
    )


def _about(report: Report, reference: Measured) -> str:
    scores, untaken = reference.alone.scores, reference.alone.untaken
    dropped = f"; {len(untaken)} the model's template does not take" if untaken else ""
    return (
        f"{report.asked} texts{dropped}; one SD is {scores.std():.3g}; {close_pairs(scores)} pairs are closer than "
        f"{CLOSE:g} SD; revision {escape(reference.revision)}"
    )


def _server(measured: Measured, findings: tuple[Finding, ...]) -> dict[str, Any]:
    return {
        "server": measured.title,
        "engine": measured.engine,
        "dtype": measured.dtype,
        "revision": measured.revision,
        "strict": measured.is_strict,
        "untaken": {str(place): reason for place, reason in measured.alone.untaken.items()},
        "ways": [_way(finding) for finding in findings],
    }


def _way(finding: Finding) -> dict[str, Any]:
    found = finding.agreement
    return {
        "way": finding.way,
        "deviation": found.deviation,
        "allowed": finding.allowed,
        "bitwise": found.is_bitwise,
        "flips": found.flips,
        "spearman": finding.spearman,
        "least_spearman": finding.least_spearman,
        "ok": finding.is_good,
    }
