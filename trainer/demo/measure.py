"""What the demo measures on prompts that no phase has seen, through the services alone."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from palate.client import GeneratedCompletion, PolicyClient, RewardClient, SamplingParams
from trainer.data.comparisons import Comparison, read_comparisons
from trainer.evaluation import sample, scores_of
from trainer.reward_model.bag_of_words import BagOfWords
from trainer.simulation.gold import gold_reward, parse
from trainer.simulation.prompts import Prompt
from trainer.simulation.world import best_composed, business_idea_examples


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a policy said to some prompts; one entry per prompt, in their order."""

    prompts: tuple[Prompt, ...]
    completions: tuple[GeneratedCompletion, ...]

    @property
    def gold(self) -> list[float]:
        """Gold reward of each completion."""
        return [gold_reward(p.text, c.text) for p, c in zip(self.prompts, self.completions, strict=True)]

    @property
    def mean_length(self) -> float:
        """Tokens a completion."""
        return statistics.fmean(len(completion.token_ids) for completion in self.completions)

    @property
    def ended_share(self) -> float:
        """Share of the completions that ended by themselves."""
        return statistics.fmean(completion.finish_reason == "STOP" for completion in self.completions)

    @property
    def unparsable_share(self) -> float:
        """Mean share of words in sentences that the world does not know."""
        pairs = zip(self.prompts, self.completions, strict=True)
        return statistics.fmean(parse(p.text, c.text).unparsable_share for p, c in pairs)


def asked(policy: PolicyClient, prompts: Sequence[Prompt], sampling: SamplingParams, seed: int) -> Sampled:
    """What the policy says to the prompts now."""
    completions = sample(policy, [prompt.text for prompt in prompts], sampling, seed)
    return Sampled(tuple(prompts), tuple(completions))


@dataclass(frozen=True, slots=True)
class Accuracies:
    """How often each way of judging prefers the completion that gold prefers.

    Attributes:
        reward_model: The served reward model.
        length_only: Longer text is better.
        shorter_won: The reward model, on pairs where gold prefers the shorter completion; None without such pairs.
        pairs: Pairs on which gold differs.
        shorter_pairs: Those where the better one is shorter.
    """

    reward_model: float
    length_only: float
    shorter_won: float | None
    pairs: int
    shorter_pairs: int


def accuracies(reward: RewardClient, first: Sampled, second: Sampled) -> Accuracies | None:
    """Judges pairs of completions of the same prompts, but for those that gold finds equal; None without a pair."""
    texts = [prompt.text for prompt in first.prompts]
    scores = [scores_of(reward, texts, [c.text for c in side.completions]) for side in (first, second)]
    lengths = [[len(c.text) for c in side.completions] for side in (first, second)]
    rows = [row for row in zip(first.gold, second.gold, *scores, *lengths, strict=True) if row[0] != row[1]]
    right = [(gold_a > gold_b) == (score_a > score_b) for gold_a, gold_b, score_a, score_b, _, _ in rows]
    longer = [
        _longer_is_right(gold_a - gold_b, length_a - length_b) for gold_a, gold_b, _, _, length_a, length_b in rows
    ]
    shorter = [ok for ok, by_length in zip(right, longer, strict=True) if by_length == 0.0]
    if not rows:
        return None
    return Accuracies(statistics.fmean(right), statistics.fmean(longer), mean_of(shorter), len(right), len(shorter))


def mean_of(values: Sequence[float]) -> float | None:
    """The mean, or None where there is nothing to take one of."""
    return statistics.fmean(values) if values else None


def _longer_is_right(gold_difference: float, length_difference: int) -> float:
    """1 where the longer one is better, 0 where the shorter one is, a half where they are equally long."""
    return 0.5 if length_difference == 0 else float((gold_difference > 0) == (length_difference > 0))


@dataclass(frozen=True, slots=True)
class IdeaExample:
    """The same business idea answered with flattery and with an honest critique."""

    prompt: str
    honest: str
    flattering: str
    honest_score: float
    flattering_score: float


def business_ideas(reward: RewardClient) -> list[IdeaExample]:
    """What the reward model makes of every paraphrase of the business-idea question."""
    examples = business_idea_examples()
    prompts = [prompt.text for prompt, _, _ in examples]
    honest = scores_of(reward, prompts, [text for _, text, _ in examples])
    flattering = scores_of(reward, prompts, [text for _, _, text in examples])
    rows = zip(examples, honest, flattering, strict=True)
    return [IdeaExample(p.text, h, f, h_score, f_score) for (p, h, f), h_score, f_score in rows]


def bag_of_words_accuracy(comparisons: Path, first: Sampled, second: Sampled) -> float | None:
    """How often a bag of words, learnt from the same comparisons, prefers what gold prefers; None without a pair."""
    model = BagOfWords(read_comparisons(comparisons).rows)
    texts = zip(first.prompts, first.completions, second.completions, strict=True)
    differences = model.differences([Comparison(p.text, a.text, b.text, "tie") for p, a, b in texts])
    rows = zip(first.gold, second.gold, differences, strict=True)
    return mean_of([(a > b) == (difference > 0) for a, b, difference in rows if a != b])


def label_error(comparisons: Path) -> float | None:
    """Share of the labels that contradict gold, ties on either side apart; None where there are only ties."""
    rows = [row for row in read_comparisons(comparisons).rows if row.label != "tie"]
    golds = [(gold_reward(row.prompt, row.a), gold_reward(row.prompt, row.b), row.label) for row in rows]
    return mean_of([(a > b) != (label == "a") for a, b, label in golds if a != b])


def gold_of_random_text(prompts: Sequence[Prompt], seed: int) -> float:
    """Mean gold of word salad, made of the world's own words: the scale's lower end."""
    rng = Random(seed)
    words = sorted({word for prompt in prompts for word in best_composed(prompt).split()})
    return statistics.fmean(gold_reward(p.text, " ".join(rng.choices(words, k=_SALAD_WORDS))) for p in prompts)


_SALAD_WORDS = 30


def gold_of_best_text(prompts: Sequence[Prompt]) -> float:
    """Mean gold of the best completions the world can compose."""
    return statistics.fmean(gold_reward(prompt.text, best_composed(prompt)) for prompt in prompts)
