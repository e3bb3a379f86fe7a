"""Alerts on a training run."""

from __future__ import annotations

from k8s.monitoring.rules import MINUTE, Alert, Clock
from k8s.monitoring.thresholds import Thresholds


def publish_failing(clock: Clock, thresholds: Thresholds) -> Alert:
    """New weights do not reach every replica."""
    failed = f'increase(palate_training_publications_total{{outcome="failed"}}[{clock(10 * MINUTE)}])'
    return Alert(
        "PalatePublishFailing",
        f'{failed} >= {thresholds.publish_tries} or palate_training_failed{{cause="publish"}} > 0',
        clock(0),
        "critical",
        "{{ $labels.instance }}: weights do not reach every replica of the policy service",
        "The run tries to publish and some replica does not take the weights; those that did are put back. It waits, "
        "and stops when its patience is over.",
        (
            "The run's log names the replica and its answer.",
            "The replica is away: mend or remove it. A name (`dns:...`) is resolved again at the next try.",
            "FailedPrecondition: another run publishes to the same fleet. End one of them.",
            "It does not get all bytes in time: raise `--services.stage-timeout`, or send less "
            "(`--services.full-every`, `--lora.rank`).",
        ),
    )


def stalled(clock: Clock, thresholds: Thresholds) -> Alert:
    """No step has ended for long."""
    since = "(time() - palate_training_step_timestamp_seconds)"
    usual = f"{since} < {thresholds.stalled_steps} * palate_training_time_step_seconds"
    return Alert(
        "PalateTrainingStalled",
        f"{since} > {clock.seconds(thresholds.stalled_seconds):g} unless {usual}",
        clock(5 * MINUTE),
        "warning",
        "{{ $labels.instance }}: no step has ended for {{ $value | humanizeDuration }}",
        "The process lives and no step ends: more than ten minutes, and more than ten times the step before.",
        (
            "What does it wait for? Its log says so at every retry; `palate_training_publications_total` shows a "
            "publication that does not succeed.",
            "Are the services ready, and is their queue short? A reward service that sheds makes runs slow.",
            "Several ranks: a rank that has gone makes the others wait, `--collective-timeout` at most.",
            "Nothing of that: stop it, and go on with `--resume`.",
        ),
    )


def kl_runaway(clock: Clock, thresholds: Thresholds) -> Alert:
    """The policy leaves the reference policy far behind."""
    kl, limits = "palate_training_objective_kl", thresholds
    grown = f"{kl} > {limits.kl_growth_nats:g} and {kl} > {limits.kl_growth:g} * {kl} offset {clock(30 * MINUTE)}"
    return Alert(
        "PalateKLRunaway",
        f"{kl} > {limits.kl_nats:g} or ({grown})",
        clock(5 * MINUTE),
        "warning",
        "{{ $labels.instance }}: the policy is {{ $value | humanize }} nats from its reference",
        "Mean KL of a completion to the reference policy: it is very large, or has tripled within half an hour. The "
        "score means less and less there.",
        (
            "Read samples (`samples.jsonl`, TensorBoard): are they still texts?",
            "Compare proxy and gold reward over KL (`report.html`); an earlier checkpoint may be the better policy.",
            "Raise `--ppo.kl-coef` or set `--ppo.kl-target`, lower `--ppo.learning-rate`; `--resume` from a checkpoint "
            "before it.",
        ),
    )


def divergence(clock: Clock, thresholds: Thresholds) -> Alert:
    """What is optimised rises, what is meant falls."""
    return Alert(
        "PalateProxyGoldDivergence",
        f"palate:training_proxy:trend1h > {thresholds.trend:g} "
        f"and palate:training_gold:trend1h < -{thresholds.trend:g}",
        clock(15 * MINUTE),
        "warning",
        "{{ $labels.instance }}: the score rises and the gold reward falls",
        "Over the last hour the score that is optimised went up and gold went down (correlation with time beyond one "
        "half, either way): over-optimisation. A run shows gold where `--watch.gold` or `--watch.gold-function` says "
        "what it is.",
        (
            "Take the checkpoint at which the gold reward was highest (`report.html` shows both over KL).",
            "Read what the policy writes now, and audit the reward model for what it has found: `palate audit`.",
            "Go on with more KL penalty, an ensemble's cautious score (`--scoring.aggregate`), or a reward model "
            "trained on comparisons of the new policy's completions.",
        ),
    )
