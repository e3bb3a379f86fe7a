"""Plots as inline SVG: curves over steps, bars with a reference line."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

mpl.use("Agg")
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "palate",  # the same plot gives the same bytes
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.prop_cycle": cycler(color=["#3b6ea5", "#c8553d", "#588157", "#8d6a9f", "#b08900"]),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawn plot."""

    caption: str
    svg: str


@dataclass(frozen=True, slots=True)
class Axis:
    """What a plot's axes say."""

    x: str
    y: str


def curves(
    caption: str, axis: Axis, steps: Sequence[float], series: Mapping[str, Sequence[float]], smooth: int = 1
) -> Figure:
    """Lines over steps; with `smooth` > 1 a running mean over that many steps, the raw values faint behind it."""

    def draw(axes: Axes) -> None:
        for label, values in series.items():
            (line,) = axes.plot(steps, running_mean(values, smooth), label=label, linewidth=1.8)
            if smooth > 1:
                axes.plot(steps, values, color=line.get_color(), alpha=0.2, linewidth=0.8)
        if len(series) > 1:
            axes.legend(frameon=False)

    return _drawn(caption, axis, draw)


def bars(caption: str, axis: Axis, values: Mapping[str, float], reference: tuple[str, float] | None = None) -> Figure:
    """One bar per name, its value above it, and a dashed line to compare with."""

    def draw(axes: Axes) -> None:
        drawn = axes.bar(list(values), list(values.values()), width=0.6)
        axes.bar_label(drawn, fmt="%.2f", padding=2)
        axes.margins(y=0.15)
        if reference is not None:
            axes.axhline(reference[1], linestyle="--", linewidth=1, color="#555555", label=reference[0])
            axes.legend(frameon=False)

    return _drawn(caption, axis, draw)


def intervals(
    caption: str, axis: Axis, rows: Mapping[str, tuple[float, float, float]], reference: tuple[str, float]
) -> Figure:
    """A point with its interval, (low, value, high), for each name, from top to bottom, and a line to compare with."""

    def draw(axes: Axes) -> None:
        places = range(len(rows), 0, -1)
        for place, (low, value, high) in zip(places, rows.values(), strict=True):
            axes.plot([low, high], [place, place], color="#3b6ea5", linewidth=2)
            axes.plot(value, place, "o", color="#3b6ea5", markersize=5)
        axes.axvline(reference[1], linestyle="--", linewidth=1, color="#555555", label=reference[0])
        axes.set_yticks(list(places), list(rows))
        axes.legend(frameon=False)

    return _drawn(caption, axis, draw, height=1.2 + 0.24 * len(rows))


def scatter(caption: str, axis: Axis, groups: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """Points, one colour per group."""

    def draw(axes: Axes) -> None:
        for label, (xs, ys) in groups.items():
            axes.scatter(xs, ys, s=9, alpha=0.6, label=label)
        axes.legend(frameon=False)

    return _drawn(caption, axis, draw)


def trade_off(
    caption: str, axis: Axis, xs: Sequence[float], ys: Sequence[float], steps: Sequence[float], smooth: int = 1
) -> Figure:
    """What is gained (y) for what it costs (x): a point for each step, and a line through the frontier of them.

    With `smooth` > 1 both are running means: the best of noisy points would be better than any of them is.
    """
    xs, ys = running_mean(xs, smooth), running_mean(ys, smooth)
    best = frontier(xs, ys)

    def draw(axes: Axes) -> None:
        points = axes.scatter(xs, ys, c=list(steps), s=12, cmap="viridis")
        axes.plot([xs[i] for i in best], [ys[i] for i in best], linewidth=1.2, alpha=0.8)
        colours: Any = axes.figure.colorbar(points, ax=axes, label="step")
        colours.outline.set_visible(False)

    return _drawn(caption, axis, draw)


def frontier(costs: Sequence[float], gains: Sequence[float]) -> list[int]:
    """Which points no other one beats, that is, none has more gain at as little cost; cheapest first."""
    found: list[int] = []
    for index in sorted(range(len(costs)), key=lambda i: (costs[i], -gains[i])):
        if not found or gains[index] > gains[found[-1]]:
            found.append(index)
    return found


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean of the last `window` values at each place; fewer at the beginning."""
    return [sum(values[max(0, i + 1 - window) : i + 1]) / min(i + 1, window) for i in range(len(values))]


def _drawn(caption: str, axis: Axis, draw: Callable[[Axes], None], height: float = 3.0) -> Figure:
    with mpl.rc_context(_STYLE):
        canvas = Canvas(figsize=(5.2, height), layout="constrained")
        axes = canvas.subplots()
        draw(axes)
        axes.set_xlabel(axis.x)
        axes.set_ylabel(axis.y)
        text = io.StringIO()
        canvas.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return Figure(caption, svg[svg.index("<svg") :])
