"""What no reward model can fix: near misses that only experts notice, and how the gold gap grows as experts go.

Pairs of composed answers with true points, near misses and critiques are labelled by honest annotators of whom some are
experts; a bag of words learns from them and picks the best of many answers. What annotators think of the picked ones,
less what they are worth, is the gap. A bag of words, because it takes seconds and needs no more here: near misses have
words of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean

from trainer.data.comparisons import Comparison
from trainer.reward_model.bag_of_words import BagOfWords
from trainer.simulation.annotators import Annotator, label, perceived_reward
from trainer.simulation.gold import gold_reward, parse
from trainer.simulation.prompts import Prompt, held_out_prompts, train_prompts
from trainer.simulation.world import Attribute, compose

PANEL = 8
EXPERTS = (8, 6, 4, 2, 0)
"""Of the panel."""

CANDIDATES, SENTENCES = 16, 3
_FLIP_RATE = 0.1
_SAID = {Attribute.SPECIFIC: 0.4, Attribute.SUBTLY_WRONG: 0.4, Attribute.HONEST: 0.2}


@dataclass(frozen=True, slots=True)
class Expertise:
    """What a panel with so many experts brings about.

    Attributes:
        experts: Share of the annotators who notice near misses.
        thought: Mean of what the panel thinks of the picked answers.
        gold: What they are worth.
        near_misses: Near misses in a picked answer.
    """

    experts: float
    thought: float
    gold: float
    near_misses: float

    @property
    def gap(self) -> float:
        """By how much the panel overrates them."""
        return self.thought - self.gold


def expertise_curve(pairs: int, prompts: int, seed: int) -> list[Expertise]:
    """From all experts to none; the same pairs, and the same answers to pick from, for every panel."""
    rng = Random(f"{seed}/expertise")
    shown = [(p.text, _said(p, rng), _said(p, rng)) for p in train_prompts(pairs, rng)]
    asked = [(p.text, [_said(p, rng) for _ in range(CANDIDATES)]) for p in held_out_prompts(prompts, rng)]
    return [_expertise(experts, shown, asked, Random(f"{seed}/votes")) for experts in EXPERTS]


def _said(prompt: Prompt, rng: Random) -> str:
    return compose(prompt, rng.choices(list(_SAID), list(_SAID.values()), k=SENTENCES), rng)


def _expertise(
    experts: int, shown: Sequence[tuple[str, str, str]], asked: Sequence[tuple[str, list[str]]], rng: Random
) -> Expertise:
    panel = [Annotator(f"annotator_{i}", _FLIP_RATE, expert=i < experts) for i in range(PANEL)]
    votes = [label(rng.choice(panel), *pair, rng) for pair in shown]
    model = BagOfWords([Comparison(*pair, vote.choice) for pair, vote in zip(shown, votes, strict=True)])
    picked = [(prompt, _best(model, prompt, answers)) for prompt, answers in asked]
    return Expertise(
        experts / PANEL,
        fmean(perceived_reward(annotator, *each) for each in picked for annotator in panel),
        fmean(gold_reward(*each) for each in picked),
        fmean(parse(*each).subtly_wrong for each in picked),
    )


def _best(model: BagOfWords, prompt: str, answers: Sequence[str]) -> str:
    """The answer that the model scores highest: its lead over an empty one."""
    leads = model.differences([Comparison(prompt, answer, "", "tie") for answer in answers])
    return max(zip(leads, answers, strict=True))[1]
