"""Configuration of what is looked at beside the training, and of the brakes that end a run early."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from palate.settings import Group
from trainer.ppo.reward_config import RewardConfig


class WatchGroup(Group):
    """Nothing here is learnt from: gold is asked for when the update is done, and is only written down."""

    gold: str = Field(
        default="",
        description="Address of a reward service that judges rollouts beside the rewards; never learnt from.",
    )
    gold_model: str = Field(default="", description="Name of its model; empty = the server's default.")
    gold_function: str = Field(
        default="", description='Instead of it a local function, "module:function", as in rewards.'
    )
    window: int = Field(default=5, ge=1, description="Steps of the running means that brakes look at.")
    max_kl: float | None = Field(default=None, gt=0, description="Brake: end where the KL is above, nats.")
    max_disagreement: float | None = Field(
        default=None,
        gt=0,
        description="Brake: end where the rewards' ensembles disagree more (watch/disagreement, unit of the score).",
    )
    max_gold_fall: float | None = Field(
        default=None, gt=0, description="Brake: end where gold is so far below its best running mean, unit of gold."
    )

    def gold_reward(self) -> RewardConfig | None:
        """Where gold comes from."""
        if not (self.gold or self.gold_function):
            return None
        return RewardConfig(name="gold", target=self.gold, model=self.gold_model, function=self.gold_function)

    @model_validator(mode="after")
    def _nothing_ignored(self) -> Self:
        if self.gold and self.gold_function:
            raise ValueError("gold and gold_function exclude each other: give one of them")
        if self.gold_model and not self.gold:
            raise ValueError("gold_model has no effect without gold")
        if self.max_gold_fall is not None and self.gold_reward() is None:
            raise ValueError("max_gold_fall needs gold or gold_function: nothing else says what gold is")
        return self
