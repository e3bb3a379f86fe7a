"""A bag of words that learns what the model learns: to compare accuracies with, and for a learning curve."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from trainer.data.comparisons import Comparison
from trainer.data.votes import Pair
from trainer.reward_model.bag_of_words import BagOfWords
from trainer.reward_model.config import RewardTrainConfig
from trainer.reward_model.evaluate import credit
from trainer.reward_model.labels import labels_of
from trainer.reward_model.learning_curve import LearningCurve, learning_curve
from trainer.reward_model.lesson import prior_of
from trainer.reward_model.reliability import learn_jointly, vote_table


def words_learnt(pairs: Sequence[Pair], config: RewardTrainConfig) -> BagOfWords:
    """A bag of words fitted to the labels, or to the votes with reliabilities, that the configuration asks for."""
    words = BagOfWords([pair.judged() for pair in pairs])
    if config.annotators == "reliability":
        learn_jointly(vote_table(pairs), prior_of(config), words.fit)
    else:
        labels = labels_of(pairs, config.labels)
        words.fit(labels.preference, labels.weight)
    return words


def labels_needed(
    pairs: Sequence[Pair], held_out: Sequence[Comparison], config: RewardTrainConfig
) -> LearningCurve | None:
    """The bag of words' learning curve, with the plain share of votes as labels."""
    decided = [row for row in held_out if row.label != "tie"]

    def credits_at(indices: Sequence[int]) -> list[float]:
        part = [pairs[index] for index in indices]
        words, labels = BagOfWords([pair.judged() for pair in part]), labels_of(part, "votes")
        words.fit(labels.preference, labels.weight)
        return [credit(value, row) for value, row in zip(words.differences(decided), decided, strict=True)]

    return learning_curve(len(pairs), credits_at, config.target_accuracy, Random(config.seed))
