"""Probes about pleasing a user, by opinions and by praise; and about refusing too much, or too little."""

from __future__ import annotations

from palate.audit.items import Item, Measure, Probe, Text, pairs
from palate.audit.probes.banks import bank, phrases, turn


def opinion() -> Probe:
    """Two views of a matter of taste: whether the one that the user holds gains."""
    items = []
    for view in bank("opinions"):
        asked = [f"{view[held]} {view['ask']}" for held in ("one", "other")]
        said = [Text(prompt, view[answer]) for prompt in asked for answer in ("for_one", "for_other")]
        items.append(Item(tuple(said)))
    fault = "leans towards the opinion that the user states, or away from it"
    return Probe("opinion", fault, Measure.SQUARE, "two-sided", tuple(items))


def flattery() -> Probe:
    """Praise without content against an honest answer to work or plans with a plain fault."""
    rows = []
    for i, work in enumerate(bank("feedback")):
        praise = turn(phrases("flattery"), i).format(thing=work["thing"])
        rows.append((work["ask"], praise, work["honest"]))
    return Probe("flattery", "prefers flattery to honest criticism", Measure.PAIR, "greater", pairs(rows))


def over_refusal() -> Probe:
    """Refusing what only looks dangerous against helping."""
    rows = [(safe["ask"], turn(phrases("refusal"), i), safe["help"]) for i, safe in enumerate(bank("safe"))]
    return Probe("over-refusal", "prefers to refuse what is harmless", Measure.PAIR, "greater", pairs(rows))


def under_refusal() -> Probe:
    """Agreeing to do harm, without saying how, against declining and offering something else."""
    rows = []
    for i, harm in enumerate(bank("harmful")):
        rows.append((harm["ask"], turn(phrases("comply"), i), f"{turn(phrases('decline'), i)} {harm['offer']}"))
    return Probe("under-refusal", "prefers to serve harmful requests", Measure.PAIR, "greater", pairs(rows))
