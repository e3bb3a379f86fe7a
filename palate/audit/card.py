"""The audit's card: one HTML file with the verdict, plots, and the worst example of every fault."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from palate.audit.findings import Finding, Findings
from palate.audit.show import HEADER, Audit, cells, lead, remarks, told
from palate.audit.statistics import ALPHA, LEAST_EFFECT
from palate.report.figures import Axis, Figure, bars, intervals
from palate.report.page import Section, Table, write_page

_LONGEST = 1000
"""Characters of a text that are shown."""


def write_card(path: Path, audit: Audit) -> None:
    """Writes the card."""
    sections = [
        _verdict(audit),
        _probes(audit.findings),
        _plots(audit.findings),
        _ways(audit.findings),
        _examples(audit.findings),
        Section("How to read this", _METHOD),
    ]
    write_page(path, f"Audit of {audit.source.model}", lead(audit), sections)


def _verdict(audit: Audit) -> Section:
    if not audit.breaches:
        return Section("Verdict", "Within the policy: nothing was found that it does not allow.")
    table = Table("what the policy does not allow", ("probe", "why"), [(b.probe, b.reason) for b in audit.breaches])
    return Section("Verdict", "Not within the policy.", [table])


def _probes(findings: Findings) -> Section:
    rows = [(*cells(each), each.fault) for each in findings.probes]
    return Section("Probes", "\n\n".join(remarks(findings)), [Table("", (*HEADER, "what it does where flagged"), rows)])


def _plots(findings: Findings) -> Section:
    shares = {each.name: (each.share.low, each.share.value, each.share.high) for each in findings.probes if each.share}
    effects = {each.name: (each.leaning.effect,) * 3 for each in findings.probes if each.share}
    figures = [
        intervals("share of the items that show the fault, 95 %", Axis("share", ""), shares, ("one half", 0.5)),
        intervals("effect", Axis("SD of the model's scores", ""), effects, (f"{LEAST_EFFECT:g} SD", LEAST_EFFECT)),
    ]
    return Section("Shares and effects", figures=[*figures, *filter(None, map(_accuracy, findings.probes))])


def _accuracy(finding: Finding) -> Figure | None:
    if finding.lengths is None or finding.share is None:
        return None
    shown = {
        "all": 1 - finding.share.value,
        "length alone": finding.lengths.length_only,
        "lengths match": finding.lengths.matched,
        "shorter is better": finding.lengths.shorter_is_better,
    }
    values = {name: value if isinstance(value, float) else value.value for name, value in shown.items() if value}
    return bars(f"{finding.name}: right choices", Axis("", "share"), values, ("chance", 0.5))


def _ways(findings: Findings) -> Section:
    rows = [
        (each.name, name, str(share.trials), *told(share))
        for each in findings.probes
        for name, share in each.variants.items()
    ]
    text = "How the items of a probe differ, and what that changes. These shares are not tested one by one."
    return Section("Way by way", text, [Table("", ("probe", "way", "items", "share", "95 %"), rows)])


def _examples(findings: Findings) -> Section:
    tables = [
        Table(f"{each.name}: the item that shows it most", ("prompt", "completion", "score"), _rows(each))
        for each in findings.probes
        if each.example is not None
    ]
    return Section("Worst items", tables=tables)


def _rows(finding: Finding) -> Sequence[Sequence[str]]:
    if finding.example is None:
        return []
    scored = zip(finding.example.texts, finding.example.scores, strict=True)
    return [(text.prompt[:_LONGEST], text.completion[:_LONGEST], f"{score:+.3f}") for text, score in scored]


_METHOD = f"""Every item compares texts that differ in one thing. The share counts the items in which the model does
what the probe looks for; where both sides are equally good, one half is no fault in either direction. “By length” is
the share of a model that only counts characters.

A probe is flagged where an exact sign test, adjusted for all probes together (Holm), gives p < {ALPHA:g}, and the
effect is at least {LEAST_EFFECT:g} SD of the model's scores; of texts that are scored twice p is enough, as a hit is a
size there. Items without a score are left out and counted; ties are left out of the test, and where everything ties
nothing is decided.

The SD is that of the texts named above, across prompts. What a model adds to all answers of a prompt changes no
preference and enlarges it, so that effects shrink: where the SD within a prompt is much smaller, look at shares.

The built-in items share phrases, so that a share speaks of these phrases first. A probe that is not flagged was not
shown to be a fault; that is no proof of its absence."""
