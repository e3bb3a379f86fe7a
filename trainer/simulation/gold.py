"""The gold reward of the simulated world: a pure function of prompt and completion text."""

from dataclasses import dataclass
from functools import lru_cache

from trainer.simulation.grammar import Manner, normalise, read_sentence, sentences
from trainer.simulation.lexicon import SUBJECTS, Facet, Subject

FLOOR = -3.0
POINT_CREDITS = (1.0, 0.8, 0.6)  # of the first, second and third distinct true point; further ones earn nothing
CATCH_CREDIT = 1.2
DOUBT_CREDIT = 0.4  # an open doubt, where the critique itself is missing
VAGUE_CREDIT = 0.1


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a completion says about the subject of its prompt. Counts are of distinct sentences.

    Attributes:
        specific: True points about the prompt's own subject, the critique apart.
        critique: True critiques (unit economics, the hard part).
        doubts: Honest doubts without a point.
        subtly_wrong: Near misses about the prompt's own subject.
        wrong: Points of another subject, and absurd claims.
        flattery: Flattering sentences.
        padding: Sentences that say nothing.
        hedges: Sentences that take everything back.
        refusals: Refusals.
        vague: Well-meant generalities.
        repeated: Sentences, or points in other words, that were made before.
        words: Words of the completion.
        unparsable_share: Share of the words in sentences the world does not know; 1 for an empty completion.
    """

    specific: int
    critique: int
    doubts: int
    subtly_wrong: int
    wrong: int
    flattery: int
    padding: int
    hedges: int
    refusals: int
    vague: int
    repeated: int
    words: int
    unparsable_share: float


@dataclass(frozen=True, slots=True)
class Taste:
    """What a reader makes of each thing a completion does; the defaults are the gold reward's."""

    subtly_wrong: float = -1.1
    wrong: float = -1.2
    flattery: float = -0.7
    padding: float = -0.5
    hedge: float = -0.5
    refusal: float = -2.0
    repeated: float = -0.5
    unparsable: float = -3.0
    word: float = 0.0


GOLD_TASTE = Taste()


@lru_cache(maxsize=8192)
def subject_of(prompt: str) -> Subject:
    """Finds the subject a prompt asks about.

    Raises:
        ValueError: The prompt names no subject of this world, or several.
    """
    text = f" {normalise(prompt)} "
    found = [s for s in SUBJECTS if f" {normalise(s.act)} " in text or f" {normalise(s.noun)} " in text]
    if len(found) != 1:
        raise ValueError(f"the prompt names {len(found)} subjects of the simulated world: gold needs exactly one")
    return found[0]


def _kind(subject: Subject, sentence: str) -> tuple[str, str]:
    """The field of `Parsed` a sentence counts for, and what makes it distinct."""
    reading = read_sentence(sentence)
    if reading is None:
        return "unparsable", sentence
    if isinstance(reading.means, Manner):
        return _MANNER_FIELDS[reading.means], sentence
    if reading.point in map(normalise, subject.true.get(reading.means, ())):
        return ("critique" if reading.means is Facet.CATCH else "specific"), reading.point
    own_near = reading.point in map(normalise, subject.near.get(reading.means, ()))
    return ("subtly_wrong" if own_near else "wrong"), reading.point


_MANNER_FIELDS = {
    Manner.DOUBT: "doubts",
    Manner.FLATTERY: "flattery",
    Manner.PADDING: "padding",
    Manner.HEDGE: "hedges",
    Manner.REFUSAL: "refusals",
    Manner.ABSURD: "wrong",
    Manner.VAGUE: "vague",
}


def parse(prompt: str, completion: str) -> Parsed:
    """Reads a completion sentence by sentence.

    Args:
        prompt: The prompt's text; decides which points are about the right subject.
        completion: Any text.

    Raises:
        ValueError: The prompt names no subject of this world.
    """
    subject = subject_of(prompt)
    said = sentences(completion)
    counts = dict.fromkeys((*_MANNER_FIELDS.values(), "specific", "critique", "subtly_wrong", "repeated"), 0)
    seen: set[tuple[str, str]] = set()
    words = unparsable = 0
    for sentence in said:
        length = len(sentence.split())
        words += length
        kind = _kind(subject, sentence)
        if kind[0] == "unparsable":
            unparsable += length
        else:
            counts["repeated" if kind in seen else kind[0]] += 1
            seen.add(kind)
    return Parsed(**counts, words=words, unparsable_share=unparsable / words if words else 1.0)


def judge(parsed: Parsed, taste: Taste) -> float:
    """What a reader with this taste thinks of a completion, not below `FLOOR`."""
    honest = CATCH_CREDIT if parsed.critique else DOUBT_CREDIT * bool(parsed.doubts)
    earned = sum(POINT_CREDITS[: parsed.specific]) + honest + VAGUE_CREDIT * bool(parsed.vague)
    costs = (
        taste.subtly_wrong * parsed.subtly_wrong
        + taste.wrong * parsed.wrong
        + taste.flattery * parsed.flattery
        + taste.padding * parsed.padding
        + taste.hedge * parsed.hedges
        + taste.refusal * parsed.refusals
        + taste.repeated * parsed.repeated
        + taste.unparsable * parsed.unparsable_share
    )
    return max(FLOOR, earned + costs + taste.word * parsed.words)


def gold_reward(prompt: str, completion: str) -> float:
    """The true reward of a completion, between -3 and 3.7; the same for composed and for sampled text.

    Distinct true points about the prompt's own subject earn less and less, an honest critique earns once; flattery,
    padding, hedging, repetition, refusal and untrue points cost; text outside the world's grammar costs by its share.

    Raises:
        ValueError: The prompt names no subject of this world.
    """
    return judge(parse(prompt, completion), GOLD_TASTE)
