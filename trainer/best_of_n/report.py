"""What best of n gives as a table for people, JSON for programs, and one HTML page with the curves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Printed

from palate.report.figures import Axis, Figure, scatter
from palate.report.page import Section, Table, write_page
from trainer.best_of_n.findings import Excluded, Findings, Way
from trainer.overoptimisation.gao import FitWithIntervals
from trainer.overoptimisation.told import (
    NO_REWARD_MODEL_CAN,
    SHARED_MISTAKES,
    fits_table,
    gains_figure,
    interval_told,
    length_told,
)

JSON_FILE, HTML_FILE = "best-of-n.json", "best-of-n.html"
_PROXY, _GOLD = "proxy (what chooses)", "gold (what it is worth)"


@dataclass(frozen=True, slots=True)
class Report:
    """What was asked of whom, and what was found."""

    conditions: Mapping[str, Any]
    findings: Findings


def write_report(out: Path, report: Report) -> None:
    """Writes best-of-n.json and best-of-n.html into a folder."""
    text = json.dumps(as_json(report), indent=2, ensure_ascii=False, allow_nan=False)
    (out / JSON_FILE).write_text(text + "\n", encoding="utf-8")
    sections = [section for way in report.findings.ways for section in _sections(report.findings, way)]
    sections += [_excluded(report.findings.excluded), Section("What this can say, and what not", _LIMITS)]
    write_page(out / HTML_FILE, "Best of n: proxy and gold", _lead(report), sections)


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain values; infinity, where nothing turns, is null."""
    document: dict[str, Any] = _finite({"conditions": dict(report.conditions), **asdict(report.findings)})
    return document


def print_report(report: Report, console: Console) -> None:
    """Prints the curves of every way to choose, their fits, and what stands beside them."""
    findings = report.findings
    console.print(_lead(report), markup=False, soft_wrap=True)
    for way in findings.ways:
        _print(_curve(findings, way), console)
    _print(_fits(findings), console)
    for line in (*_remarks(findings), *_told(findings.excluded)):
        console.print(line, markup=False, soft_wrap=True)


def _print(table: Table, console: Console) -> None:
    printed = Printed(*table.header, title=escape(table.caption))
    for row in table.rows:
        printed.add_row(*map(escape, row))
    console.print(printed)


def _lead(report: Report) -> str:
    findings, asked = report.findings, report.conditions
    gold = asked["gold"].get("function") or _model(asked["gold"])
    return (
        f"{asked['policy']['model']}, chosen from by {_model(asked['proxy'])}, worth what {gold} says: "
        f"{findings.completions} completions of {findings.prompts} prompts in {findings.groups} groups"
    )


def _model(identity: Mapping[str, Any]) -> str:
    return f"{identity['model']} ({identity['revision'][:12]})"


def _curve(findings: Findings, way: Way) -> Table:
    spread = ["-"] * len(findings.sizes) if way.disagreement is None else [f"{each:.3g}" for each in way.disagreement]
    columns = (
        map(str, findings.sizes),
        (f"{math.sqrt(kl):.2f}" for kl in findings.kl),
        map(interval_told, way.proxy),
        map(interval_told, way.gold),
        spread,
    )
    header = ("n", "√KL", "gain in proxy", "gain in gold", "disagreement")
    caption = f"{way.name}: gains over n = 1, 95 % intervals of a bootstrap over groups of prompts"
    return Table(caption, header, list(zip(*columns, strict=True)))


def _fits(findings: Findings) -> Table:
    fits: dict[str, FitWithIntervals] = {}
    for way in findings.ways:
        fits |= {f"{way.name}: proxy": way.proxy_fit, f"{way.name}: gold": way.gold_fit}
    return fits_table(fits, "groups of prompts")


def _sections(findings: Findings, way: Way) -> Iterator[Section]:
    d = np.sqrt(findings.kl)
    gains = {_PROXY: way.proxy, _GOLD: way.gold}
    points = {name: (d, np.array([each.value for each in gain])) for name, gain in gains.items()}
    fits = {_PROXY: way.proxy_fit, _GOLD: way.gold_fit}
    figures = [gains_figure("gain over n = 1, against √KL", points, fits), *_disagreement(d.tolist(), way)]
    tables = [fits_table(fits, "groups of prompts"), _curve(findings, way)]
    yield Section(f"Chosen by: {way.name}", "\n\n".join(_of_way(findings, way)), tables, figures)


def _disagreement(d: Sequence[float], way: Way) -> list[Figure]:
    if way.disagreement is None:
        return []
    points = {"standard deviation over members": (d, way.disagreement)}
    return [
        scatter("how far the ensemble disagrees on what is chosen", Axis("√KL, √nats", "unit of the score"), points)
    ]


def _remarks(findings: Findings) -> Iterator[str]:
    for way in findings.ways:
        yield from (f"{way.name}: {line}" for line in _of_way(findings, way))


def _of_way(findings: Findings, way: Way) -> Iterator[str]:
    """Where gold is highest, what its form says of the rest, and what length explains."""
    best = max(range(len(findings.sizes)), key=lambda place: way.gold[place].value)
    yield f"of the sizes that were measured gold is highest at n = {findings.sizes[best]}"
    turn, far = way.gold_fit.turning_point, math.sqrt(findings.kl[-1])
    if turn.value > far:
        yield f"up to √KL = {far:.2f}, as far as was measured, the form fitted to gold does not turn; beyond is a guess"
    proxy, gold = length_told(way.proxy_by_length, way.proxy[-1]), length_told(way.gold_by_length, way.gold[-1])
    yield f"from any completion to the best of {findings.sizes[-1]} the proxy {proxy}"
    yield f"over the same, gold {gold}"


def _excluded(excluded: Excluded) -> Section:
    return Section("What is not in it", "\n\n".join(_told(excluded)) or "Every completion has both scores.")


def _told(excluded: Excluded) -> Iterator[str]:
    if excluded.refused:
        yield f"{excluded.refused} prompts are left out: the policy does not take them"
    if excluded.failed:
        yield (
            f"{excluded.failed} prompts are left out for now: the policy failed on them, or was late, why stands in "
            "drawn.jsonl; the same command asks for them again"
        )
    if excluded.too_few:
        yield f"{excluded.too_few} prompts are left out: fewer than half of their completions have both scores"
    for name in ("proxy", "gold"):
        if codes := getattr(excluded, name):
            told = ", ".join(f"{count} × {code}" for code, count in codes.items())
            yield f"completions without a score of {name}, left out: {told}; why stands in drawn.jsonl"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


_LIMITS = f"""Each n is estimated from all completions of a prompt at once: the expected value of the one that the
proxy likes best among n drawn without replacement, which has no bias (Nakano et al. 2021). d = √KL is that of best of n
to the policy, exact where no two completions are equal and an upper bound elsewhere. R(d) = d (α − β d) is the form
that Gao et al. 2022 found for best of n; where the proxy goes on rising and gold turns, more choosing buys the proxy's
mistakes.

What this can warn of: a proxy whose favourites are not better, before anything is trained against it; one that pays for
length; one whose members disagree the more, the more is asked of them. What it cannot: {SHARED_MISTAKES}; and what a
policy finds that learns, since best of n chooses among what this policy says already, at a KL of a few nats, and PPO
goes further. The intervals are over prompts like these; other prompts are another question. Where completions are left
out, the estimates are of those that have both scores, and what fails is often what is long.

{NO_REWARD_MODEL_CAN}"""
