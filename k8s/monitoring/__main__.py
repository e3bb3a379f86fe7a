"""Writes rules, runbook and dashboards where they are deployed from: `python -m k8s.monitoring`."""

from __future__ import annotations

from k8s.monitoring.files import ROOT, generated

if __name__ == "__main__":
    for path, text in generated().items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text, encoding="utf-8")
