"""A report of scoring again, as tables for people and as JSON for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from palate.rescore.compare import Correlation, Flips
from palate.rescore.report import Report, StepFindings

_SHOWN_STEPS = 20
_SHOWN_CHARACTERS = 400


def print_report(report: Report, console: Console) -> None:
    """Prints what was found; long runs are shown by some of their steps."""
    console.print(_lead(report), markup=False, soft_wrap=True)
    steps = Table("step", "scored", "failed", "Spearman", "95 %", "pairs that flip", title="step by step")
    for each in _some(report.steps):
        steps.add_row(str(each.step), str(each.scored), str(each.failed), *_told(each.spearman), _flipped(each.pairs))
    console.print(steps)
    if report.disagreements:
        console.print(_disagreements(report))


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain values, with every step and whole texts."""
    document = asdict(report) | {"run": str(report.run)}
    for values, pairs in (
        (document["step_pairs"], report.step_pairs),
        (document["prompt_pairs"], report.prompt_pairs),
        *((step["pairs"], each.pairs) for step, each in zip(document["steps"], report.steps, strict=True)),
    ):
        values["share"] = pairs.share
    return document


def _lead(report: Report) -> str:
    compared = f"its reward {report.component}" if report.component else "its score"
    failed = "".join(f", {count} × {code}" for code, count in report.failed.items()) or ", none failed"
    value, interval = _told(report.spearman)
    winners = report.winners
    return "\n".join(
        (
            f"{report.run}: {compared} beside {report.after.model} ({report.after.revision[:12]})",
            f"{report.scored} rollouts have both scores{failed}",
            f"rank correlation {value} ({interval}, rollouts taken for independent)",
            f"pairs of a step that flip: {_flipped(report.step_pairs)}",
            f"pairs of a prompt that flip: {_flipped(report.prompt_pairs)}",
            f"prompts whose best completion would be another: {winners.changed} of {winners.groups}",
        )
    )


def _disagreements(report: Report) -> Table:
    table = Table("step", "prompt", "completion", "before", "after", title="ranked most differently", show_lines=True)
    for each in report.disagreements:
        # As Text: a completion may hold what rich would take for markup.
        texts = (Text(text[:_SHOWN_CHARACTERS]) for text in (each.prompt, each.completion))
        before = f"{each.before:+.3f}\n{100 * each.percentile_before:.0f} %"
        table.add_row(str(each.step), *texts, before, f"{each.after:+.3f}\n{100 * each.percentile_after:.0f} %")
    return table


def _some(steps: tuple[StepFindings, ...]) -> list[StepFindings]:
    """At most `_SHOWN_STEPS`, the first and the last among them."""
    if len(steps) <= _SHOWN_STEPS:
        return list(steps)
    return [steps[round(place * (len(steps) - 1) / (_SHOWN_STEPS - 1))] for place in range(_SHOWN_STEPS)]


def _told(found: Correlation | None) -> tuple[str, str]:
    return ("-", "-") if found is None else (f"{found.value:.3f}", f"{found.low:.3f} to {found.high:.3f}")


def _flipped(pairs: Flips) -> str:
    return "-" if pairs.share is None else f"{100 * pairs.share:.1f} % of {pairs.pairs}"
