"""Writes docs/metrics.md from what registers the metrics: those of both services, and the numbers of a training run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from palate.audit.metrics import AuditMetrics
from palate.audit.policy.metrics import PolicyAuditMetrics
from services.policy.metrics import PolicyMetrics
from services.reward.metrics import RewardMetrics
from services.runtime.metrics import ServerMetrics
from trainer.exposure import Vitals
from trainer.metric_names import FAMILIES, Metric

ROOT = Path(__file__).parents[2]

_LEAD = """# Metrics

Generated from the code that registers them by `make docs`; do not edit.

Servers show Prometheus `/metrics` at `--metrics-port`, a trainer at `--prometheus-port` (`palate train ppo`:
`--record.prometheus-port`), all in base units; beyond loopback with `--metrics-host` and `--prometheus-host`. Labels
take their values from closed sets, or from what the operator has named: models, rewards. No text, caller or address is
ever one. Alerts and dashboards lie in `k8s/components/monitoring`; [runbooks.md](runbooks.md) says what to do about an
alert.

With `--otlp-endpoint` (extra `otel`) a server also sends a span of every call to an OpenTelemetry collector, under the
caller's span where its metadata name one (`traceparent`), and of `Score`, `Compare` and `Rank` the stages: texts into
ids, and for each batch the wait and the engine's time, with the number of the batch, which all calls in it share.
"""

_AUDITS = """## Audits

`--metrics FILE` of `palate audit` and `palate audit-policy` writes these into a file, for the textfile collector of
Prometheus' node exporter. `model` is the model that is audited, `side` before or after, `asked` the name of the policy
that was asked, which may be another before. What has no value is left out. [audit.md](audit.md) says what they are.
"""

_TRAINER = """## A training run

A row of these numbers is made in every step. `metrics.jsonl`, TensorBoard and the report have them under the name on
the left, Prometheus has the newest row under the one in the middle, beside `palate_training_step`, the steps that are
done. What a run or a step has no value for is left out. [ppo.md](ppo.md#watching-it) says what to look at first.
"""


class _Recorded(CollectorRegistry):
    """Keeps what is registered, in that order."""

    def __init__(self) -> None:
        super().__init__()
        self.collectors: list[Any] = []

    def register(self, collector: Collector) -> None:
        """As a registry does."""
        self.collectors.append(collector)
        super().register(collector)


def metrics() -> str:
    """The whole page."""
    server, reward, policy, vitals, audit, policy_audit = (_Recorded() for _ in range(6))
    ServerMetrics(server)
    RewardMetrics(reward)
    PolicyMetrics(policy)
    Vitals(vitals)
    AuditMetrics(audit)
    PolicyAuditMetrics(policy_audit)
    every = {_name(each) for each in _own(server)}
    parts = [
        _LEAD,
        _table("Both services", _own(server)),
        "Beside these, `process_*` and `python_info`, as Prometheus' own client has them.\n",
        _table("The reward service", _own(reward)),
        _table("The policy service", [each for each in _own(policy) if _name(each) not in every]),
        _AUDITS,
        _table("`palate audit`", _own(audit), level="###"),
        _table("`palate audit-policy`", _own(policy_audit), level="###"),
        _TRAINER,
        _table("Beside the rows", _own(vitals), level="###"),
        *(_numbers(title, family) for title, family in FAMILIES.items()),
    ]
    return "\n".join(parts)


def _own(registry: _Recorded) -> list[Any]:
    return [each for each in registry.collectors if not isinstance(each, (ProcessCollector, PlatformCollector))]


def _table(title: str, collectors: list[Any], level: str = "##") -> str:
    return "\n".join(
        [f"{level} {title}", "", "| metric | kind | labels | |", "|---|---|---|---|", *_rows(collectors), ""]
    )


def _rows(collectors: list[Any]) -> Iterator[str]:
    for collector in collectors:
        (family,) = collector.describe()
        # The client library tells labels nowhere else before there is a value.
        labels = ", ".join(f"`{label}`" for label in collector._labelnames)
        yield f"| `{_name(collector)}` | {family.type} | {labels} | {family.documentation} |"


def _name(collector: Any) -> str:
    """As it is scraped; a histogram also has `_bucket`, `_sum` and `_count`."""
    (family,) = collector.describe()
    return f"{family.name}_total" if family.type == "counter" else str(family.name)


def _numbers(title: str, family: tuple[Metric, ...]) -> str:
    rows = [f"| {_called(metric)} | {_exposed(metric)} | {metric.text} |" for metric in family]
    return "\n".join([f"### {title}", "", "| number | in Prometheus | |", "|---|---|---|", *rows, ""])


def _called(metric: Metric) -> str:
    return f"`{metric.name}_{metric.label.upper()}`" if metric.label else f"`{metric.name}`"


def _exposed(metric: Metric) -> str:
    return f"`{metric.prometheus}{{{metric.label}}}`" if metric.label else f"`{metric.prometheus}`"


if __name__ == "__main__":
    (ROOT / "docs/metrics.md").write_text(metrics(), encoding="utf-8")
