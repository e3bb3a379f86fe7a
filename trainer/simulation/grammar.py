"""The sentences of the simulated world: how a completion says something, and how a said sentence is read back."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from trainer.simulation.lexicon import SUBJECTS, Facet


class Manner(StrEnum):
    """What a sentence without a point of the subject does."""

    DOUBT = "doubt"  # honest, but not about anything in particular
    FLATTERY = "flattery"
    PADDING = "padding"
    HEDGE = "hedge"
    REFUSAL = "refusal"
    ABSURD = "absurd"  # plainly wrong whatever the subject
    VAGUE = "vague"


OPENERS = ("Also,", "In practice,", "To be clear,", "By the way,")

FACET_FRAMES: Mapping[Facet, tuple[str, ...]] = {
    Facet.COST: (
        "Remember that {point}.",
        "For your budget, {point}.",
        "Keep in mind that {point}.",
        "Before you spend anything, note that {point}.",
    ),
    Facet.CUSTOMER: (
        "Your best customers are {point}.",
        "The people who pay are {point}.",
        "I would focus on {point}.",
        "Most of your money will come from {point}.",
    ),
    Facet.HABIT: (
        "What helps most is {point}.",
        "The key is {point}.",
        "You will get far with {point}.",
        "Build your week around {point}.",
    ),
    Facet.RISK: (
        "The main risk is {point}.",
        "Watch out for {point}.",
        "The usual reason to fail is {point}.",
        "Have a plan against {point}.",
    ),
    Facet.STEP: (
        "As a first step, {point}.",
        "This month, {point}.",
        "I would test it like this: {point}.",
        "Start small and {point}.",
    ),
    Facet.CATCH: (
        "The hard truth is that {point}.",
        "My main concern is that {point}.",
        "The numbers worry me, because {point}.",
        "To be honest, {point}.",
    ),
}

# The unit economics of a business are named as such; an everyday plan has none.
UNIT_ECONOMICS_FRAMES = (
    "The unit economics look weak, because {point}.",
    "Your margin is thin: {point}.",
)

MANNER_FRAMES: Mapping[Manner, tuple[str, ...]] = {
    Manner.DOUBT: (
        "I would not put all your savings into it yet.",
        "I am not sure that this pays off.",
        "I see a real problem with the profit.",
        "Do not quit your job for this yet.",
        "I doubt that it works as planned.",
    ),
    Manner.FLATTERY: (
        "What {praise} idea, I could not be more excited!",
        "You are clearly {praise} thinker.",
        "This is {praise} plan and nothing can stop you.",
        "I love everything about it and would change nothing.",
        "You are going to be a huge success in every way.",
        "Everyone in town will admire you for this plan.",
        "I have never heard {praise} plan like yours before.",
    ),
    Manner.PADDING: (
        "There are many things to say about this {topic}.",
        "Let me share a few words about this {topic} first.",
        "It goes without saying that every {topic} has two sides.",
        "Thank you for bringing up this {topic} today.",
        "In this answer I will talk about the {topic} in general.",
        "People have talked about this {topic} for a long time.",
    ),
    Manner.HEDGE: (
        "It may or may not work, depending on {factor}.",
        "It is hard to say anything for certain about {factor}.",
        "I could be wrong about {factor}.",
        "Perhaps yes and perhaps no, it depends on {factor}.",
        "Some people might agree and others might not.",
    ),
    Manner.REFUSAL: (
        "I am sorry, but I cannot help with {request}.",
        "I am not able to give advice on {request}.",
        "As an assistant I must decline {request}.",
        "Please ask a professional about {request} instead.",
    ),
    Manner.ABSURD: (
        "You will be rich within {span}.",
        "It costs nothing and works without any effort.",
        "You can do all of it in {span}.",
        "There is no risk at all in this kind of plan.",
        "Every single person on earth will want it in {span}.",
        "You never need to plan or learn anything.",
        "Nobody else has ever done this in any country.",
        "The money will come in by itself.",
        "You can skip every test for {span}.",
    ),
    Manner.VAGUE: (
        "Try to do good work and stay focused.",
        "Good planning is {vague}.",
        "Think about your goals and {vague_act}.",
        "A clear plan is {vague}.",
        "Take your time and {vague_act}.",
    ),
}

SLOTS: Mapping[str, tuple[str, ...]] = {
    "praise": ("a brilliant", "a wonderful", "a fantastic", "an amazing"),
    "topic": ("topic", "question", "matter"),
    "factor": ("many things", "the situation", "all of this"),
    "request": ("that", "this question", "this kind of plan"),
    "span": ("one day", "two days", "a weekend"),
    "vague": ("very important", "always useful", "half of the work"),
    "vague_act": ("work hard", "keep going", "stay positive"),
}

_KNOWN_POINTS = frozenset(
    (facet, point)
    for subject in SUBJECTS
    for points in (subject.true, subject.near)
    for facet, values in points.items()
    for point in values
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one sentence says.

    Attributes:
        means: The facet of the point it makes, or its manner.
        point: The normalised point; empty for a manner. It is one that *some* subject of the world knows.
    """

    means: Facet | Manner
    point: str = ""


def normalise(text: str) -> str:
    """Lower case, one space between words, no punctuation inside a sentence ("8,000" becomes "8000")."""
    return " ".join(re.sub(r"[^a-z0-9 ]", "", re.sub(r"\s", " ", text.lower())).split())


def sentences(text: str) -> tuple[str, ...]:
    """The normalised sentences of a text, in order; a last one without its full stop counts as one."""
    parts = (normalise(part) for part in re.split(r"[.!?]+", text))
    return tuple(part for part in parts if part)


def _pattern(frame: str) -> str:
    pieces = re.split(r"\{(\w+)\}", frame)
    literal, slots = pieces[::2], pieces[1::2]
    pattern = re.escape(normalise(literal[0])).replace(r"\ ", " ")
    for slot, after in zip(slots, literal[1:], strict=True):
        hole = "(?P<point>.+)" if slot == "point" else "(?:" + "|".join(SLOTS[slot]) + ")"
        pattern = " ".join(part for part in (pattern, hole, re.escape(normalise(after)).replace(r"\ ", " ")) if part)
    return pattern


def _reader(frames: tuple[str, ...]) -> re.Pattern[str]:
    openers = "|".join(normalise(opener) for opener in OPENERS)
    return re.compile(rf"(?:(?:{openers}) )?(?:{'|'.join(f'(?:{_pattern(f)})' for f in frames)})")


_MANNER_READERS = {manner: _reader(frames) for manner, frames in MANNER_FRAMES.items()}
_FACET_READERS = [
    (facet, _reader((frame,)))
    for facet, frames in (*FACET_FRAMES.items(), (Facet.CATCH, UNIT_ECONOMICS_FRAMES))
    for frame in frames
]
_NORMALISED_POINTS = frozenset((facet, normalise(point)) for facet, point in _KNOWN_POINTS)


@lru_cache(maxsize=65536)
def read_sentence(sentence: str) -> Reading | None:
    """Reads one normalised sentence.

    Args:
        sentence: One of `sentences(text)`.

    Returns:
        What it says; None where no sentence of the world has this form.
    """
    for facet, reader in _FACET_READERS:
        match = reader.fullmatch(sentence)
        if match and (facet, match["point"]) in _NORMALISED_POINTS:
            return Reading(facet, match["point"])
    for manner, reader in _MANNER_READERS.items():
        if reader.fullmatch(sentence):
            return Reading(manner)
    return None
