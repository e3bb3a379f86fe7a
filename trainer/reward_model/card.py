"""The model card: what a reward model learnt from, how good it is beside simple judges, and whom it believed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from palate.report.figures import Axis, Figure, bars, curves
from palate.report.page import Section, Table, write_page
from trainer.reward_model.annotators import AnnotatorReport
from trainer.reward_model.config import RewardTrainConfig
from trainer.reward_model.evaluate import Share
from trainer.reward_model.result import RewardResult, told_groups, told_unread
from trainer.reward_model.splits import LeftOut

_SHOWN = 50
"""Annotators in the table; report.json has all."""

_JUDGES = {
    "reward_model": "reward model",
    "length_only": "length only: the longer one",
    "bag_of_words": "bag of words, on the same labels",
    "shorter_won": "reward model, where the shorter one won",
    "threshold": "single texts against one threshold",
}


def write_card(path: Path, config: RewardTrainConfig, result: RewardResult) -> None:
    """Writes card.html; report.json holds the same figures, and every annotator."""
    lead = (
        f"Trained by Palate from {', '.join(config.start_names())} on {config.sources()['data']}, seed {config.seed}. "
        "Accuracies are on groups that training did not see, against what most votes say; intervals are 95 %."
    )
    sections = [_data(config, result), *_adapters(result), _accuracy(result), *_members(result), _sureness(result)]
    sections += [_annotators(result), _labels(result)]
    write_page(path, "Reward model card", lead, sections)


def _data(config: RewardTrainConfig, result: RewardResult) -> Section:
    data, votes = result.data, result.data.votes
    parts = zip(("learnt", "validation", "held out"), (data.learnt, data.validation, data.held_out), strict=True)
    splits = [(name, str(pairs), str(groups)) for (name, pairs), groups in zip(parts, data.groups, strict=True)]
    counts = [(name.replace("_", " "), str(count)) for name, count in asdict(votes).items()]
    loss = [(name.replace("_", " "), str(value)) for name, value in config.loss().items()]
    text = (
        "No group and no prompt is in two parts. What is left out is not used; duplicates (the same annotator said the "
        "same of the same pair again) are, as further votes on their pair."
    )
    if data.unread:
        text += f" Not read: {told_unread(data.unread)}."
    sources = [(name.replace("_", " "), value) for name, value in config.sources().items()]
    tables = [
        Table("sources", ("what", "from"), sources),
        Table("splits", ("part", "pairs", "groups"), splits),
        Table("votes", ("what", "count"), counts),
        *_unused("data", data.left_out, data.duplicates),
        *([] if (file := data.held_out_file) is None else _unused("held-out file", file.left_out, file.duplicates)),
        Table("labels and loss", ("option", "value"), loss),
    ]
    return Section("Data", text, tables)


def _unused(source: str, left_out: LeftOut, duplicates: int) -> list[Table]:
    rows = [(name.replace("_", " "), str(count)) for name, count in asdict(left_out).items()]
    return [
        Table(f"left out of the {source}", ("why", "count"), rows),
        Table(f"merged in the {source}", ("what", "count"), [("duplicates", str(duplicates))]),
    ]


def _adapters(result: RewardResult) -> list[Section]:
    found = result.adapters
    if found is None:
        return []
    text = (
        f"Trained with LoRA: adapters of rank {found.rank} on {found.layers} linear layers, and the head as a whole, "
        f"learnt: {found.share:.2%} of the model's parameters. Served are weights with the adapters merged into them."
    )
    rows = [(name, str(value)) for name, value in asdict(found).items()]
    return [Section("Adapters", text, [Table("LoRA", ("what", "value"), rows)])]


def _accuracy(result: RewardResult) -> Section:
    shares = {label: getattr(result.evaluation, name) for name, label in _JUDGES.items()}
    rows = [(label, *_cells(share), _over_groups(share)) for label, share in shares.items()]
    values = {label.split(",")[0].split(":")[0]: s.value for label, s in list(shares.items())[:3] if s is not None}
    text = (
        "A model that is no better than length may have learnt length; where the shorter completion won, length is "
        "always wrong."
    )
    if told := told_groups(result.evaluation):
        text += f"\n\n{told[0].upper()}{told[1:]}."
    if result.evaluation.threshold_split == "rows":
        text += (
            " With (nearly) all pairs in one group, the threshold was fitted on a half of the pairs, used on the other."
        )
    columns = ("judge", "accuracy", "interval over pairs", "pairs", "interval over groups")
    drawn = [bars("accuracy on held-out pairs", Axis("", "accuracy"), values, ("chance", 0.5))] if values else []
    return Section("Accuracy", text, [Table("held out", columns, rows)], drawn)


def _members(result: RewardResult) -> list[Section]:
    found = result.members
    if found is None:
        return []
    columns = zip(found.accuracies, found.offsets, found.scales, strict=True)
    rows = [
        (str(number), *_cells(share)[:2], f"{offset:+.2f}", f"{scale:.2f}")
        for number, (share, offset, scale) in enumerate(columns, 1)
    ]
    text = (
        f"Accuracies above are those of the members' mean. Members disagree by {found.disagreement:.2f} standard "
        f"deviations of the mean score; their differences of scores correlate at {found.correlation:.2f}. On the half "
        f"of the pairs on which they agree most the mean is right for {_cells(found.agreed)[0]}, on the other for "
        f"{_cells(found.disagreed)[0]}: where the second is no lower, disagreement says nothing about error.\n\n"
        "What all members have learnt alike, because the data say so, they agree on, right or wrong."
    )
    return [
        Section("Members", text, [Table("each alone", ("member", "accuracy", "interval", "offset", "scale"), rows)])
    ]


def _sureness(result: RewardResult) -> Section:
    found = result.sureness
    if found is None:
        return Section("Calibration", "Too few held-out pairs to measure it.")
    halves = "the held-out groups" if found.split == "groups" else "the held-out pairs, (nearly) all of one group,"
    text = (
        f"Expected calibration error {found.error:.3f}: how far the probability of the preferred side is from the "
        f"share of votes for it, on average. The temperature was fitted on one half of {halves} and used on the other. "
        f"The folder's logit scale is {result.logit_scale:.3f}."
    )
    predicted = [bin.predicted for bin in found.bins]
    series = {"model": [bin.observed for bin in found.bins], "ideal": predicted}
    rows = [(f"{bin.predicted:.3f}", f"{bin.observed:.3f}", str(bin.count)) for bin in found.bins]
    return Section(
        "Calibration",
        text,
        [Table("bins of equal width", ("predicted", "share of votes", "pairs"), rows)],
        [curves("reliability", Axis("probability of the preferred side", "share of votes for it"), predicted, series)],
    )


def _annotators(result: RewardResult) -> Section:
    rows = sorted(result.annotators, key=_by_reliability)
    if not rows:
        return Section("Annotators", "No vote says whose it is.")
    suspects = [row for row in rows if row.suspected()]
    text = (
        "Agreement: share of votes for a side that is also the side of most other votes on the pair. Reliability: how "
        "often a vote says what the scores say, learnt together with them, which are taken as known for the interval. "
        "An adversary's interval lies below one half; a spammer's holds one half and ends below what is usual here; an "
        "open one has too few votes to tell. A suspicion is a reason to look at the votes, and no verdict.\n\n"
    )
    learnt = rows[0].reliability is not None
    text += f"Suspected: {len(suspects)} of {len(rows)}." if learnt else "Learn it with --annotators reliability."
    title = f"the {min(_SHOWN, len(rows))} least reliable" if learnt else f"{min(_SHOWN, len(rows))} of {len(rows)}"
    header = ("annotator", "votes", "ties", "agreement", "interval", "reliability", "interval", "suspected")
    table = Table(title, header, [_annotator(row) for row in rows[:_SHOWN]])
    return Section("Annotators", text, [table], _reliabilities(rows))


def _annotator(row: AnnotatorReport) -> tuple[str, ...]:
    value, interval, _ = _cells(row.agreement)
    front = (row.name, str(row.votes), str(row.ties), value, interval)
    if (found := row.reliability) is None:
        return (*front, "–", "–", "–")
    suspicion = "–" if found.suspicion == "none" else found.suspicion
    return (*front, f"{found.value:.3f}", f"{found.low:.3f} to {found.high:.3f}", suspicion)


def _reliabilities(rows: list[AnnotatorReport]) -> list[Figure]:
    found = [row.reliability for row in rows if row.reliability is not None]
    if not found:
        return []
    series = {"reliability": [r.value for r in found], "low": [r.low for r in found], "high": [r.high for r in found]}
    return [curves("reliability, least first", Axis("annotator", ""), list(range(1, len(found) + 1)), series)]


def _by_reliability(row: AnnotatorReport) -> tuple[float, str]:
    return (row.reliability.value if row.reliability is not None else 0.0, row.name)


def _labels(result: RewardResult) -> Section:
    curve = result.learning_curve
    if curve is None:
        return Section("Labels needed", "Too few pairs for a learning curve.")
    needed, low, high = (_pairs(value, curve.pairs[0]) for value in (curve.needed, curve.low, curve.high))
    text = (
        f"An estimate: for an accuracy of {curve.target:.2f} a bag of words would need {needed} pairs (95 % bootstrap "
        f"interval over held-out pairs: {low} to {high}). Its error is taken to fall as a power of the pairs; beyond "
        "the data this is a guess, and the reward model's own curve may be steeper."
    )
    rows = [(str(n), f"{a:.3f}") for n, a in zip(curve.pairs, curve.accuracies, strict=True)]
    drawn = curves(
        "accuracy of a bag of words", Axis("pairs", "accuracy"), curve.pairs, {"bag of words": curve.accuracies}
    )
    return Section("Labels needed", text, [Table("learning curve", ("pairs", "accuracy"), rows)], [drawn])


def _pairs(estimate: int | None, fewest: int) -> str:
    """A number only where the curve was measured, or leads."""
    if estimate is None:
        return "more than 1000 times the data's"
    return f"fewer than {fewest}" if estimate < fewest else str(estimate)


def _over_groups(share: Share | None) -> str:
    return "–" if share is None or share.over_groups is None else "{:.3f} to {:.3f}".format(*share.over_groups)


def _cells(share: Share | None) -> tuple[str, str, str]:
    if share is None:
        return "–", "–", "0"
    return f"{share.value:.3f}", f"{share.low:.3f} to {share.high:.3f}", str(share.count)
