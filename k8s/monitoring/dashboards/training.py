"""A training run: whether it learns, what it pays for it in KL, and what it waits for."""

from __future__ import annotations

from k8s.monitoring.dashboards.board import Board, Panel, Query, rate, selected


def _curve(title: str, names: dict[str, str], unit: str = "short", text: str = "") -> Panel:
    """Numbers of the newest rows: name without palate_training_ → what the line is called."""
    queries = (
        Query(selected(f"palate_training_{name}"), f"{{{{instance}}}} {legend}") for name, legend in names.items()
    )
    return Panel(title, unit, tuple(queries), text)


_STAGES = ("step", "publish", "wait", "rollouts", "scoring", "update")

TRAINING = Board(
    "training",
    "Palate / training run",
    {
        "Is it learning?": (
            _curve("Score that is optimised", {"objective_scores": "proxy"}),
            Panel(
                "Each reward", "short", (Query(selected("palate_training_objective_score"), "{{instance}} {{reward}}"),)
            ),
            _curve(
                "Gold, which nothing is learnt from",
                {"watch_gold": "gold"},
                text="It falls while the score rises: over-optimisation. Only where --watch.gold says what it is.",
            ),
            Panel(
                "Trend of proxy and gold over an hour",
                "short",
                (
                    Query(selected("palate:training_proxy:trend1h"), "{{instance}} proxy"),
                    Query(selected("palate:training_gold:trend1h"), "{{instance}} gold"),
                ),
                "Correlation with time; runs younger than an hour have none.",
            ),
            _curve("KL to the reference policy, nats", {"objective_kl": "KL"}),
            _curve("KL coefficient", {"objective_kl_coef": "kl_coef"}),
            _curve("Entropy of a token, nats", {"policy_entropy_avg": "entropy"}),
        ),
        "The update": (
            _curve("Shares clipped", {"policy_clipfrac_avg": "policy", "val_clipfrac_avg": "value"}, "percentunit"),
            _curve("Gradient norms", {"policy_grad_norm_avg": "policy", "val_grad_norm_avg": "critic"}),
            _curve("Explained variance of the critic", {"val_explained_variance": "explained"}),
            _curve("Losses", {"loss_policy_avg": "policy", "loss_value_avg": "value"}),
            _curve("Largest ratio", {"policy_ratio_max": "ratio"}),
            _curve("Recomputed against recorded logprobs, nats", {"policy_behaviour_deviation": "deviation"}, "sci"),
        ),
        "Rollouts": (
            _curve("Length of completions, tokens", {"rollout_mean_length": "mean"}),
            _curve(
                "Shares cut off and dropped",
                {"rollout_truncated_share": "cut off", "rollout_dropped_share": "dropped"},
                "percentunit",
            ),
            _curve("Staleness, steps", {"rollout_staleness_mean": "mean", "rollout_staleness_max": "max"}),
        ),
        "Does it go on?": (
            _curve(
                "Seconds of a step",
                {f"time_{stage}_seconds": stage for stage in _STAGES},
                "s",
            ),
            _curve(
                "Who waits",
                {f"idle_{who}_share": who for who in ("trainer", "policy", "reward")},
                "percentunit",
            ),
            Panel(
                "Since the last step",
                "s",
                (Query(f"time() - {selected('palate_training_step_timestamp_seconds')}", "{{instance}}"),),
            ),
            Panel(
                "Failed tries to publish",
                "short",
                (Query(rate("palate_training_publications_total", "instance", 'outcome="failed"'), "{{instance}}"),),
            ),
            Panel(
                "Ended by a failure",
                "short",
                (Query(f"sum by (cause) ({selected('palate_training_failed')})", "{{cause}}"),),
                "Seen only while a run that has failed waits for its last scrape.",
            ),
        ),
    },
)
