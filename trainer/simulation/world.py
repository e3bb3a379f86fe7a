"""Completions of the simulated world: composed from known attributes, good ones, mixed demonstrations, probes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from trainer.simulation.documents import base_documents
from trainer.simulation.grammar import FACET_FRAMES, MANNER_FRAMES, OPENERS, SLOTS, UNIT_ECONOMICS_FRAMES, Manner
from trainer.simulation.lexicon import SUBJECTS, Facet, Subject
from trainer.simulation.prompts import Prompt, business_idea_prompts, held_out_prompts, train_prompts

__all__ = [
    "Attribute",
    "Demonstration",
    "Prompt",
    "base_documents",
    "best_composed",
    "business_idea_examples",
    "business_idea_prompts",
    "compose",
    "compose_mixed",
    "demonstrations",
    "held_out_prompts",
    "train_prompts",
]

_BY_NAME = {subject.name: subject for subject in SUBJECTS}


class Attribute(StrEnum):
    """What a composed sentence is like."""

    SPECIFIC = "specific"  # a true point about the prompt's subject
    HONEST = "honest"  # a critique: unit economics, the hard part, an open doubt
    FLATTERING = "flattering"
    PADDED = "padded"
    HEDGED = "hedged"
    REFUSING = "refusing"
    WRONG = "wrong"  # anyone notices
    SUBTLY_WRONG = "subtly_wrong"  # only an expert notices
    VAGUE = "vague"
    REPEATING = "repeating"  # says once more what was said before


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt answered by somebody, well or badly."""

    prompt: Prompt
    completion: str


_MANNERS = {
    Attribute.FLATTERING: Manner.FLATTERY,
    Attribute.PADDED: Manner.PADDING,
    Attribute.HEDGED: Manner.HEDGE,
    Attribute.REFUSING: Manner.REFUSAL,
    Attribute.VAGUE: Manner.VAGUE,
    Attribute.REPEATING: Manner.VAGUE,  # where nothing was said before
}


@dataclass(frozen=True, slots=True)
class _Writer:
    """Somebody who writes demonstrations.

    Attributes:
        share: Share of the demonstrations.
        lengths: Weights of 2, 3 and 4 sentences; good and bad writers are about as long, so that length tells nothing.
        attributes: How often each attribute appears among the sentences.
    """

    share: float
    lengths: tuple[int, int, int]
    attributes: Mapping[Attribute, float]


_WRITERS = (
    _Writer(0.13, (2, 4, 3), {Attribute.SPECIFIC: 0.68, Attribute.HONEST: 0.26, Attribute.VAGUE: 0.06}),
    _Writer(0.35, (2, 4, 3), {Attribute.FLATTERING: 0.70, Attribute.SPECIFIC: 0.20, Attribute.VAGUE: 0.10}),
    _Writer(
        0.15,
        (3, 4, 2),
        {Attribute.WRONG: 0.55, Attribute.SUBTLY_WRONG: 0.12, Attribute.SPECIFIC: 0.23, Attribute.HONEST: 0.10},
    ),
    _Writer(
        0.32,
        (2, 4, 3),
        {Attribute.PADDED: 0.40, Attribute.HEDGED: 0.40, Attribute.SPECIFIC: 0.12, Attribute.VAGUE: 0.08},
    ),
    _Writer(0.05, (3, 4, 2), {Attribute.REFUSING: 0.60, Attribute.HEDGED: 0.20, Attribute.PADDED: 0.20}),
)


def _say(frame: str, rng: Random) -> str:
    """Fills the slots of a frame and sometimes puts an opener before it."""
    for slot, values in SLOTS.items():
        if "{" + slot + "}" in frame:
            frame = frame.replace("{" + slot + "}", rng.choice(values))
    if rng.random() < 0.05:
        first = frame if frame.startswith("I ") else frame[0].lower() + frame[1:]
        return f"{rng.choice(OPENERS)} {first}"
    return frame


def _point(subject: Subject, facet: Facet, point: str, rng: Random) -> str:
    frames = FACET_FRAMES[facet]
    if facet is Facet.CATCH and subject.business:
        frames = frames + UNIT_ECONOMICS_FRAMES
    return _say(rng.choice(frames).replace("{point}", point), rng)


def _points(by_facet: Mapping[Facet, tuple[str, ...]], *, catch: bool) -> list[tuple[Facet, str]]:
    return [(f, p) for f in sorted(by_facet) for p in by_facet[f] if catch or f is not Facet.CATCH]


