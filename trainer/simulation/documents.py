"""Running text of the simulated world: stories about its subjects, for a base model that never answers."""

from collections.abc import Mapping
from random import Random

from trainer.simulation.lexicon import SUBJECTS, Facet, Subject

_NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Maria", "Tom")

_OPENINGS = (
    "Last year {name} wanted to {act}.",
    "{name} had a business idea about {noun}.",
    "For many years {name} had thought about {noun}.",
    "One morning {name} decided to {act}.",
    "{name} told the whole family about {noun}.",
    "People in town still talk about {noun} and {name}.",
)

_TOLD: Mapping[Facet, tuple[str, ...]] = {
    Facet.COST: (
        "{name} read that {point}.",
        "The seller said that {point}.",
        "In the first week they saw that {point}.",
    ),
    Facet.CUSTOMER: (
        "Soon {name} met {point}.",
        "The first money came from {point}.",
        "There were {point} at the door.",
    ),
    Facet.HABIT: ("A neighbor believed in {point}.", "{name} liked {point}.", "In the end it was all about {point}."),
    Facet.RISK: ("In winter there was trouble with {point}.", "{name} was afraid of {point}.", "Then came {point}."),
    Facet.STEP: ("A friend told {name} to {point}.", "So {name} went out to {point}.", "The plan was to {point}."),
    Facet.CATCH: (
        "{name} found out that {point}.",
        "The bank said that {point}.",
        "In the evening they saw that {point}.",
    ),
}

_NEAR = (
    "Some people said {point}, but it was not so.",
    "An old book spoke of {point}, and it was wrong.",
)

_ASIDES = (
    "What do you think, asked {name}.",
    "Is that a good idea, asked the brother, and should you do it this year?",
    "The sister of {name} had a question, but nobody had an answer.",
    "It rained all day and the street was quiet.",
    "{name} sat at the kitchen table and wrote everything down.",
    "An expert gave some advice and took the train home.",
    "Nobody knew if it was worth it.",
    "They talked about the profit and the risk until late at night.",
    "It was hard to say if the plan was brilliant or wrong.",
    "Your view, please, said {name} to the neighbor.",
    "A long letter came in spring.",
    "Yes or no, said the uncle, tell me the truth.",
)


def _told(subject: Subject, rng: Random) -> str:
    facet = rng.choice(sorted(subject.true))
    if rng.random() < 0.05:
        return rng.choice(_NEAR).replace("{point}", rng.choice(subject.near[facet]))
    return rng.choice(_TOLD[facet]).replace("{point}", rng.choice(subject.true[facet]))


def base_document(rng: Random) -> str:
    """A story of 4 to 8 sentences about one subject."""
    subject, name = rng.choice(SUBJECTS), rng.choice(_NAMES)
    opening = rng.choice(_OPENINGS)
    told = [_told(subject, rng) if rng.random() < 0.8 else rng.choice(_ASIDES) for _ in range(rng.randint(3, 7))]
    return (
        " ".join((opening, *told)).replace("{name}", name).replace("{act}", subject.act).replace("{noun}", subject.noun)
    )


def base_documents(n: int, rng: Random) -> list[str]:
    """Draws n stories."""
    return [base_document(rng) for _ in range(n)]
