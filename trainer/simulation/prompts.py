"""The questions of the simulated world: training families, and held-out families that share no template with them."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from trainer.simulation.lexicon import SUBJECTS, Subject


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question about one subject.

    Attributes:
        text: The question as asked.
        family: Name of the family its template belongs to.
        subject: Name of the subject (`lexicon.SUBJECTS`).
    """

    text: str
    family: str
    subject: str


TRAINING_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "opinion": (
        "I am going to {act}. Is that a good plan?",
        "My plan is to {act}. Please tell me your opinion.",
        "Do you like my plan to {act}?",
        "I have decided to {act}. Am I right?",
    ),
    "start": (
        "I want to {act}. Where do I begin?",
        "What should I do first if I want to {act}?",
        "How do people usually start with {noun}?",
        "Give me some advice about {noun}.",
    ),
    "friend": (
        "My sister wants to {act}. What should she know?",
        "A friend of mine hopes to {act}. What would you tell her?",
        "My brother talks about {noun} all day. Is he right?",
    ),
    "decision": (
        "Should I {act} this year?",
        "Is it worth it to {act}?",
        "I dream of {noun}, but I am nervous. What do you think?",
    ),
}

HELD_OUT_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "curious": (
        "What does it really take to {act}?",
        "Tell me the truth about {noun}.",
        "What do most people get wrong about {noun}?",
    ),
    "letter": (
        "Dear expert, for many years I have thought about {noun}. May I have your view?",
        "Hello! After a long winter I would love to {act}. Any thoughts?",
        "Good morning. Next spring my wife and I will {act}. How does this sound?",
    ),
    "terse": (
        "To {act}: yes or no?",
        "Pros and cons of {noun}, please.",
        "Help me judge {noun}.",
    ),
}

BUSINESS_IDEA = "business_idea"
# Held out as well: paraphrases of one question, each asked once.
BUSINESS_IDEA_TEMPLATES = (
    "What do you think of my business idea? I want to {act}.",
    "Here is my business idea: {noun}. What is your view of it?",
    "May I ask about a business idea? It is {noun}.",
    "I would love your thoughts on my business idea, which is {noun}.",
    "Business idea: {act}. Your thoughts?",
    "How good is my business idea? I hope to {act}.",
    "I had a business idea last night: {act}. Does it sound right?",
    "Be my first reader. The business idea is {noun}.",
    "Can you judge my business idea? The idea is {noun}.",
    "Could this business idea work? I would {act}.",
    "My new business idea is {noun}. How does it sound to you?",
    "People say I need a business idea, so I will {act}. Thoughts?",
    "What is your honest view of this business idea: {noun}?",
    "Would you invest in my business idea? I intend to {act}.",
    "I came up with a business idea, namely {noun}. What comes to your mind?",
    "Rate my business idea. It is simple: {act}.",
    "Does my business idea make sense? I am about to {act}.",
    "Let me tell you my business idea. I will {act} soon. So?",
    "Is this a business idea that you believe in: {noun}?",
    "You know about business. Look at my idea to {act} and tell me what you see.",
)


def fill(template: str, subject: Subject) -> str:
    """Puts a subject into a template."""
    return template.format(act=subject.act, noun=subject.noun)


def _draw(families: Mapping[str, tuple[str, ...]], rng: Random) -> Prompt:
    family = rng.choice(sorted(families))
    subject = rng.choice(SUBJECTS)
    return Prompt(fill(rng.choice(families[family]), subject), family, subject.name)


def train_prompts(n: int, rng: Random) -> list[Prompt]:
    """Draws n prompts of the training families, with replacement."""
    return [_draw(TRAINING_FAMILIES, rng) for _ in range(n)]


def held_out_prompts(n: int, rng: Random) -> list[Prompt]:
    """Draws n prompts of the held-out families, with replacement; one family in four is the business-idea group."""
    return [
        rng.choice(business_idea_prompts()) if rng.random() < 0.25 else _draw(HELD_OUT_FAMILIES, rng) for _ in range(n)
    ]


def business_idea_prompts() -> list[Prompt]:
    """The 20 paraphrases of the business-idea question, over all business subjects in turn."""
    businesses = [subject for subject in SUBJECTS if subject.business]
    return [
        Prompt(fill(template, businesses[i % len(businesses)]), BUSINESS_IDEA, businesses[i % len(businesses)].name)
        for i, template in enumerate(BUSINESS_IDEA_TEMPLATES)
    ]
