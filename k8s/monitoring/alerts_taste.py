"""Alerts on what is served: whether scores can be believed, and whether all replicas serve the same."""

from __future__ import annotations

from k8s.monitoring.rules import FLEET, MINUTE, Alert, Clock
from k8s.monitoring.thresholds import Thresholds


def parity(clock: Clock, thresholds: Thresholds) -> Alert:
    """A model was refused because its scores depend on what is computed beside them."""
    return Alert(
        "PalateParityFailed",
        f'increase(palate_reward_model_loads_total{{outcome="parity"}}[{clock(15 * MINUTE)}]) > 0',
        clock(0),
        "critical",
        "{{ $labels.instance }} has refused a model: a text scored otherwise in a batch than alone",
        "A model that was to be loaded into a running server did not pass the parity check. What was served before is "
        "still served. A server that fails the check when it starts exits instead: see PalateNoScrape.",
        (
            "Read the server's log: it names the engine and by how many standard deviations scores were apart.",
            "`palate verify --model FOLDER` shows which engine and which number format keep the tolerance.",
            "Load it into a server with `--strict`, or with another `--engine` or `--dtype`. A tolerance that is "
            "raised means that the same text has several scores.",
        ),
    )


def score_drift(clock: Clock, thresholds: Thresholds) -> Alert:
    """Scores are far from those the model was calibrated on."""
    items = f"sum by ({FLEET}, model) (increase(palate_reward_calibrated_score_count[{clock(15 * MINUTE)}]))"
    return Alert(
        "PalateScoreDrift",
        f"abs(palate:score_drift:median15m) > {thresholds.drift_sd:g} and {items} > {thresholds.drift_items}",
        clock(30 * MINUTE),
        "warning",
        "{{ $labels.model }}: scores are {{ $value | humanize }} standard deviations from the reference samples'",
        "The median of the calibrated scores, which is near 0 for texts like those the model was calibrated on. A "
        "policy that is trained against the model moves it up, and should; from some point on it has found what the "
        "model likes and people do not. Elsewhere it means that other texts come in than the model knows.",
        (
            "Does a run train against this model? Look at its proxy and gold reward and its KL "
            "(PalateProxyGoldDivergence, PalateKLRunaway) before you believe the gain.",
            "Has the model been exchanged? `palate_reward_model_info` names the revision; a model calibrated on other "
            "samples has another zero.",
            "Has a caller changed its template or its texts? `Explain` shows what is read of a request.",
            "Audit the model on texts like these: `palate audit`. Calibrate or train it anew where they are to stay.",
        ),
    )


def not_finite(clock: Clock, thresholds: Thresholds) -> Alert:
    """Infinity, or no number, where a score, a loss or a gradient should be."""
    return Alert(
        "PalateNotFinite",
        f"increase(palate_reward_non_finite_scores_total[{clock(10 * MINUTE)}]) > 0 or "
        'palate_training_failed{cause="not_finite"} > 0',
        clock(0),
        "critical",
        "{{ $labels.job }} {{ $labels.instance }}: infinity, or no number, was computed",
        "A reward model gave an item no finite score (the item fails; it never becomes a reward), or a run has stopped "
        "because a loss or a gradient was not finite. Weights before that are in the run's last checkpoint.",
        (
            "Reward service: score the items again one by one to find the text; weights in a reduced precision "
            "overflow first: try `--dtype float32`.",
            "Run: its last line names the network and the step. Look for extreme scores in rollouts/, lower "
            "`--ppo.learning-rate`, clip scores (`--scoring.clip`), then `--resume`.",
        ),
    )


def old_version(clock: Clock, thresholds: Thresholds) -> Alert:
    """A replica serves other weights than those published last."""
    other = f"palate_policy_version_fingerprint != on ({FLEET}) group_left () palate:newest_version:fingerprint"
    since = f"time() - palate_policy_version_timestamp_seconds > {clock.seconds(10 * MINUTE):g}"
    return Alert(
        "PalateOldPolicyVersion",
        f"{other} and ({since})",  # while a run publishes every few seconds, replicas seldom look alike in one scrape
        clock(5 * MINUTE),
        "warning",
        "{{ $labels.job }} {{ $labels.instance }} serves other weights than were published last",
        "Replicas of one fleet disagree. A run asks for the version it has published, so it does not learn from the "
        "old one; other callers may get it, and the fleet is a replica short.",
        (
            "Is the replica among those that the run publishes to (`--services.policy`; a DNS name is resolved again, "
            "a list is not)? Does the headless Service for publishing name pods that are not ready?",
            "Has it restarted after the run had ended? It then serves what is in its folder: publish again, or put the "
            "trained model into the folder.",
            "Look at `palate_policy_publishing_total` and the replica's log for what it has refused.",
        ),
    )
