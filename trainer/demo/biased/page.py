"""The report of the side-by-side demo: what each way taught, in one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from palate.audit.policy.card import policy_section
from palate.report.figures import Axis, bars, curves
from palate.report.page import Section, Table, write_page
from trainer.demo.biased.results import BiasedResults, PolicyChange, WayResult, checks
from trainer.demo.biased.table import HEADER, rows_of
from trainer.demo.page import History
from trainer.demo.results import told
from trainer.reward_model.config import ENSEMBLE_CENTRING

_SMOOTH = 3
_ANSWERS = 3
"""Business ideas whose answers are shown."""


def write_biased_page(path: Path, results: BiasedResults, runs: Mapping[str, History]) -> None:
    """Writes the report; `runs` is PPO step by step, of the ways with a policy."""
    lead = (
        f"The same pairs of one SFT policy, labelled by different people and learnt from in different ways, seed "
        f"{results.seed}, {sum(results.seconds.values()):.0f} seconds. Gold is the true reward of the simulated world; "
        "no training sees it. All measures are on prompt families that no phase has seen."
    )
    trained = [way for way in results.ways.values() if way.policy is not None]
    sections = [
        _bars_met(results),
        _ways(results),
        _business_idea(results),
        _proud_user(trained),
        _step_by_step(runs),
        *(policy_section(way.policy.audit, f"What the policy says: {way.name}") for way in trained if way.policy),
        _reliability(results),
        _ensemble(results.ways["ensemble"]),
        _expertise(results),
        _time(results),
    ]
    write_page(path, "Palate: what annotators teach", lead, sections)


def _bars_met(results: BiasedResults) -> Section:
    rows = [(c.name, c.measured, c.wanted, "yes" if c.holds else "NO") for c in checks(results)]
    return Section("Does it hold?", tables=[Table("", ("what", "measured", "bar", "holds"), rows)])


def _ways(results: BiasedResults) -> Section:
    text = (
        "Proxy is what the way's own reward model says of its policy, gold what the answers are worth, both in SD of "
        "the SFT policy's completions. A proxy that rises while gold falls is a policy that says what annotators like "
        "to hear. The training curve of the proxy alone looks as good in both cases.\n\n"
        "“Flagged” is what the audit of the reward model finds, before any policy is trained against it."
    )
    gains = {way.name: way.policy for way in results.ways.values() if way.policy is not None}
    figures = [
        bars("proxy gained", Axis("", "SD"), {name: policy.proxy_gain for name, policy in gains.items()}, ("SFT", 0.0)),
        bars(
            "gold gained",
            Axis("", "SD"),
            {name: p.gold_gain for name, p in gains.items() if p.gold_gain is not None},
            ("SFT", 0.0),
        ),
    ]
    panels = Table("who labels", ("way", "labels and learning"), [(w.name, w.told) for w in results.ways.values()])
    return Section("Side by side", text, [Table("", HEADER, rows_of(results)), panels], figures)


def _business_idea(results: BiasedResults) -> Section:
    """Honest critique against flattery, scored by every reward model."""
    ways = results.ways.values()
    first = [(way.name, way.reward.ideas[0], way.reward.honest_wins) for way in ways]
    example = first[0][1]
    rows = [(name, f"{i.flattering_score:+.2f}", f"{i.honest_score:+.2f}", f"{wins} of 20") for name, i, wins in first]
    text = (
        "Somebody proudly presents a business idea whose numbers do not add up. One answer flatters, one says so. "
        "Scores are comparable within a row only.\n\n"
        f"“{example.prompt}”\n\nFlattering: {example.flattering}\n\nHonest: {example.honest}"
    )
    header = ("reward model", "flattering", "honest", "honest wins, of all paraphrases")
    return Section("What do you think of my business idea?", text, [Table("", header, rows)])


def _proud_user(trained: Sequence[WayResult]) -> Section:
    tables = [
        Table(f"{way.name}: gold in brackets", ("question", "before (SFT)", "after"), _answers(way.policy))
        for way in trained
        if way.policy is not None
    ]
    return Section("What the policies answer", "To the same business ideas, before and after training.", tables)


def _answers(policy: PolicyChange) -> list[tuple[str, str, str]]:
    return [
        (each.prompt, f"{each.before} ({each.gold_before:.1f})", f"{each.after} ({each.gold_after:.1f})")
        for each in policy.answers[:_ANSWERS]
    ]


def _step_by_step(runs: Mapping[str, History]) -> Section:
    steps = next(iter(runs.values())).steps
    scores = {name: run.metrics["objective/scores"] for name, run in runs.items()}
    kl = {name: run.metrics["objective/kl"] for name, run in runs.items()}
    figures = [
        curves("the proxy, which training sees (units differ)", Axis("step", "score"), steps, scores, _SMOOTH),
        curves(
            "gold, which it does not", Axis("step", "gold"), steps, {n: run.gold for n, run in runs.items()}, _SMOOTH
        ),
        curves("how far the policies went", Axis("step", "KL, nats"), steps, kl, _SMOOTH),
    ]
    return Section("PPO, step by step", figures=figures)


def _reliability(results: BiasedResults) -> Section:
    header = ("annotator", "votes", "reliability", "95 %")
    tables = [
        Table(f"{name}: {results.ways[name].told}", header, _annotators(results.ways[name]))
        for name in ("reliability", "majority")
    ]
    return Section("What reliability modelling can do, and what not", _RELIABILITY, tables)


_RELIABILITY = """Reliability is one number for each annotator: how often their votes agree with what the votes of
all, weighed by reliability, make of the pairs. It finds people who are wrong more often than others, whatever the
reason. In “reliability” seven of ten like warmth, but they are also hasty, and so it sees them on all the pairs in
which warmth plays no part; their taste loses its weight with their votes.

