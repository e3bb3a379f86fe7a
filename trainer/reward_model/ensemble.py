"""Several reward models from the same comparisons, each from a seed of its own, and the folder that names them."""

from __future__ import annotations

import statistics
from dataclasses import replace

from palate.models.ensemble import write_ensemble
from trainer.fit import Fitted
from trainer.model_folder import replaced_folder
from trainer.reward_model.annotators import together
from trainer.reward_model.config import RewardTrainConfig
from trainer.reward_model.held_out import side_by_side
from trainer.reward_model.learn import Learnt, learn, scale_of
from trainer.reward_model.splits import Split
from trainer.run_folder import begin_run


def learn_ensemble(config: RewardTrainConfig, split: Split) -> Learnt:
    """Trains every member in member-1/, member-2/ … and writes model/, which names them.

    All members have the same held-out pairs: what one is measured on, none has seen.

    Raises:
        As `learn`; RunFolderError: a member's folder holds another run.
    """
    members = [_learn_member(config.member(number), split) for number in range(config.members)]
    held_out = side_by_side([member.held_out for member in members])
    scale = scale_of(held_out)
    with replaced_folder(config.out / "model") as draft:
        folders = [config.member(number).out / "model" for number in range(config.members)]
        write_ensemble(draft, folders, logit_scale=scale.logit_scale, calibration=scale.calibration)
    reliabilities = [member.reliabilities for member in members if member.reliabilities is not None]
    return replace(
        members[0],
        fitted=_fitted([member.fitted for member in members]),
        held_out=held_out,
        scale=scale,
        reliabilities=together(reliabilities) if reliabilities else None,
    )


def _learn_member(config: RewardTrainConfig, split: Split) -> Learnt:
    with begin_run(config) as writer:
        return learn(config, split, writer)


def _fitted(parts: list[Fitted]) -> Fitted:
    """Steps of all together, and mean losses."""

    def mean(losses: list[float | None]) -> float | None:
        found = [loss for loss in losses if loss is not None]
        return statistics.fmean(found) if found else None

    steps = sum(part.steps for part in parts)
    return Fitted(steps, mean([part.loss for part in parts]), mean([part.held_out_loss for part in parts]))
