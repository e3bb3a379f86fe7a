"""The report of a PPO run: its numbers step by step, and what it wrote, in one HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from palate.report.figures import Axis, Figure, curves, trade_off
from palate.report.page import Section, Table, write_page
from trainer.metric_names import FAMILIES, find
from trainer.metrics import FILE_NAME as METRICS_FILE
from trainer.metrics import read_metrics, read_whole_rows
from trainer.ppo.proxy_report import proxy_section
from trainer.ppo.record import SAMPLES, SHOWN_CHARACTERS
from trainer.run_folder import RunFolderError

FILE_NAME = "report.html"
DATA = "metrics"
"""Under this id the page holds the rows that it was made from, as JSON."""

_SMOOTH = 5
_MOST_ROWS = 20_000
"""Of a longer run every other step is left out, or more, until no more than these are there."""

Rows = Sequence[Mapping[str, float]]

_PLOTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("score of the reward model", "score", ("objective/scores",)),
    ("KL to the reference policy", "nats", ("objective/kl",)),
    ("what a completion earns", "reward", ("objective/rlhf_reward", "objective/non_score_reward")),
    ("coefficient of the KL", "", ("objective/kl_coef",)),
    ("gold, which nothing learns from", "gold", ("watch/gold",)),
    ("score and gold agree (Spearman)", "correlation", ("watch/gold_correlation",)),
    ("how far the ensemble disagrees", "score", ("watch/disagreement",)),
    ("entropy of a token", "nats", ("policy/entropy_avg",)),
    ("length of a completion", "tokens", ("rollout/mean_length",)),
    ("how far an update goes", "nats", ("policy/approxkl_avg",)),
    ("tokens that are clipped", "share", ("policy/clipfrac_avg", "val/clipfrac_avg")),
    ("importance weights", "weight", ("policy/importance_mean", "policy/importance_max")),
    ("effective sample size", "share of tokens", ("policy/importance_ess",)),
    ("staleness of rollouts", "steps", ("rollout/staleness_mean", "rollout/staleness_max")),
    ("policy loss", "loss", ("loss/policy_avg",)),
    ("value loss", "loss", ("loss/value_avg",)),
    ("how well the critic explains returns", "share of variance", ("val/explained_variance",)),
    ("groups that teach nothing", "share", ("group/equal_share",)),
    ("who waits", "share", ("idle/trainer_share", "idle/policy_share", "idle/reward_share", "idle/ref_share")),
    ("where the time goes", "seconds", ("time/publish", "time/wait", "time/evaluate", "time/update")),
)


def write_report(run: Path) -> Path:
    """Writes the report of a run from what is in its folder by now; returns where it is.

    Raises:
        RunFolderError: It is no folder of a PPO run, or no step was recorded.
        OSError: The folder cannot be read or written.
    """
    if not (run / METRICS_FILE).is_file():
        raise RunFolderError(f"{run} holds no {METRICS_FILE}; give a run's folder, the --out of `palate train ppo`")
    rows = thinned(read_metrics(run))
    if not rows:
        raise RunFolderError(f"{run} has recorded no step yet, so there is nothing to report")
    sections = [
        Section("The KL–reward frontier", _FRONTIER, figures=[_frontier(rows)]),
        proxy_section(run, rows),
        Section("Step by step", _STEPS, figures=list(_figures(rows))),
        Section("Samples", tables=[_samples(run)]),
        Section("The last step", tables=[_last(rows[-1])]),
    ]
    lead = f"{rows[-1]['step']:g} steps; the same numbers as in metrics.jsonl, TensorBoard and Prometheus."
    write_page(run / FILE_NAME, f"PPO: {run.resolve().name}", lead, sections, {DATA: rows})
    return run / FILE_NAME


_FRONTIER = (
    "Each point is a step, by how far the policy was from the reference policy and what the reward model said of it. "
    "The line joins the steps that no other beats at less KL. A score that rises without end while KL does is what an "
    "exploited reward model looks like, too: hold samples, or another reward model (palate rescore), against it."
)
_STEPS = "Faint lines are single steps, strong ones running means. Numbers that a run does not have are left out."


def thinned(rows: Sequence[dict[str, float]], most: int = _MOST_ROWS) -> list[dict[str, float]]:
    """At most `most` rows: all of them, or every second one, or third, ...; always the last."""
    every = -(-len(rows) // most) or 1
    return list(rows[::-1][::every][::-1])


def _frontier(rows: Rows) -> Figure:
    kl, scores, steps = ([row[name] for row in rows] for name in ("objective/kl", "objective/scores", "step"))
    return trade_off("score over KL", Axis("KL to the reference policy, nats", "score"), kl, scores, steps, _SMOOTH)


def _figures(rows: Rows) -> Iterator[Figure]:
    steps = [row["step"] for row in rows]
    for caption, unit, names in _PLOTS:
        series = {name: [row[name] for row in rows] for name in names if all(name in row for row in rows)}
        if series:
            yield curves(f"{caption}: {', '.join(series)}", Axis("step", unit), steps, series, _SMOOTH)


def _samples(run: Path) -> Table:
    rows = _last_samples(run / SAMPLES)
    cells = [
        (row["prompt"][:SHOWN_CHARACTERS], row["completion"][:SHOWN_CHARACTERS], _told(row["score"])) for row in rows
    ]
    caption = f"step {rows[-1]['step']}" if rows else "none were kept"
    return Table(caption, ("prompt", "completion", "score"), cells)


def _last_samples(file: Path) -> list[dict[str, Any]]:
    """The samples of the newest step that has some."""
    newest: list[dict[str, Any]] = []
    for row in read_whole_rows(file) if file.exists() else ():
        if newest and newest[-1]["step"] != row["step"]:
            newest.clear()
        newest.append(row)
    return newest


def _last(row: Mapping[str, float]) -> Table:
    told = [(name, _told(row[name]), find(name)[0].text) for name in _in_order(row)]
    return Table(f"step {row['step']:g}", ("number", "value", "what it says"), told)


def _in_order(row: Mapping[str, float]) -> list[str]:
    """The names in a row, as docs/metrics.md orders them."""
    order = [metric.name for family in FAMILIES.values() for metric in family]
    return sorted(row.keys() - {"step", "time"}, key=lambda name: (order.index(find(name)[0].name), name))


def _told(value: float) -> str:
    return f"{value:.6g}"
