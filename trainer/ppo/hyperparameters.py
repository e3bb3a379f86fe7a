"""The hyperparameters of PPO, and which of them belong together."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from palate.settings import Group
from trainer.ppo.choices import EstimatorName, KLPlace, LossAggregation, OptimizerName, WhitenAdvantages

_CRITIC_ONLY = (
    "critic_init",
    "critic_learning_rate",
    "critic_warmup_steps",
    "cliprange_value",
    "vf_coef",
    "lam",
    "bootstrap_truncated",
    "whiten_rewards",
)
_WITHOUT_EFFECT: dict[EstimatorName, tuple[str, ...]] = {
    "gae": ("grpo_by_std",),
    "grpo": (*_CRITIC_ONLY, "gamma"),
    "rloo": (*_CRITIC_ONLY, "gamma", "grpo_by_std"),
    "reinforce_pp": (*_CRITIC_ONLY, "grpo_by_std", "whiten_advantages"),
}
"""Options that an estimator does not read, and so must not be given."""


class PPOGroup(Group):
    """Hyperparameters, named as OpenAI and TRL name them. docs/ppo.md has the formulas."""

    estimator: EstimatorName = Field(
        default="gae",
        description='How rewards become advantages: "gae" with a critic; without one "grpo", "rloo" (both compare the '
        'completions of a prompt) or "reinforce_pp".',
    )
    grpo_by_std: bool = Field(
        default=True, description="Divide a group's advantages by its standard deviation; off = Dr. GRPO."
    )
    batch_size: int = Field(
        default=64, ge=1, description="Rollouts per step; a multiple of --sampling.completions-per-prompt."
    )
    num_ppo_epochs: int = Field(default=4, ge=1, description="Passes over each batch; rows are reshuffled for each.")
    num_mini_batches: int = Field(
        default=1, ge=1, description="Optimiser steps per pass; sizes differ by one rollout at most."
    )
    microbatch_size: int = Field(default=16, ge=1, description="Rollouts per forward pass; changes speed, not results.")
    learning_rate: float = Field(default=1e-5, gt=0, description="Of the policy.")
    critic_learning_rate: float | None = Field(default=None, gt=0, description="Of the critic; none = the policy's.")
    anneal: bool = Field(default=True, description="Let learning rates fall linearly to 0 over all steps.")
    optimizer: OptimizerName = Field(default="adam", description='"adam" as PyTorch has it, or "adam_tf_style".')
    adam_eps: float = Field(default=1e-5, gt=0, description="Epsilon of Adam.")
    max_grad_norm: float = Field(
        default=1.0, gt=0, description="Gradients are clipped to this norm, policy and critic apart."
    )
    kl_coef: float = Field(
        default=0.05, ge=0, description="Weight of the KL penalty per token; the start where it adapts."
    )
    kl_place: KLPlace = Field(
        default="reward_k1",
        description='Where the KL penalty is: "reward_k1" in the reward, or "loss_k2" or "loss_k3" in the loss.',
    )
    kl_target: float | None = Field(
        default=None, description="Mean sequence KL in nats to steer to; none = kl_coef stays."
    )
    kl_horizon: float = Field(
        default=10_000,
        description="Episodes over which the adaptive coefficient reacts; with --ppo.kl-gain 3 the run's / 40.",
    )
    kl_gain: float = Field(
        default=0.0,
        ge=0,
        description="Power of KL / target that the adaptive coefficient is multiplied by, at once; 0 = as published.",
    )
    cliprange: float = Field(default=0.2, gt=0, description="Clipping of the policy ratio.")
    dual_clip: float | None = Field(
        default=None,
        gt=1,
        description="Bound on the ratio of tokens with a negative advantage, e.g. 3; none = no bound.",
    )
    tis_cap: float | None = Field(
        default=None,
        gt=0,
        description="Weigh each token's loss by policy over behaviour probability, at most this, e.g. 2 (truncated "
        "importance sampling, decoupled PPO); none = no weights.",
    )
    loss_aggregation: LossAggregation = Field(
        default="token_mean",
        description='What the policy loss is a mean over: "token_mean" tokens; "sequence_mean" completions, each the '
        'mean of its tokens; "constant" completions, each their sum / --sampling.max-new-tokens (Dr. GRPO).',
    )
    cliprange_value: float = Field(default=0.2, gt=0, description="Clipping of the value change.")
    vf_coef: float = Field(default=0.1, gt=0, description="Weight of the value loss.")
    gamma: float = Field(default=1.0, gt=0, le=1, description="Discount.")
    lam: float = Field(default=0.95, ge=0, le=1, description="Lambda of the advantage estimate.")
    bootstrap_truncated: bool = Field(
        default=False,
        description="Give completions cut off by the length limit the critic's value behind their end, not 0.",
    )
    whiten_rewards: bool = Field(default=False, description="Scale each batch's rewards to variance 1, mean kept.")
    whiten_advantages: WhitenAdvantages | None = Field(
        default=None,
        description="Over which rollouts advantages are whitened; default: batch for gae and reinforce_pp, none for "
        "grpo and rloo.",
    )
    whiten_unbiased: bool = Field(default=True, description="Divide variances by n - 1 (TRL, verl), not by n (OpenAI).")
    critic_init: str = Field(default="policy", description='"policy" with a head of zeros, or "reward:FOLDER".')
    critic_warmup_steps: int = Field(default=0, ge=0, description="First steps in which only the critic learns.")

    @field_validator("critic_init")
    @classmethod
    def _known_start(cls, value: str) -> str:
        if value != "policy" and not value.removeprefix("reward:") != value:
            raise ValueError('critic_init is "policy" or "reward:FOLDER"')
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("kl_target", "kl_horizon"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}: the adaptive KL controller divides by it")
        if self.kl_target is None and self.kl_gain:
            raise ValueError("kl_gain has no effect without kl_target: leave it out")
        if self.num_mini_batches > self.batch_size:
            raise ValueError(f"num_mini_batches {self.num_mini_batches} is more than batch_size {self.batch_size}")
        return self

    @model_validator(mode="after")
    def _nothing_ignored(self) -> Self:
        fields = type(self).model_fields
        for name in _WITHOUT_EFFECT[self.estimator]:
            if getattr(self, name) != fields[name].default:
                raise ValueError(f"{name} has no effect with estimator {self.estimator}: leave it out")
        return self

    @property
    def has_critic(self) -> bool:
        """Whether the estimator needs a critic."""
        return self.estimator == "gae"

    @property
    def whitening(self) -> WhitenAdvantages:
        """`whiten_advantages`, or what the estimator has by default."""
        return self.whiten_advantages or ("batch" if self.estimator in ("gae", "reinforce_pp") else "none")
