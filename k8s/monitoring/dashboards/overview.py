"""Is everything well? One look at all services and runs."""

from __future__ import annotations

from k8s.monitoring.dashboards.board import Board, Panel, Query, quantile, rate, selected

OVERVIEW = Board(
    "overview",
    "Palate / overview",
    {
        "Calls": (
            Panel("Calls, by Deployment", "reqps", (Query(selected("palate:calls:rate5m"), "{{job}}"),)),
            Panel(
                "Share that fails by the service's fault",
                "percentunit",
                (Query(selected("palate:errors:ratio_rate5m"), "{{job}} {{sli}}"),),
                "The objective is half a percent over 30 days.",
            ),
            Panel(
                "Calls, by status", "reqps", (Query(rate("grpc_server_handled_total", "grpc_code"), "{{grpc_code}}"),)
            ),
            Panel(
                "Time of a call, 99th percentile",
                "s",
                (Query(quantile(0.99, "grpc_server_handling_seconds", "job, grpc_method"), "{{job}} {{grpc_method}}"),),
                "Streams last as long as their callers keep them.",
            ),
            Panel(
                "Wait before work is begun, 99th percentile",
                "s",
                (Query(selected("palate:queue_wait_seconds:p99_5m"), "{{job}}"),),
            ),
            Panel(
                "Share of calls that are shed", "percentunit", (Query(selected("palate:shed:ratio_rate5m"), "{{job}}"),)
            ),
        ),
        "Processes": (
            Panel(
                "Replicas that are ready",
                "short",
                (
                    Query(f"sum by (job) ({selected('palate_ready')})", "{{job}} ready"),
                    Query(f"count by (job) ({selected('palate_ready')})", "{{job}} scraped"),
                ),
            ),
            Panel("Calls in flight", "short", (Query(selected("palate_calls_in_flight"), "{{job}} {{instance}}"),)),
            Panel(
                "Steps of runs that are done",
                "short",
                (Query(selected("palate_training_step"), "{{instance}}"),),
            ),
        ),
    },
)
