"""The card of a policy audit: one HTML file with the table, plots, and an example of everything that has grown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from palate.audit.policy.behaviours import Unit
from palate.audit.policy.changes import LEAST_SHARE, LEAST_WORDS
from palate.audit.policy.findings import Exchange, Finding
from palate.audit.policy.show import PolicyAudit, cells, header_of, lead, remarks
from palate.audit.statistics import ALPHA
from palate.report.figures import Axis, Figure, intervals
from palate.report.page import Section, Table, write_page

_LONGEST = 1000
"""Characters of a text that are shown."""


def write_policy_card(path: Path, audit: PolicyAudit) -> None:
    """Writes the card."""
    sections = [policy_section(audit, "Behaviours"), *_examples(audit.findings), Section("How to read this", _METHOD)]
    write_page(path, f"What {audit.after.model} says", lead(audit), sections)


def policy_section(audit: PolicyAudit, title: str) -> Section:
    """Table and plots, also for a report of something larger."""
    compared = audit.before is not None
    rows = [(*cells(each), each.fault) for each in audit.findings]
    table = Table("", (*header_of(compared=compared), "the fault: it ..."), rows)
    plot = _plot(audit)
    return Section(title, "\n\n".join(remarks(audit.findings)), [table], [plot] if plot else [])


def _plot(audit: PolicyAudit) -> Figure | None:
    """Changes of shares, or the shares themselves."""
    chosen = [each for each in audit.findings if each.unit is Unit.SHARE]
    compared = audit.before is not None
    found = {each.name: each.change if compared else each.after for each in chosen}
    shown = {name: (each.low, each.value, each.high) for name, each in found.items() if each is not None}
    if not shown:
        return None
    caption = "change of the share of answers, 95 %" if compared else "share of the answers, 95 %"
    return intervals(caption, Axis("share", ""), shown, ("nothing", 0.0))


def _examples(findings: Sequence[Finding]) -> list[Section]:
    tables = [
        Table(f"{each.name}: where it shows", ("question", "before", "after"), list(map(_row, each.example)))
        for each in findings
        if each.example is not None
    ]
    return [Section("Examples", tables=tables)] if tables else []


def _row(exchange: Exchange) -> tuple[str, str, str]:
    said = ("-" if exchange.before is None else exchange.before, exchange.after)
    return "\n\n".join(exchange.asked)[:_LONGEST], *(text[:_LONGEST] for text in said)  # type: ignore[return-value]


_METHOD = f"""Both policies answer the same questions with the same seeds. Each answer is read by rules: the words of
refusals, hedges, praise and giving in; for opinions and facts, which of two known answers it shares more words with.
An answer that shares words with neither cannot be read and does not count. Rules err: they see what is said in their
words.

A change is flagged where an exact sign test over the trials that differ (for shares, McNemar's), adjusted for all
behaviours together (Holm), gives p < {ALPHA:g}, and the share has grown by {LEAST_SHARE:.0%} or the words by
{LEAST_WORDS:.0%} or more. Intervals are of one behaviour alone. What is not flagged was not shown to be worse; that is
no proof that it is not."""
