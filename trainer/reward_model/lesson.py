"""What the model is taught: labels of pairs, or single votes together with the reliability of who cast them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from trainer.data.votes import Pair
from trainer.fit import Batch, FitRow
from trainer.reward_model.annotators import Reliability, judge_reliabilities
from trainer.reward_model.config import RewardTrainConfig
from trainer.reward_model.crowd import CrowdModel
from trainer.reward_model.labels import labels_of
from trainer.reward_model.reliability import Prior, vote_table
from trainer.reward_model.rows import RenderedPair, comparison_loss, fit_rows, vote_rows


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is fitted.

    Attributes:
        pairs: What is learnt from.
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
    pairs = tuple(row.pair for row in learnt)
    if config.annotators == "reliability":
        votes = vote_table(pairs)
        model = CrowdModel(classifier, votes, prior_of(config), config.centring)
        return Lesson(pairs, model, vote_rows(learnt, votes), vote_rows(validation, votes), model.loss)
    loss = comparison_loss(config.label_smoothing, config.centring)
    rows = fit_rows(learnt, labels_of(pairs, config.labels), config.margin)
    seen = labels_of([row.pair for row in validation], "votes") if validation else None
    return Lesson(pairs, classifier, rows, fit_rows(validation, seen, config.margin) if seen else (), loss)


def prior_of(config: RewardTrainConfig) -> Prior:
    """The prior of reliabilities."""
    return Prior(config.prior_right, config.prior_wrong)
