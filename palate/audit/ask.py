"""Has the texts of all probes scored, each once, and keeps the scores so that a stop loses nothing."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol, TypeAlias

from palate.audit.items import Probe, Text
from palate.audit.scorer import Outcome, Scorer, score_of
from palate.oip.client import Cut

Answers: TypeAlias = Mapping[Text, Outcome]


class Kept(Protocol):
    """Scores of an earlier run by key, as `palate.rescore.kept.KeptScores`."""

    def get(self, key: str) -> float | None:
        """The score; None where there is none."""
        ...

    def is_cut(self, key: str) -> bool:
        """Whether the text of that score was cut."""
        ...

    def add(self, scores: Mapping[str, float], cut: Collection[str] = ()) -> None:
        """Keeps scores; `cut` are the keys of texts that were cut."""
        ...


def ask(scorer: Scorer, probes: Iterable[Probe], kept: Kept | None, done: Callable[[int], None]) -> Answers:
    """What the model says of every text of the probes.

    Args:
        scorer: The model.
        probes: What to ask.
        kept: Scores of an earlier run, and where new ones go; failures are asked again. None = there is no such place.
        done: Is told how many more texts have an outcome.
    """
    texts = in_turn(probes)
    answers: dict[Text, Outcome] = {}
    if kept is not None:
        answers |= {text: known for text in texts if (known := _kept(kept, key_of(text))) is not None}
    done(len(answers))
    missing = [text for text in texts if text not in answers]
    rest = iter(missing)
    for outcomes in scorer.score(missing):
        part = dict(zip(itertools.islice(rest, len(outcomes)), outcomes, strict=True))
        if kept is not None:
            _keep(kept, part)
        answers |= part
        done(len(part))
    return answers


def _kept(kept: Kept, key: str) -> Outcome | None:
    score = kept.get(key)
    return score if score is None or not kept.is_cut(key) else Cut(score)


def _keep(kept: Kept, part: Answers) -> None:
    scores = {key_of(text): score for text, each in part.items() if (score := score_of(each)) is not None}
    kept.add(scores, {key_of(text) for text, each in part.items() if isinstance(each, Cut)})


def in_turn(probes: Iterable[Probe]) -> list[Text]:
    """Every text once: first takes in the order of the probes, later takes in another order and thus other company."""
    texts = dict.fromkeys(text for probe in probes for item in probe.items for text in item.texts)
    later = [text for text in texts if text.take]
    random.Random(0).shuffle(later)
    return [*(text for text in texts if not text.take), *later]


def key_of(text: Text) -> str:
    """What a text is known by: a SHA-256 of prompt, completion and take."""
    return hashlib.sha256(json.dumps(text).encode()).hexdigest()
