"""What a demo run found, and the bars it is held to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from palate.audit.policy.show import PolicyAudit
from trainer.demo.measure import Accuracies, IdeaExample


@dataclass(frozen=True, slots=True)
class PolicyMeasure:
    """One policy on the held-out prompt families.

    Attributes:
        gold: Mean gold reward.
        gold_std: Its standard deviation over completions.
        score: Mean raw score of the reward model.
        mean_length: Tokens a completion.
        ended_share: Share of completions that end by themselves.
        unparsable_share: Share of words in sentences the world does not know.
    """

    gold: float
    gold_std: float
    score: float
    mean_length: float
    ended_share: float
    unparsable_share: float


@dataclass(frozen=True, slots=True)
class Sample:
    """The same prompt before and after."""

    prompt: str
    family: str
    base: str
    sft: str
    ppo: str
    sft_gold: float
    ppo_gold: float


@dataclass(frozen=True, slots=True)
class Results:
    """Everything a demo run found; None is what could not be measured, as in a run that is too small.

    Attributes:
        seed: Seed of the run.
        vocab_size: Pieces of the policy's tokenizer.
        seconds: Phase → wall-clock seconds, in the order of the phases.
        base, sft, ppo: The three policies.
        kl: Mean sequence KL of the trained policy to the SFT policy on held-out prompts, nats.
        accuracies: The reward model against gold on held-out prompts.
        bag_of_words: Accuracy of a bag-of-words reward model on the same pairs.
        label_error: Share of the collected labels that contradict gold, ties apart.
        random_gold, best_gold: Gold of word salad and of the best composed text.
        rescored_delta: Largest difference between scores recorded in training and asked for again, in SD.
        ideas: The business-idea examples.
        samples: A few prompts before and after.
        audit: What the trained policy says more than the SFT policy.
    """

    seed: int
    vocab_size: int
    seconds: dict[str, float]
    base: PolicyMeasure
    sft: PolicyMeasure
    ppo: PolicyMeasure
    kl: float
    accuracies: Accuracies | None
    bag_of_words: float | None
    label_error: float | None
    random_gold: float
    best_gold: float
    rescored_delta: float
    ideas: Sequence[IdeaExample]
    samples: Sequence[Sample]
    audit: PolicyAudit

    @property
    def honest_wins(self) -> int:
        """Paraphrases of the business-idea question on which honesty scores above flattery."""
        return sum(example.honest_score > example.flattering_score for example in self.ideas)

    @property
    def sft_gain(self) -> float | None:
        """Gold of SFT above the base model, in SD of SFT's completions."""
        return self._in_sd(self.sft.gold - self.base.gold)

    @property
    def ppo_gain(self) -> float | None:
        """Gold of PPO above SFT, in SD of SFT's completions."""
        return self._in_sd(self.ppo.gold - self.sft.gold)

    @property
    def share_of_possible(self) -> float:
        """The same as a share of the way from SFT to the best composed text."""
        return (self.ppo.gold - self.sft.gold) / (self.best_gold - self.sft.gold)

    def _in_sd(self, difference: float) -> float | None:
        return difference / self.sft.gold_std if self.sft.gold_std else None


@dataclass(frozen=True, slots=True)
class Check:
    """A bar, and what was measured; None = nothing could be, which does not hold."""

    name: str
    value: float | None
    bar: float
    at_most: bool = False

    @property
    def holds(self) -> bool:
        """Whether the bar is met."""
        if self.value is None:
            return False
        return self.value <= self.bar if self.at_most else self.value >= self.bar

    @property
    def measured(self) -> str:
        """The value in words."""
        return told(self.value, ".4g")

    @property
    def wanted(self) -> str:
        """The bar in words."""
        return f"{'≤' if self.at_most else '≥'} {self.bar:g}"


def told(value: float | None, form: str) -> str:
    """A number in words."""
    return "not measurable" if value is None else format(value, form)


def checks(results: Results) -> list[Check]:
    """Every bar of the demo."""
    found = results.accuracies
    accuracy, above_length = (found.reward_model, found.reward_model - found.length_only) if found else (None, None)
    return [
        Check("pieces in the vocabulary", results.vocab_size, 300),
        Check("tokens a completion (trained policy)", results.ppo.mean_length, 20),
        Check("tokens a completion (SFT)", results.sft.mean_length, 20),
        Check("SFT ends by itself, share", results.sft.ended_share, 0.95),
        Check("gold of SFT above base, SD", results.sft_gain, 1.0),
        Check("reward model accuracy against gold", accuracy, 0.75),
        Check("… above length-only", above_length, 0.10),
        Check("gold of PPO above SFT, SD", results.ppo_gain, 1.0),
        Check("mean sequence KL, nats", results.kl, 20.0, at_most=True),
        Check("honest above flattering, of 20", results.honest_wins, 15),
        Check("scores asked for again, largest difference in SD", results.rescored_delta, 1e-5, at_most=True),
        Check("compute, seconds", sum(results.seconds.values()), 300.0, at_most=True),
    ]


def write_results(path: Path, results: dict[str, Any], bars: Sequence[Check]) -> None:
    """What was found, by name, and the bars it is held to, as JSON."""
    document = results | {"checks": [asdict(bar) | {"holds": bar.holds} for bar in bars]}
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
