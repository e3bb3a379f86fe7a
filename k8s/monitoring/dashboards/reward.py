"""The reward service: what it scores, how its scores lie, and what the engine does."""

from __future__ import annotations

from k8s.monitoring.dashboards.board import Board, Panel, Query, quantile, quantiles, rate, selected

REWARD = Board(
    "reward",
    "Palate / reward model",
    {
        "Scores": (
            Panel(
                "Raw scores, by model",
                "short",
                tuple(
                    Query(quantile(share, "palate_reward_score", "model"), f"{{{{model}}}} p{share * 100:g}")
                    for share in (0.1, 0.5, 0.9)
                ),
            ),
            Panel(
                "Distance from the reference samples",
                "short",
                (Query(selected("palate:score_drift:median15m"), "{{job}} {{model}}"),),
                "Median calibrated score, in standard deviations of the reference samples; 0 for texts like those.",
            ),
            Panel(
                "Models",
                "short",
                (Query(selected("palate_reward_model_info"), "{{model}} {{revision}} {{engine}} {{dtype}}"),),
                "Every replica should name the same revision.",
            ),
            Panel(
                "Parity at load, standard deviations",
                "sci",
                (Query(selected("palate_reward_parity_deviation"), "{{model}} {{instance}}"),),
            ),
            Panel(
                "Models loaded and refused",
                "short",
                (Query(f"sum by (outcome) ({selected('palate_reward_model_loads_total')})", "{{outcome}}"),),
            ),
            Panel(
                "Scores that are no numbers",
                "short",
                (Query(rate("palate_reward_non_finite_scores_total", "model"), "{{model}}"),),
                "Those items fail.",
            ),
        ),
        "Items": (
            Panel("Items, by outcome", "short", (Query(rate("palate_reward_items_total", "outcome"), "{{outcome}}"),)),
            Panel(
                "Items that cost nothing",
                "short",
                (
                    Query(rate("palate_reward_items_cached_total", "job"), "known"),
                    Query(rate("palate_reward_items_deduplicated_total", "job"), "shared with an equal one"),
                ),
            ),
            Panel(
                "Items dropped before compute",
                "short",
                (Query(rate("palate_reward_items_dropped_total", "reason"), "{{reason}}"),),
            ),
        ),
        "Where time goes": (
            quantiles("Wait in the queue", "palate_reward_queue_seconds", "job", "{{job}}"),
            quantiles("From texts to token ids", "palate_reward_tokenize_seconds", "job", "{{job}}"),
            quantiles("Engine time of a batch", "palate_reward_compute_seconds", "job", "{{job}}"),
            Panel("Tokens that wait", "short", (Query(selected("palate_reward_queue_tokens"), "{{instance}}"),)),
            Panel(
                "Rows of a batch", "short", (Query(quantile(0.5, "palate_reward_batch_rows", "job"), "{{job}} median"),)
            ),
            Panel("Share of padding", "percentunit", (Query(selected("palate:padding:ratio_rate5m"), "{{job}}"),)),
        ),
    },
)
