"""An audit as a table for people, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from palate.audit.findings import Finding, Findings
from palate.audit.gate import Breach
from palate.audit.lengths import Lengths
from palate.audit.scale import Scale, counted
from palate.audit.statistics import Share
from palate.audit.subject import Source

HEADER = ("probe", "items", "share", "95 %", "by length", "effect", "p (Holm)", "verdict")


@dataclass(frozen=True, slots=True)
class Audit:
    """All of it: what was asked, what was found, and what the policy says."""

    source: Source
    findings: Findings
    breaches: tuple[Breach, ...]


def print_audit(audit: Audit, console: Console) -> None:
    """Prints the table, what stands beside it, and the verdict."""
    console.print(lead(audit), markup=False, soft_wrap=True)
    table = Table(Column(HEADER[0], no_wrap=True), *HEADER[1:])
    for finding in audit.findings.probes:
        table.add_row(*map(escape, cells(finding)), style="red" if finding.is_flagged else None)
    console.print(table)
    for line in remarks(audit.findings):
        console.print(line, markup=False, soft_wrap=True)
    for breach in audit.breaches:
        console.print(f"[red]{escape(breach.probe)}[/]: {escape(breach.reason)}", soft_wrap=True)
    console.print("[red]not within the policy[/]" if audit.breaches else "[green]within the policy[/]")


def as_json(audit: Audit) -> dict[str, Any]:
    """The audit as plain values; effects in SD of the scores, shares from 0 to 1."""
    document = asdict(audit)
    for values, finding in zip(document["findings"]["probes"], audit.findings.probes, strict=True):
        values["excluded_share"] = finding.excluded_share
    document["findings"]["sd"] = audit.findings.sd
    document["findings"]["refuses_rightly"] = audit.findings.refuses_rightly
    return {"ok": not audit.breaches, **document}


def lead(audit: Audit) -> str:
    """What was audited, in one line."""
    source = audit.source
    revision = f", revision {source.revision[:12]}" if source.revision else ""
    engine = " ".join(part for part in (source.engine, source.dtype) if part)
    cuts = "" if source.tells_cuts else "; it does not say which texts were cut"
    return f"{source.model} at {source.endpoint}{revision} ({engine}); {_unit(audit.findings.scale)}{cuts}"


def cells(finding: Finding) -> tuple[str, ...]:
    """What the table says of a probe, under `HEADER`."""
    items = f"{finding.scored}" if finding.scored == finding.items else f"{finding.scored} of {finding.items}"
    by_length = "-" if finding.by_length is None else f"{finding.by_length:.0%}"
    share, interval = told(finding.share)
    effect = f"{finding.leaning.effect:+.2f}"
    verdict = "flagged" if finding.is_flagged else "-" if finding.leaning.decided else "undecided"
    return finding.name, items, share, interval, by_length, effect, f"{finding.adjusted:.2g}", verdict


def told(share: Share | None) -> tuple[str, str]:
    """A share and its interval in percent."""
    return ("-", "-") if share is None else (f"{share.value:.0%}", f"{share.low:.0%}–{share.high:.0%}")


def remarks(findings: Findings) -> Iterator[str]:
    """What the table has no room for, a line each."""
    yield from (f"{finding.name}: it {finding.fault}" for finding in findings.flagged)
    if _hides(findings.scale):
        yield (
            "scores differ more between prompts than within one, and no preference depends on the former: in this SD, "
            "which holds both, effects look small (docs/audit.md)"
        )
    for finding in findings.probes:
        if finding.lengths is not None and finding.share is not None:
            yield f"{finding.name}: {_about_lengths(finding.lengths, finding.share)}"
    if findings.refuses_rightly is not None:
        yield f"helps with harmless requests and declines harmful ones in {findings.refuses_rightly:.0%}, weighed alike"
    for finding in findings.probes:
        lost = {**finding.excluded, **finding.left_out}
        if lost:
            yield f"{finding.name}: not counted are {counted(lost)}"
        if finding.cut:
            yield f"{finding.name}: {finding.cut} of {finding.texts} texts were cut, and judged by what was left"
        if finding.leaning.ties:
            yield f"{finding.name}: {finding.leaning.ties} ties, which the test leaves out"


def _unit(scale: Scale) -> str:
    """One SD, on which texts it is told, and what of it is within prompts."""
    texts = f"{scale.texts} texts" + (f" of {', '.join(scale.of)}" if scale.of else "")
    within = "" if scale.within_prompts is None else f"; within a prompt {scale.within_prompts:.3g}"
    return f"one SD is {scale.sd:.3g} ({texts}{within})"


def _hides(scale: Scale) -> bool:
    """Whether more than half of the variance is between prompts."""
    return scale.within_prompts is not None and scale.within_prompts**2 < scale.sd**2 / 2


def _about_lengths(found: Lengths, wrong: Share) -> str:
    parts = {
        "length alone": found.length_only,
        "where lengths match": found.matched,
        "where the shorter is better": found.shorter_is_better,
    }
    beside = "; ".join(f"{name} {share.value:.0%} of {share.trials}" for name, share in parts.items() if share)
    return f"right in {1 - wrong.value:.0%} of {wrong.trials} pairs; {beside}"
