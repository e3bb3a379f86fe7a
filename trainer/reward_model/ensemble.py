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
from trainer.reward_model.learn import Learnt, Ready, get_ready, learn, scale_of
from trainer.reward_model.splits import Split
from trainer.run_folder import begin_run


def learn_ensemble(config: RewardTrainConfig, split: Split, first: Ready) -> Learnt:
    """Trains every member in member-1/, member-2/ … and writes model/, which names them.

    All members have the same held-out pairs: what one is measured on, none has seen.

    Args:
        config: Of the ensemble.
        split: What all learn from.
        first: Its first member, ready.

    Raises:
        As `get_ready` and `learn`; RunFolderError: a member's folder holds another run.
    """
    others = [config.member(number) for number in range(1, config.members)]
    members = [_learn_member(config.member(0), first)]
    members += [_learn_member(other, get_ready(other, split)) for other in others]
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


def _learn_member(config: RewardTrainConfig, ready: Ready) -> Learnt:
    with begin_run(config) as writer:
        return learn(config, ready, writer)


def _fitted(parts: list[Fitted]) -> Fitted:
    """Steps of all together, and mean losses."""

    def mean(losses: list[float | None]) -> float | None:
        found = [loss for loss in losses if loss is not None]
        return statistics.fmean(found) if found else None

    steps = sum(part.steps for part in parts)
    return Fitted(steps, mean([part.loss for part in parts]), mean([part.held_out_loss for part in parts]))
