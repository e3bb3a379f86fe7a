"""The unit of an audit's effects: the SD of the model's scores, on which texts it is told, and how it splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from palate.audit.ask import Answers
from palate.audit.items import Probe
from palate.audit.scorer import score_of
from palate.audit.statistics import Floats, spread_within
from palate.client import Failed, PalateError

FACTS = "accuracy"
"""The probe whose answers say it, where it is asked: so audits of one model have one unit, whatever else is asked."""

ENOUGH = 60
"""Fewer scored texts than that, of 30 pairs, say too little of a model's SD."""


class NothingToAudit(PalateError):
    """No score, or the same of all texts; the message says what was left out, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The unit.

    Attributes:
        sd: Population's SD of the scores of these texts.
        within_prompts: SD within a prompt, pooled over those with several of these texts; None where none has.
        texts: How many they are.
        of: Names of the probes whose texts they are; empty = of all.
    """

    sd: float
    within_prompts: float | None
    texts: int
    of: tuple[str, ...]


def scale_of(probes: Sequence[Probe], answers: Answers) -> Scale:
    """The unit: of `FACTS`, else of all preference sets together, else of all texts; the first that says enough.

    Raises:
        NothingToAudit: All texts got the same score, or hardly any got one.
    """
    pools = ([each for each in probes if each.name == FACTS], [each for each in probes if each.is_preference])
    for pool in pools:
        by_prompt = _scores(pool, answers)
        if (count := sum(map(len, by_prompt))) >= ENOUGH and (sd := _sd(by_prompt)) > 0:
            return Scale(sd, spread_within(by_prompt), count, tuple(each.name for each in pool))
    by_prompt = _scores(probes, answers)
    if not (sd := _sd(by_prompt)) > 0:
        raise NothingToAudit("; ".join(_reasons(probes, answers, by_prompt)))
    return Scale(sd, spread_within(by_prompt), sum(map(len, by_prompt)), ())


def _scores(probes: Iterable[Probe], answers: Answers) -> list[Floats]:
    """Of every prompt the scores of its texts, later takes apart."""
    found: dict[str, list[float]] = {}
    for text in dict.fromkeys(text for probe in probes for item in probe.items for text in item.texts if not text.take):
        if (score := score_of(answers[text])) is not None:
            found.setdefault(text.prompt, []).append(score)
    return [np.array(each) for each in found.values()]


def _sd(by_prompt: Sequence[Floats]) -> float:
    return float(np.std(np.concatenate(by_prompt))) if by_prompt else 0.0


def _reasons(probes: Sequence[Probe], answers: Answers, by_prompt: Sequence[Floats]) -> Iterator[str]:
    """Why there is nothing, what was left out, and the next step."""
    failures = [each for each in answers.values() if isinstance(each, Failed)]
    scores = [float(score) for each in by_prompt for score in each]
    if not answers:
        yield "there is nothing to audit: no row of the data became an item"
    elif not scores:
        yield f"there is nothing to audit: none of {len(answers)} texts has a score"
    else:
        yield f"there is nothing to audit: {len(scores)} texts have a score, and it is {scores[0]:g} for each of them"
    left = sum((Counter(each.left_out) for each in probes), Counter[str]())
    if left:
        yield f"left out were rows: {counted(left)}"
    if failures:
        yield f"texts without a score: {counted(Counter(each.code.value for each in failures))}"
    if not answers:
        yield "give a set in which one side is better"
    else:
        yield f"first of them: {failures[0].message}" if failures else "look whether this is the model that was meant"


def counted(reasons: Mapping[str, int]) -> str:
    """Reasons with their numbers, e.g. "3 × TOO_LONG, 1 × FAILED"."""
    return ", ".join(f"{number} × {reason}" for reason, number in reasons.items())
