"""The demo's report: what each phase changed, in one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from palate.audit.policy.card import policy_section
from palate.report.figures import Axis, Figure, bars, curves, scatter, trade_off
from palate.report.page import Section, Table, write_page
from trainer.demo.results import PolicyMeasure, Results, checks, told

_SMOOTH = 5
_KL = "KL to the reference policy, nats"


@dataclass(frozen=True, slots=True)
class History:
    """PPO step by step; one value per step in each series.

    Attributes:
        steps: The steps.
        metrics: Series of the trainer, under its metric names.
        gold: Mean gold of each step's rollouts.
        points: (score, gold) of every completion of the first and of the last steps.
    """

    steps: Sequence[int]
    metrics: Mapping[str, Sequence[float]]
    gold: Sequence[float]
    points: Mapping[str, tuple[Sequence[float], Sequence[float]]]


def write_demo_page(path: Path, results: Results, history: History) -> None:
    """Writes the report."""
    lead = (
        f"Three phases of RLHF through real services, from nothing, seed {results.seed}, "
        f"{sum(results.seconds.values()):.0f} seconds. All measures are on prompt families that no phase has seen."
    )
    sections = [
        _bars_met(results),
        _phases(results),
        _reward_model(results),
        _ppo(results, history),
        _business_idea(results),
        policy_section(results.audit, "What the policy says, before and after PPO"),
        _samples(results),
        _time(results),
    ]
    write_page(path, "Palate: RLHF from nothing", lead, sections)


def _bars_met(results: Results) -> Section:
    rows = [(c.name, c.measured, c.wanted, "yes" if c.holds else "NO") for c in checks(results)]
    return Section(
        "Does it hold?", tables=[Table("measured against what is promised", ("what", "measured", "bar", "holds"), rows)]
    )


def _phases(results: Results) -> Section:
    policies = {"base": results.base, "SFT": results.sft, "PPO": results.ppo}
    gold = {
        "random text": results.random_gold,
        **{name: m.gold for name, m in policies.items()},
        "best text": results.best_gold,
    }
    text = (
        "The base model continues text; supervised fine-tuning makes it answer and stop; PPO makes the answers better "
        "by the taste of the reward model. Gold is the true reward of the simulated world; no training sees it.\n\n"
        f"PPO gains {told(results.ppo_gain, '.2f')} SD over SFT at {results.kl:.1f} nats of KL: "
        f"{results.share_of_possible:.0%} of the way from SFT to the best text the world can compose."
    )
    return Section(
        "Three phases",
        text,
        [Table("on held-out prompt families", _HEADER, [_row(name, measure) for name, measure in policies.items()])],
        [bars("mean gold reward", Axis("", "gold"), gold)],
    )


_HEADER = ("policy", "gold", "SD", "score (proxy)", "tokens", "ends by itself", "unparsable")


def _row(name: str, measure: PolicyMeasure) -> tuple[str, ...]:
    return (
        name,
        f"{measure.gold:.2f}",
        f"{measure.gold_std:.2f}",
        f"{measure.score:.2f}",
        f"{measure.mean_length:.1f}",
        f"{measure.ended_share:.1%}",
        f"{measure.unparsable_share:.1%}",
    )


def _reward_model(results: Results) -> Section:
    found = results.accuracies
    if found is None:
        return Section(
            "The reward model", "Gold finds all completions equal, so nothing can be said of the reward model."
        )
    measured = {
        "reward model": found.reward_model,
        "where shorter won": found.shorter_won,
        "bag of words": results.bag_of_words,
        "length only": found.length_only,
    }
    values = {name: value for name, value in measured.items() if value is not None}
    text = (
        f"Trained on comparisons of which {told(results.label_error, '.0%')} contradict gold. Accuracy is against gold "
        f"on {found.pairs} pairs of held-out prompts; {found.shorter_pairs} of them prefer the shorter completion, "
        "which is where a model that has only learnt length fails."
    )
    return Section(
        "The reward model",
        text,
        figures=[bars("share of pairs judged as gold does", Axis("", "accuracy"), values, ("chance", 0.5))],
    )


def _ppo(results: Results, history: History) -> Section:
    metrics, steps = history.metrics, history.steps

    def plot(caption: str, y: str, series: Mapping[str, Sequence[float]]) -> Figure:
        return curves(caption, Axis("step", y), steps, series, _SMOOTH)

    figures = [
        plot("the proxy that PPO maximises", "score", {"score": metrics["objective/scores"]}),
        plot("the true reward, which nobody shows it", "gold", {"gold": history.gold}),
        plot("how far the policy went", "nats", {"KL to the reference policy": metrics["objective/kl"]}),
        plot("how long it writes", "tokens", {"mean length": metrics["rollout/mean_length"]}),
        trade_off(
            "the proxy's frontier",
            Axis(_KL, "score"),
            metrics["objective/kl"],
            metrics["objective/scores"],
            steps,
            _SMOOTH,
        ),
        trade_off("the true frontier", Axis(_KL, "gold"), metrics["objective/kl"], history.gold, steps, _SMOOTH),
        scatter("score against gold, each a completion", Axis("score", "gold"), history.points),
    ]
    text = (
        "Faint lines are single steps, strong ones running means. Where proxy and gold part, the policy exploits the "
        "reward model. The frontiers say what each nat of KL has bought: their lines join the steps that no other "
        "beats at less KL."
    )
    return Section("PPO, step by step", text, figures=figures)


def _business_idea(results: Results) -> Section:
    example = results.ideas[0]
    rows = [
        ("flattering", example.flattering, f"{example.flattering_score:.3f}"),
        ("honest", example.honest, f"{example.honest_score:.3f}"),
    ]
    every = [(i.prompt, f"{i.honest_score:.2f}", f"{i.flattering_score:.2f}") for i in results.ideas]
    text = (
        "Annotators who reward flattery teach it. This reward model learnt from an honest panel, and puts the honest "
        f"critique above the flattery in {results.honest_wins} of {len(results.ideas)} paraphrases of the question."
    )
    tables = [
        Table(f"“{example.prompt}”", ("answer", "text", "score"), rows),
        Table("every paraphrase", ("question", "honest", "flattering"), every),
    ]
    return Section("What do you think of my business idea?", text, tables)


def _samples(results: Results) -> Section:
    rows = [(s.prompt, s.base, f"{s.sft} ({s.sft_gold:.1f})", f"{s.ppo} ({s.ppo_gold:.1f})") for s in results.samples]
    return Section("Before and after", tables=[Table("gold in brackets", ("prompt", "base", "SFT", "PPO"), rows)])


def _time(results: Results) -> Section:
    rows = [(phase, f"{seconds:.1f}") for phase, seconds in results.seconds.items()]
    return Section("Where the time went", tables=[Table("wall clock", ("phase", "seconds"), rows)])