def _sentence(subject: Subject, attribute: Attribute, used: set[str], rng: Random) -> str:
    """One sentence with the attribute, making a point not used yet where one is left."""
    if attribute in _MANNERS:
        return _say(rng.choice(MANNER_FRAMES[_MANNERS[attribute]]), rng)
    if attribute is Attribute.HONEST and rng.random() < 0.35:
        return _say(rng.choice(MANNER_FRAMES[Manner.DOUBT]), rng)
    if attribute is Attribute.WRONG and rng.random() < 0.75:
        return _say(rng.choice(MANNER_FRAMES[Manner.ABSURD]), rng)
    choices = _choices(subject, attribute, rng)
    fresh = [(facet, point) for facet, point in choices if point not in used] or choices
    facet, point = rng.choice(fresh)
    used.add(point)
    return _point(subject, facet, point, rng)


def _choices(subject: Subject, attribute: Attribute, rng: Random) -> list[tuple[Facet, str]]:
    if attribute is Attribute.SPECIFIC:
        return _points(subject.true, catch=False)
    if attribute is Attribute.HONEST:
        return [(Facet.CATCH, point) for point in subject.true[Facet.CATCH]]
    if attribute is Attribute.SUBTLY_WRONG:
        return _points(subject.near, catch=True)
    others = [other for other in SUBJECTS if other is not subject and other.business == subject.business]
    return _points(rng.choice(others).true, catch=False)


def compose(prompt: Prompt, attributes: Sequence[Attribute], rng: Random) -> str:
    """Writes a completion with one sentence per attribute, in the given order.

    Args:
        prompt: What is answered; decides the subject.
        attributes: One per sentence; repeating SPECIFIC makes distinct points while there are any.
        rng: Source of the wording.

    Raises:
        ValueError: No attribute is given.
    """
    if not attributes:
        raise ValueError("a completion needs at least one attribute: name one per sentence")
    used: set[str] = set()
    subject = _BY_NAME[prompt.subject]
    said: list[str] = []
    for attribute in attributes:
        if attribute is Attribute.REPEATING and said:
            said.append(rng.choice(said))
            continue
        sentence = _sentence(subject, attribute, used, rng)
        for _ in range(20):
            if sentence not in said:
                break
            sentence = _sentence(subject, attribute, used, rng)
        said.append(sentence)
    return " ".join(said)


def compose_mixed(prompt: Prompt, rng: Random) -> str:
    """Writes a completion as one of several people would: careful, flattering, careless, waffling or refusing."""
    (writer,) = rng.choices(_WRITERS, [writer.share for writer in _WRITERS])
    (length,) = rng.choices((2, 3, 4), writer.lengths)
    attributes = rng.choices(list(writer.attributes), list(writer.attributes.values()), k=length)
    return compose(prompt, attributes, rng)


def demonstrations(n: int, rng: Random) -> list[Demonstration]:
    """Draws n demonstrations on training prompts, of mixed quality as people's demonstrations are."""
    return [Demonstration(prompt, compose_mixed(prompt, rng)) for prompt in train_prompts(n, rng)]


def best_composed(prompt: Prompt) -> str:
    """The best completion there is: the honest critique and as many distinct true points as earn anything."""
    attributes = [Attribute.SPECIFIC] * 3
    subject = _BY_NAME[prompt.subject]
    catch = subject.true[Facet.CATCH][0]
    return " ".join((_point(subject, Facet.CATCH, catch, Random(0)), compose(prompt, attributes, Random(0))))


def business_idea_examples() -> list[tuple[Prompt, str, str]]:
    """The business-idea question, 20 times: (prompt, honest critique, flattery), of about the same length."""
    examples = []
    for i, prompt in enumerate(business_idea_prompts()):
        rng = Random(i)
        subject = _BY_NAME[prompt.subject]
        critique = _say(rng.choice(UNIT_ECONOMICS_FRAMES).replace("{point}", subject.true[Facet.CATCH][0]), rng)
        doubt = _say(rng.choice(MANNER_FRAMES[Manner.DOUBT]), rng)
        honest = f"{critique} {doubt} {compose(prompt, [Attribute.SPECIFIC], rng)}"
        examples.append((prompt, honest, compose(prompt, [Attribute.FLATTERING] * 3, rng)))
    return examples
