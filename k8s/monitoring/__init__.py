"""The one source of recording rules, alerts, their runbook, and dashboards; `python -m k8s.monitoring` writes them."""
