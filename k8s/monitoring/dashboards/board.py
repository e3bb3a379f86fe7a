"""What a dashboard of ours is, and how Grafana's own library writes it down."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import dashboard as grafana
from grafana_foundation_sdk.builders import prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableOption, VariableRefresh

NAMESPACE = 'namespace=~"$namespace"'
"""Selects what the reader has chosen; every query has it."""

RATE = "[$__rate_interval]"

_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_COLUMNS, _HEIGHT = 3, 8
_WIDTH = 24 // _COLUMNS


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression, and what its lines are called."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture.

    Attributes:
        title: What is seen, with what it is counted by.
        unit: As Grafana names units, e.g. "s", "short", "percentunit", "reqps".
        queries: What is drawn.
        text: How to read it.
    """

    title: str
    unit: str
    queries: tuple[Query, ...]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard.

    Attributes:
        name: Of its file, and its uid with "palate-" before it.
        title: As Grafana lists it.
        rows: Titles of rows → panels, from left to right.
        refresh: How often it is drawn anew.
    """

    name: str
    title: str
    rows: dict[str, tuple[Panel, ...]]
    refresh: str = "30s"


def rate(counter: str, by: str, match: str = "") -> str:
    """Events a second, added up over everything but the labels `by`."""
    return f"sum by ({by}) (rate({selected(counter, match)}{RATE}))"


def quantile(share: float, histogram: str, by: str) -> str:
    """A quantile of a histogram over all replicas."""
    return f"histogram_quantile({share:g}, sum by ({by}, le) (rate({selected(f'{histogram}_bucket')}{RATE})))"


def selected(metric: str, match: str = "") -> str:
    """The metric of what the reader has chosen."""
    return f"{metric}{{{', '.join(each for each in (NAMESPACE, match) if each)}}}"


def quantiles(title: str, histogram: str, by: str, legend: str, text: str = "") -> Panel:
    """A panel of the median and the 99th percentile of a duration."""
    lines = tuple(Query(quantile(share, histogram, by), f"{legend} p{share * 100:g}") for share in (0.5, 0.99))
    return Panel(title, "s", lines, text)


def built(board: Board) -> dict[str, Any]:
    """What Grafana imports."""
    builder = (
        grafana.Dashboard(board.title)
        .uid(f"palate-{board.name}")
        .tags(["palate"])
        .refresh(board.refresh)
        .time("now-1h", "now")
        .readonly()
        .with_variable(grafana.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_namespaces())
    )
    for title, panels in board.rows.items():
        builder = builder.with_row(grafana.Row(title))
        for panel in panels:
            builder = builder.with_panel(_built(panel))
    document: dict[str, Any] = json.loads(JSONEncoder().encode(builder.build()))
    return document


def _namespaces() -> grafana.QueryVariable:
    return (
        grafana.QueryVariable("namespace")
        .label("Namespace")
        .datasource(_SOURCE)
        .query("label_values(palate_ready, namespace)")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def _built(panel: Panel) -> timeseries.Panel:
    builder = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.text)
        .unit(panel.unit)
        .datasource(_SOURCE)
        .span(_WIDTH)
        .height(_HEIGHT)
    )
    for number, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(ord("A") + number))
        builder = builder.with_target(target)
    return builder
