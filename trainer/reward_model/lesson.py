"""What the model is taught: labels of pairs, or single votes together with the reliability of who cast them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from torch import Tensor, nn

from trainer.data.votes import Pair
from trainer.fit import Batch, FitRow
from trainer.reward_model.annotators import Reliability, judge_reliabilities
from trainer.reward_model.bootstrap import draw_groups
from trainer.reward_model.config import RewardTrainConfig
from trainer.reward_model.crowd import CrowdModel
from trainer.reward_model.labels import labels_of
from trainer.reward_model.reliability import Prior, vote_table
from trainer.reward_model.rows import RenderedPair, comparison_loss, fit_rows, vote_rows


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is fitted.

    Attributes:
        pairs: What is learnt from; a pair that a single model drew twice is there twice.
        model: The classifier, or the classifier with its annotators.
        rows: `pairs` for the fit.
        validation: Rows that early stopping looks at.
        loss: Of the model on a batch of rows.
    """

    pairs: tuple[Pair, ...]
    model: nn.Module
    rows: Sequence[FitRow]
    validation: Sequence[FitRow]
    loss: Callable[[nn.Module, Batch], Tensor]

    def reliabilities(self) -> dict[str, Reliability] | None:
        """Of every annotator; None where they are not learnt."""
        if not isinstance(self.model, CrowdModel):
            return None
        differences = self.model.differences.cpu().numpy()
        return judge_reliabilities(self.model.votes, self.model.reliabilities(), differences, self.model.prior)


def make_lesson(
    config: RewardTrainConfig,
    classifier: nn.Module,
    learnt: Sequence[RenderedPair],
    validation: Sequence[RenderedPair],
) -> Lesson:
    """Labels or votes, as the configuration says; early stopping looks at votes either way.

    Raises:
        DataError: The votes do not allow it.
    """
    learnt, times = _drawn(learnt, config)
    pairs = tuple(row.pair for row in learnt)
    if config.annotators == "reliability":
        votes = vote_table(pairs)
        model = CrowdModel(classifier, votes, prior_of(config), config.centring_weight())
        return Lesson(pairs, model, vote_rows(learnt, votes), vote_rows(validation, votes), model.loss)
    loss = comparison_loss(config.label_smoothing, config.centring_weight())
    rows = fit_rows(learnt, labels_of(pairs, config.labels), config.margin, times)
    seen = labels_of([row.pair for row in validation], "votes") if validation else None
    return Lesson(pairs, classifier, rows, fit_rows(validation, seen, config.margin) if seen else (), loss)


def _drawn(
    learnt: Sequence[RenderedPair], config: RewardTrainConfig
) -> tuple[Sequence[RenderedPair], list[tuple[int, ...]] | None]:
    """What is learnt from, and where several heads draw from it, how often each pair counts for each."""
    if not config.bootstrap:
        return learnt, None
    groups, rng = [row.pair.kept_together for row in learnt], Random(config.seed)
    if config.heads == 1:
        return [learnt[place] for place in draw_groups(groups, rng)], None
    counts = [Counter(draw_groups(groups, rng)) for _ in range(config.heads)]
    return learnt, [tuple(count[place] for count in counts) for place in range(len(learnt))]


def prior_of(config: RewardTrainConfig) -> Prior:
    """The prior of reliabilities."""
    return Prior(config.prior_right, config.prior_wrong)
