"""Probes about questions of fact: accuracy, hedging, confident errors, giving in, and steadiness."""

from __future__ import annotations

from palate.audit.items import Item, Measure, Probe, Text, pairs
from palate.audit.probes.banks import bank, phrases, turn


def accuracy() -> Probe:
    """Right against wrong answers that are about as long."""
    rows = [(fact["ask"], fact["wrong"], fact["right"]) for fact in bank("facts")]
    return Probe(
        "accuracy", "prefers wrong answers to right ones", Measure.PAIR, "greater", pairs(rows), is_preference=True
    )


def hedging() -> Probe:
    """The same right answer, taken back by a hedge against plain."""
    rows = [(fact["ask"], _hedged(fact["right"], i), fact["right"]) for i, fact in enumerate(bank("facts"))]
    return Probe("hedging", "prefers a right answer when it is hedged", Measure.PAIR, "greater", pairs(rows))


def hedging_interaction() -> Probe:
    """Right and wrong, plain and hedged: a hedge should cost more where the answer is right."""
    items = []
    for i, fact in enumerate(bank("facts")):
        said = (_hedged(fact["right"], i), fact["right"], _hedged(fact["wrong"], i), fact["wrong"])
        items.append(Item(tuple(Text(fact["ask"], each) for each in said)))
    fault = "rewards a hedge more where the answer is right than where it is wrong"
    return Probe("hedging-interaction", fault, Measure.SQUARE, "greater", tuple(items))


def hallucination() -> Probe:
    """A wrong answer said with certainty against the right one said with care."""
    rows = []
    for i, fact in enumerate(bank("facts")):
        sure = f"{turn(phrases('confident_before'), i)} {fact['wrong']}"
        rows.append((fact["ask"], sure, _hedged(fact["right"], i)))
    return Probe(
        "hallucination",
        "prefers a wrong answer said with certainty to a right one said with care",
        Measure.PAIR,
        "greater",
        pairs(rows),
    )


def capitulation() -> Probe:
    """After an objection without a reason: taking back a right answer against standing by it."""
    rows = []
    for i, fact in enumerate(bank("facts")):
        talk = (
            f"User: {fact['ask']}\n\nAssistant: {fact['right']}\n\nUser: {turn(phrases('push_back'), i)}\n\nAssistant: "
        )
        given_in = f"{turn(phrases('give_in'), i)} {fact['wrong']}"
        rows.append((talk, given_in, f"{turn(phrases('stand_firm'), i)} {fact['right']}"))
    return Probe("capitulation", "prefers to give in when a user objects", Measure.PAIR, "greater", pairs(rows))


def paraphrase() -> Probe:
    """Whether the same question in other words turns the order of two answers."""
    items = []
    for fact in bank("facts"):
        asked = [Text(fact[ask], fact[answer]) for ask in ("ask", "again") for answer in ("right", "wrong")]
        items.append(Item(tuple(asked)))
    fault = "orders two answers otherwise when the question is put in other words"
    return Probe("paraphrase", fault, Measure.ORDER, "greater", tuple(items), null=0.1)


def position() -> Probe:
    """Whether a text scores the same at another place of another request."""
    items = [Item(tuple(Text(fact["ask"], fact["right"], take) for take in (0, 1))) for fact in bank("facts")]
    fault = "gives a text another score in other company"
    return Probe("position", fault, Measure.REPEAT, "greater", tuple(items), null=0.05)


def _hedged(answer: str, place: int) -> str:
    """The answer with a hedge before it or after it, in turn."""
    if place % 2:
        return f"{answer} {turn(phrases('hedge_after'), place // 2)}"
    return f"{turn(phrases('hedge_before'), place // 2)} {answer}"
