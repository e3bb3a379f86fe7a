"""An audit of a reward model as gauges: the numbers of its table; labels are models and probes."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge

from palate.audit.findings import Finding
from palate.audit.gauges import WithInterval
from palate.audit.show import Audit

_OF_A_PROBE = ("model", "probe")


class AuditMetrics:
    """The families."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, labels: tuple[str, ...] = _OF_A_PROBE) -> Gauge:
            return Gauge(f"palate_audit_{name}", text, labels, registry=registry)

        text = "Share of the items in which the model does what the probe looks for, 0 to 1."
        self._share = WithInterval(registry, "palate_audit_share", text, _OF_A_PROBE)
        self._effect = gauge("effect", "Effect over the items, standard deviations of the model's scores.")
        self._p = gauge("p_value", "p, adjusted for all probes of the audit (Holm).")
        self._flagged = gauge("flagged", "1 where the probe is flagged: surely a fault, and large enough; else 0.")
        self._items = gauge("items", "Items of the probe.")
        self._excluded = gauge("excluded_items", "Items that do not count, as a text of theirs has no score.")
        self._breaches = gauge("breaches", "What the policy does not allow, of all probes.", ("model",))
        self._sd = gauge("score_sd", "Standard deviation of the model's scores, the unit of effects.", ("model",))
        self._info = gauge(
            "info", "1; the labels say what was audited.", ("model", "revision", "engine", "dtype")
        )  # fmt: skip

    def found(self, audit: Audit) -> None:
        """Takes an audit's numbers."""
        source = audit.source
        self._info.labels(source.model, source.revision, source.engine, source.dtype).set(1)
        self._sd.labels(source.model).set(audit.findings.sd)
        self._breaches.labels(source.model).set(len(audit.breaches))
        for finding in audit.findings.probes:
            self._finding(finding, source.model, finding.name)

    def _finding(self, finding: Finding, *labels: str) -> None:
        self._share.set(finding.share, *labels)
        self._effect.labels(*labels).set(finding.leaning.effect)
        self._p.labels(*labels).set(finding.adjusted)
        self._flagged.labels(*labels).set(finding.is_flagged)
        self._items.labels(*labels).set(finding.items)
        self._excluded.labels(*labels).set(sum(finding.excluded.values()))
