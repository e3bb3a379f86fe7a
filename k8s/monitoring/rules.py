"""What a rule is, and how long its windows are."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

JOBS = 'job=~"palate-.*"'
"""Selects everything of ours; `job` is the name of the Deployment, or palate-training."""

FLEET = "namespace, job"
"""Replicas that are alike: one Deployment in one namespace."""

RUNBOOK = "docs/runbooks.md"
"""Where alerts say that their steps are, from the root of this repository."""

RUNBOOK_URL = ""
"""The address at which you publish that page, for good; empty = nowhere, and alerts name the path alone."""

MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_UNITS = (("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", 1))


@dataclass(frozen=True, slots=True)
class Clock:
    """Writes durations; all are divided by `scale`, so that a rehearsal runs in minutes. What is deployed has 1."""

    scale: float = 1.0

    def seconds(self, seconds: float) -> float:
        """A number of seconds, as an expression compares it."""
        return seconds / self.scale

    def __call__(self, seconds: float) -> str:
        """A duration as PromQL has it, e.g. 300 → "5m"."""
        whole = round(self.seconds(seconds))
        return next(f"{whole // size}{unit}" for unit, size in _UNITS if size == 1 or (whole and whole % size == 0))


@dataclass(frozen=True, slots=True)
class Recording:
    """A series that Prometheus computes.

    Attributes:
        name: level:metric:operation.
        expr: PromQL.
        labels: Added to its series.
    """

    name: str
    expr: str
    labels: dict[str, str] = field(default_factory=dict)

    def rule(self) -> dict[str, Any]:
        """As Prometheus reads it."""
        return {"record": self.name, "expr": _one_line(self.expr), **({"labels": self.labels} if self.labels else {})}


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that a person should look at.

    Attributes:
        name: In CamelCase.
        expr: PromQL; what it gives is wrong.
        hold: How long it must be so, as PromQL writes durations.
        severity: critical = somebody is woken, warning = somebody looks in working hours.
        summary: One line; a template of Prometheus.
        meaning: What it says, and when it is no fault, for the runbook.
        steps: What to look at and do, in this order.
    """

    name: str
    expr: str
    hold: str
    severity: Literal["critical", "warning"]
    summary: str
    meaning: str
    steps: tuple[str, ...]

    def rule(self, runbook_url: str = RUNBOOK_URL) -> dict[str, Any]:
        """As Prometheus reads it; `runbook_url` is an annotation only where there is an address that can be opened."""
        where = {"runbook_url": runbook_url} if runbook_url else {"runbook": RUNBOOK}
        return {
            "alert": self.name,
            "expr": _one_line(self.expr),
            **({} if self.hold == "0s" else {"for": self.hold}),
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": _one_line(self.meaning),
                **{name: f"{page}#{self.name.lower()}" for name, page in where.items()},
            },
        }


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
