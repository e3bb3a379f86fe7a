"""A policy audit as gauges: the numbers of its table; labels are behaviours, models, and before or after."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Gauge

from palate.audit.gauges import WithInterval
from palate.audit.policy.behaviours import Unit
from palate.audit.policy.findings import Finding
from palate.audit.policy.show import PolicyAudit, Subject

_OF_A_BEHAVIOUR = ("model", "behaviour")
_SHOWN: Mapping[Unit, str] = {
    Unit.SHARE: "Share of the trials in which the policy does it, 0 to 1.",
    Unit.WORDS: "Mean words of an answer.",
}


class PolicyAuditMetrics:
    """The families."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, labels: tuple[str, ...] = _OF_A_BEHAVIOUR) -> Gauge:
            return Gauge(f"palate_policy_audit_{name}", text, labels, registry=registry)

        def interval(name: str, text: str, labels: tuple[str, ...] = _OF_A_BEHAVIOUR) -> WithInterval:
            return WithInterval(registry, f"palate_policy_audit_{name}", text, labels)

        sided = (*_OF_A_BEHAVIOUR, "side")
        self._shown = {unit: interval(f"shown_{unit}", text, sided) for unit, text in _SHOWN.items()}
        self._change = {
            unit: interval(f"change_{unit}", f"After less before: {text[0].lower()}{text[1:]}")
            for unit, text in _SHOWN.items()
        }
        self._p = gauge("p_value", "p of the change, adjusted for all behaviours of the audit (Holm).")
        self._worse = gauge("worse", "1 where it is flagged: surely more than before, and by enough to matter; else 0.")
        self._trials = gauge("trials", "Trials that count.")
        self._unclear = gauge("unclear_trials", "Trials that do not count, as an answer could not be read.")
        self._info = gauge("info", "1; the labels say who was asked.", ("model", "side", "asked", "digest"))

    def found(self, audit: PolicyAudit) -> None:
        """Takes an audit's numbers; `model` is the policy as it is now."""
        model = audit.after.model
        self._subject(model, "after", audit.after)
        if audit.before is not None:
            self._subject(model, "before", audit.before)
        for finding in audit.findings:
            self._finding(model, finding)

    def _subject(self, model: str, side: str, subject: Subject) -> None:
        self._info.labels(model, side, subject.model, subject.version.digest).set(1)

    def _finding(self, model: str, finding: Finding) -> None:
        labels = model, finding.name
        self._shown[finding.unit].set(finding.before, *labels, "before")
        self._shown[finding.unit].set(finding.after, *labels, "after")
        self._change[finding.unit].set(finding.change, *labels)
        self._trials.labels(*labels).set(finding.trials - finding.unclear)
        self._unclear.labels(*labels).set(finding.unclear)
        if finding.adjusted is not None:
            self._p.labels(*labels).set(finding.adjusted)
            self._worse.labels(*labels).set(finding.is_worse)
