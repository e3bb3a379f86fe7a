"""What the configurations of all phases of training share: where in the environment they are looked for."""

from __future__ import annotations

from typing import ClassVar

from pydantic_settings import SettingsConfigDict

from palate.settings import Settings, variables
from trainer.ppo import points


class PhaseSettings(Settings):
    """Base of the phases' configurations; a variable that only another phase reads is no mistake."""

    model_config = SettingsConfigDict(env_prefix="PALATE_TRAIN_")

    phase: ClassVar[str]
    """Its name behind `palate train`."""

    @classmethod
    def variables_of_others(cls) -> frozenset[str]:
        """Those of all phases, and the one by which a check stops a run."""
        from trainer.config import PPOConfig  # late: they are made from this class
        from trainer.pretrain_config import PretrainConfig
        from trainer.reward_model.config import RewardTrainConfig
        from trainer.sft_config import SftConfig

        phases: list[type[Settings]] = [PretrainConfig, SftConfig, RewardTrainConfig, PPOConfig]
        return frozenset({points.VARIABLE}).union(*(variables(phase) for phase in phases))
