"""Are there enough replicas, and what do they cost? Also what the autoscaler looks at."""

from __future__ import annotations

from k8s.monitoring.dashboards.board import Board, Panel, Query, rate, selected

_REPLICAS = f"count by (job) ({selected('palate_ready')} == 1)"

CAPACITY = Board(
    "capacity",
    "Palate / capacity",
    {
        "What waits": (
            Panel(
                "Queued tokens for each replica",
                "short",
                (
                    Query(f"sum by (job) ({selected('palate_reward_queue_tokens')}) / {_REPLICAS}", "{{job}}"),
                    Query(f"sum by (job) ({selected('palate_policy_queue_tokens')}) / {_REPLICAS}", "{{job}}"),
                ),
                "What the autoscaler follows: it rises before latency does.",
            ),
            Panel(
                "Streams, and their items without an answer",
                "short",
                (
                    Query(f"sum by (job) ({selected('palate_reward_streams')})", "streams"),
                    Query(f"sum by (job) ({selected('palate_reward_stream_items')})", "items"),
                ),
            ),
            Panel(
                "Share of calls that are shed", "percentunit", (Query(selected("palate:shed:ratio_rate5m"), "{{job}}"),)
            ),
        ),
        "What is done": (
            Panel(
                "Engine busy, passes at a time",
                "short",
                (
                    Query(rate("palate_reward_compute_seconds_sum", "instance"), "{{instance}}"),
                    Query(rate("palate_policy_compute_seconds_sum", "instance"), "{{instance}}"),
                ),
                "Near the number of lanes there is nothing left.",
            ),
            Panel("Tokens scored", "short", (Query(rate("palate_reward_tokens_total", "kind"), "{{kind}}"),)),
            Panel(
                "Tokens drawn for each replica",
                "short",
                (Query(f"{rate('palate_policy_tokens_generated_total', 'job')} / {_REPLICAS}", "{{job}}"),),
            ),
        ),
        "What it takes": (
            Panel(
                "Processors",
                "short",
                (Query(rate("process_cpu_seconds_total", "job, instance"), "{{job}} {{instance}}"),),
            ),
            Panel("Memory", "bytes", (Query(selected("process_resident_memory_bytes"), "{{job}} {{instance}}"),)),
            Panel("Open files", "short", (Query(selected("process_open_fds"), "{{job}} {{instance}}"),)),
        ),
    },
)
