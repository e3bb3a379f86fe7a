"""The policy service: what it draws, and which weights its replicas serve."""

from __future__ import annotations

from k8s.monitoring.dashboards.board import Board, Panel, Query, quantiles, rate, selected

POLICY = Board(
    "policy",
    "Palate / policy and publishing",
    {
        "Drawing": (
            Panel("Tokens drawn", "short", (Query(rate("palate_policy_tokens_generated_total", "job"), "{{job}}"),)),
            Panel(
                "Completions, by why they ended",
                "short",
                (Query(rate("palate_policy_completions_total", "finish_reason"), "{{finish_reason}}"),),
            ),
            Panel(
                "Completions being drawn",
                "short",
                (Query(selected("palate_policy_running_completions"), "{{instance}}"),),
            ),
            quantiles("Wait before the first step", "palate_policy_queue_seconds", "job", "{{job}}"),
            quantiles("Engine time of a call", "palate_policy_compute_seconds", "job", "{{job}}"),
            Panel("Tokens that wait or run", "short", (Query(selected("palate_policy_queue_tokens"), "{{instance}}"),)),
            Panel(
                "Tokens whose logprobs were computed",
                "short",
                (Query(rate("palate_policy_logprob_tokens_total", "job"), "{{job}}"),),
            ),
            Panel("Decode steps", "short", (Query(rate("palate_policy_decode_steps_total", "job"), "{{job}}"),)),
            Panel(
                "Calls given up", "short", (Query(rate("palate_policy_dropped_calls_total", "reason"), "{{reason}}"),)
            ),
        ),
        "Publishing": (
            Panel(
                "Step that each replica serves",
                "short",
                (Query(selected("palate_policy_version_step"), "{{job}} {{instance}}"),),
                "Replicas of one Deployment should be one line.",
            ),
            Panel(
                "Replicas, by whether they serve what was published last",
                "short",
                (
                    Query(
                        f"count by (job) ({selected('palate_policy_version_fingerprint')} == on (namespace, job) "
                        f"group_left () {selected('palate:newest_version:fingerprint')})",
                        "{{job}} newest",
                    ),
                ),
            ),
            Panel(
                "Age of the served weights",
                "s",
                (
                    Query(
                        f"time() - {selected('palate_policy_version_timestamp_seconds')}",
                        "{{job}} {{instance}}",
                    ),
                ),
            ),
            Panel(
                "Publishing calls, by outcome",
                "short",
                (Query(rate("palate_policy_publishing_total", "operation, outcome"), "{{operation}} {{outcome}}"),),
                "Refused: another publisher, an older version, a lease that is over. Broken: anything else.",
            ),
            Panel(
                "Weights received",
                "Bps",
                (Query(rate("palate_policy_staged_bytes_total", "instance"), "{{instance}}"),),
            ),
            Panel(
                "Tries of runs to publish",
                "short",
                (Query(rate("palate_training_publications_total", "instance, outcome"), "{{instance}} {{outcome}}"),),
            ),
        ),
    },
)
