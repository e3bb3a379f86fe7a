"""What was found: figures as a document, as a table, and as a page with plots."""

from __future__ import annotations

import io
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Literal, TypeAlias

from rich.table import Column, Table

from benchmarks.paired import Estimate
from palate.terminal import stdout_console

_VERSIONS = ("palate", "torch", "transformers", "onnxruntime", "grpcio")

Beside: TypeAlias = Mapping[str, float | str]


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure is held to; `of` says which end of its interval must keep it."""

    sign: Literal["≥", "≤", "<"]
    value: float
    of: Literal["value", "low", "high"] = "value"

    def holds(self, found: Estimate) -> bool:
        """Whether the figure keeps it."""
        measured = float(getattr(found, self.of))
        return {"≥": measured >= self.value, "≤": measured <= self.value, "<": measured < self.value}[self.sign]

    def __str__(self) -> str:
        return f"{'' if self.of == 'value' else self.of + ' '}{self.sign} {self.value:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Attributes:
        name: Part and what it is about, e.g. "efficiency/stream".
        text: What it is a ratio of, in words.
        found: Its value over the rounds.
        unit: Empty for ratios.
        goal: What it is held to, if anything.
        beside: What else was seen, by name.
    """

    name: str
    text: str
    found: Estimate
    unit: str = ""
    goal: Goal | None = None
    beside: Beside = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """A figure that could not be had; `reason` says why, and what to do about it."""

    name: str
    reason: str


Finding: TypeAlias = Figure | Unmeasured


def exact(value: float) -> Estimate:
    """A figure that is no estimate: it was counted once."""
    return Estimate(value, value, value, 1)


def this_machine() -> dict[str, str]:
    """Where figures come from; `load before` is the number of busy processes when measuring began."""
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cores": str(os.cpu_count()),
        "load before": f"{os.getloadavg()[0]:.2f}",
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", ""),
        **{name: version(name) for name in _VERSIONS},
    }


def write(file: Path, findings: Sequence[Finding], machine: Mapping[str, str]) -> None:
    """`file` with a key for each figure, and a page of the same name that also says on what machine."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(dict(map(_entry, findings)), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    file.with_suffix(".html").write_text(_page(findings, machine), encoding="utf-8")


def show(findings: Sequence[Finding], machine: Mapping[str, str]) -> None:
    """A row for each figure."""
    table = Table(Column("figure", overflow="fold"), "value", "90 % interval", "n", "goal", "beside", show_lines=True)
    table.title = f"{machine['cores']} cores, load {machine['load before']} before; texts {machine['texts']}"
    for finding in findings:
        table.add_row(*_cells(finding))
    stdout_console().print(table)


def kept(findings: Sequence[Finding]) -> bool:
    """Whether all was measured and every goal is kept."""
    return all(isinstance(one, Figure) and (one.goal is None or one.goal.holds(one.found)) for one in findings)


def _entry(finding: Finding) -> tuple[str, dict[str, object]]:
    if isinstance(finding, Unmeasured):
        return finding.name, {"unmeasured": finding.reason}
    goal = {} if finding.goal is None else {"goal": str(finding.goal), "holds": finding.goal.holds(finding.found)}
    words = {"what": finding.text, "unit": finding.unit or "ratio"}
    return finding.name, {**asdict(finding.found), **words, **goal, "beside": dict(finding.beside)}


def _cells(finding: Finding) -> tuple[str, ...]:
    if isinstance(finding, Unmeasured):
        return finding.name, "not measured", "", "", "", finding.reason
    found, unit = finding.found, finding.unit and f" {finding.unit}"
    goal = "" if finding.goal is None else f"{finding.goal}: {'yes' if finding.goal.holds(found) else 'NO'}"
    beside = "; ".join(f"{name} {_number(value)}" for name, value in finding.beside.items())
    interval = "" if found.n == 1 else f"{_number(found.low)} to {_number(found.high)}"
    return f"{finding.name}\n{finding.text}", f"{_number(found.value)}{unit}", interval, str(found.n), goal, beside


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def _page(findings: Sequence[Finding], machine: Mapping[str, str]) -> str:
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell).replace(chr(10), '<br>')}</td>" for cell in _cells(finding)) + "</tr>"
        for finding in findings
    )
    where = "; ".join(f"{escape(name)} {escape(value)}" for name, value in machine.items())
    heads = "".join(f"<th>{head}</th>" for head in ("figure", "value", "90 % interval", "n", "goal", "beside"))
    return (
        '<!doctype html><meta charset="utf-8"><title>Palate: measurements</title>'
        "<style>body{font:15px sans-serif;margin:2em}td,th{padding:.3em .8em;text-align:left;vertical-align:top;"
        "border-bottom:1px solid #ddd}</style>"
        f"<h1>Measurements</h1><p>{where}</p>{''.join(_plots(findings))}<table><tr>{heads}</tr>{rows}</table>\n"
    )


def _plots(findings: Sequence[Finding]) -> list[str]:
    """One plot for each part: its ratios with their intervals, and what they are held to."""
    parts: dict[str, list[Figure]] = {}
    for one in findings:
        if isinstance(one, Figure) and not one.unit:
            parts.setdefault(one.name.split("/")[0], []).append(one)
    return [_plot(part, figures) for part, figures in parts.items()]


def _plot(part: str, figures: Sequence[Figure]) -> str:
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(8, 0.8 + 0.35 * len(figures)), layout="constrained")
    axes = canvas.subplots()
    for place, one in enumerate(reversed(figures)):
        axes.plot([one.found.low, one.found.high], [place, place], color="#4477aa", linewidth=3)
        axes.plot(one.found.value, place, "o", color="#224466")
        if one.goal is not None:
            axes.plot(one.goal.value, place, "|", color="#cc3311", markersize=14)
    axes.set_yticks(range(len(figures)), [one.name.split("/", 1)[-1] for one in reversed(figures)])
    axes.set_title(f"{part}: ratios, 90 % intervals, goals in red", loc="left")
    drawn = io.StringIO()
    canvas.savefig(drawn, format="svg")
    return drawn.getvalue()[drawn.getvalue().index("<svg") :]