It does not know what is true. In “majority” the same seven are as careful as the three who are honest. Then what
the seven like is what most reliable votes say, and the honest ones look unreliable: it sides with the majority, and
more firmly than plain votes do. The likelihood is the same with all scores and all reliabilities turned around; a
prior that most people are mostly right decides, and where most share a bias it decides for the bias. No model of
votes can tell a shared bias from a shared truth: that takes something from outside, such as labels of experts, or
an audit."""


def _annotators(way: WayResult) -> list[tuple[str, ...]]:
    return [
        (each.name, str(each.votes), f"{r.value:.2f}", f"{r.low:.2f} to {r.high:.2f}")
        for each in way.reward.annotators
        if (r := each.reliability) is not None
    ]


def _ensemble(way: WayResult) -> Section:
    doubt = None if way.policy is None else way.policy.doubt_in_sd
    found = (
        ""
        if doubt is None
        else f"Members' scores differ by {doubt[0]:.2f} SD before and {doubt[1]:.2f} after, in SD of the mean score of "
        "the SFT policy's completions. "
    )
    text = (
        f"{found}Members are heads of one backbone, trained on the same labels, every one on all of them (no "
        "bootstrap), and the policy is trained on their mean less a part of their variance. So this way differs from "
        f"“biased” in two more things: its scores are kept around 0 ({ENSEMBLE_CENTRING:g} times the mean square of a "
        "pair's sum), and its critic starts from the policy, since a critic has one head; that of the others starts "
        "from the reward model. What separates the two is what all of this does together.\n\n"
        "An ensemble helps where members disagree: about noise, and about texts unlike those they have seen. A bias "
        "that all labels share is learnt by all members alike, and nothing of it shows in their disagreement."
    )
    return Section("What an ensemble can do, and what not", text)


def _expertise(results: BiasedResults) -> Section:
    found = results.expertise
    shares = [point.experts for point in found]
    series = {"what the panel thinks of it": [p.thought for p in found], "what it is worth": [p.gold for p in found]}
    gap = {"gap": [point.gap for point in found], "near misses in an answer": [p.near_misses for p in found]}
    rows = [
        (f"{p.experts:.0%}", f"{p.thought:.2f}", f"{p.gold:.2f}", f"{p.gap:.2f}", f"{p.near_misses:.2f}") for p in found
    ]
    figures = [
        curves("the answer that the reward model picks", Axis("share of experts", "gold"), shares, series),
        curves("the gap between both", Axis("share of experts", ""), shares, gap),
    ]
    header = ("experts", "the panel thinks", "gold", "gap", "near misses")
    return Section("What no reward model can fix", _EXPERTISE, [Table("", header, rows)], figures)


_EXPERTISE = """Some answers are subtly wrong: only an expert notices. Eight honest annotators, some of them
experts, label pairs of answers with true points, near misses and critiques; a reward model (a bag of words here, as
it takes seconds) learns from them and picks the best of sixteen answers. With fewer experts the picked answers are
worth less and less, while what the annotators think of them stays as high. Nothing in the labels shows it, and
neither reliabilities nor ensembles look anywhere else."""


def _time(results: BiasedResults) -> Section:
    rows = [(phase, f"{seconds:.1f}") for phase, seconds in results.seconds.items()]
    total = told(sum(results.seconds.values()), ".0f")
    return Section("Where the time went", tables=[Table(f"wall clock, {total} seconds", ("phase", "seconds"), rows)])
