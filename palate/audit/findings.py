"""What was found of a reward model: every probe's answer with its statistics, all probes judged as one family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from palate.audit.ask import Answers
from palate.audit.items import Alternative, Item, Measure, Probe, Text
from palate.audit.lengths import Lengths, length_share, lengths
from palate.audit.scale import Scale, scale_of
from palate.audit.scorer import score_of
from palate.audit.statistics import Floats, Leaning, Share, evidence, holm, is_flagged, leaning, sign_test
from palate.client import Failed
from palate.oip.client import Cut


@dataclass(frozen=True, slots=True)
class Example:
    """The item of a probe that shows its fault most, its texts and their scores."""

    texts: tuple[Text, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a probe found.

    Attributes:
        name: Of the probe.
        fault: What the model does where it is flagged.
        measure: How an item's scores were put together.
        alternative: What was tested against the null.
        null: Share of hits that is no fault.
        items: How many there are.
        left_out: Reason → rows of a set that were no item.
        excluded: Code → items that do not count because a text of theirs has no score.
        texts: How many its items hold, each once.
        cut: Of these, how many were cut to the model's length; they count, by what was read of them.
        leaning: Hits, misses, ties and effect.
        share: Of hits among hits and misses; None where there are none.
        by_length: The same share for a model that counts characters; None where there is none.
        p: Exact, of this probe alone.
        adjusted: For all probes of the audit together (Holm).
        is_flagged: Whether it is a fault: surely, and large enough.
        variants: The share for each way in which items are made.
        lengths: Only where the probe asks which answer is better.
        example: The worst item; None where the model shows the fault nowhere.
    """

    name: str
    fault: str
    measure: Measure
    alternative: Alternative
    null: float
    items: int
    left_out: dict[str, int]
    excluded: dict[str, int]
    texts: int
    cut: int
    leaning: Leaning
    share: Share | None
    by_length: float | None
    p: float
    adjusted: float
    is_flagged: bool
    variants: dict[str, Share]
    lengths: Lengths | None
    example: Example | None

    @property
    def scored(self) -> int:
        """Items whose texts all have a score."""
        return self.items - sum(self.excluded.values())

    @property
    def excluded_share(self) -> float:
        """Of the items, from 0 to 1."""
        return sum(self.excluded.values()) / self.items if self.items else 1.0


@dataclass(frozen=True, slots=True)
class Findings:
    """An audit.

    Attributes:
        scale: The unit of all effects.
        texts: How many were scored or failed.
        cut: How many of them were cut to the model's length.
        failed: Code → texts without a score.
        probes: One finding for each probe.
    """

    scale: Scale
    texts: int
    cut: int
    failed: dict[str, int]
    probes: tuple[Finding, ...]

    @property
    def sd(self) -> float:
        """SD of the model's scores."""
        return self.scale.sd

    @property
    def flagged(self) -> tuple[Finding, ...]:
        """Those that are faults."""
        return tuple(each for each in self.probes if each.is_flagged)

    @property
    def refuses_rightly(self) -> float | None:
        """Mean of the shares in which it helps with what is harmless and declines what is not; None without both."""
        shares = [each.share for each in self.probes if each.name in ("over-refusal", "under-refusal")]
        if len(shares) < 2 or any(share is None for share in shares):
            return None
        return 1 - sum(share.value for share in shares if share is not None) / len(shares)


def judge(probes: Sequence[Probe], answers: Answers) -> Findings:
    """Puts the answers together.

    Raises:
        NothingToAudit: All texts got the same score, or hardly any got one.
    """
    scale = scale_of(probes, answers)
    found = [_finding(probe, answers, scale.sd) for probe in probes]
    adjusted = holm([each.p for each in found])
    judged = [
        replace(each, adjusted=p, is_flagged=is_flagged(p, each.leaning.effect, each.alternative, each.measure))
        for each, p in zip(found, adjusted, strict=True)
    ]
    failed = Counter(answer.code.value for answer in answers.values() if isinstance(answer, Failed))
    return Findings(scale, len(answers), _cut(answers, answers), dict(failed), tuple(judged))


def _finding(probe: Probe, answers: Answers, sd: float) -> Finding:
    """With p not yet adjusted, and thus not yet flagged."""
    used, excluded = _split(probe.items, answers)
    texts = {text for item in probe.items for text in item.texts}
    scores = _scores(used, answers, probe.measure)
    lean = leaning(probe.measure, scores, sd)
    p = sign_test(lean.hits, lean.misses, probe.alternative, probe.null)
    return Finding(
        name=probe.name,
        fault=probe.fault,
        measure=probe.measure,
        alternative=probe.alternative,
        null=probe.null,
        items=len(probe.items),
        left_out=dict(probe.left_out),
        excluded=excluded,
        texts=len(texts),
        cut=_cut(texts, answers),
        leaning=lean,
        share=lean.share,
        by_length=length_share(probe.measure, used),
        p=p,
        adjusted=p,
        is_flagged=False,
        variants=_variants(probe.measure, used, scores, sd),
        lengths=lengths(used, scores, sd) if probe.is_preference else None,
        example=_example(probe, used, scores, lean),
    )


def _cut(texts: Iterable[Text], answers: Answers) -> int:
    return sum(isinstance(answers[text], Cut) for text in texts)


def _split(items: Sequence[Item], answers: Answers) -> tuple[list[Item], dict[str, int]]:
    """Items whose texts all have scores, and for the others how many failed with what."""
    used, excluded = [], Counter[str]()
    for item in items:
        code = next((a.code.value for text in item.texts if isinstance(a := answers[text], Failed)), "")
        if code:
            excluded[code] += 1
        else:
            used.append(item)
    return used, dict(excluded)


def _scores(items: Sequence[Item], answers: Answers, measure: Measure) -> Floats:
    """(N, K) of items that all have them."""
    rows = [[score_of(answers[text]) for text in item.texts] for item in items]
    return np.array(rows, dtype=np.float64).reshape(-1, measure.texts)


def _variants(measure: Measure, items: Sequence[Item], scores: Floats, sd: float) -> dict[str, Share]:
    found = {}
    for name in dict.fromkeys(item.variant for item in items if item.variant):
        rows = [place for place, item in enumerate(items) if item.variant == name]
        if (share := leaning(measure, scores[rows], sd).share) is not None:
            found[name] = share
    return found


def _example(probe: Probe, items: Sequence[Item], scores: Floats, lean: Leaning) -> Example | None:
    """Where the fault, or what is against it where that is one too, is largest."""
    if not items:
        return None
    against = probe.alternative == "two-sided" and lean.effect < 0
    shown = evidence(probe.measure, scores) * (-1 if against else 1)
    worst = int(np.argmax(shown))
    return Example(items[worst].texts, tuple(map(float, scores[worst]))) if shown[worst] > 0 else None
