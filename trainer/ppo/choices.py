"""Options that are names; apart from the code behind them, so that a configuration needs no torch."""

from __future__ import annotations

from typing import Literal

DeviceName = Literal["cpu", "cuda"]
DistributedWay = Literal["none", "ddp", "fsdp2"]
EstimatorName = Literal["gae", "grpo", "rloo", "reinforce_pp"]
KLPlace = Literal["reward_k1", "loss_k2", "loss_k3"]
LossAggregation = Literal["token_mean", "sequence_mean", "constant"]
MissingEos = Literal["none", "replace", "subtract"]
OptimizerName = Literal["adam", "adam_tf_style"]
StaleRule = Literal["wait", "drop"]
WhitenAdvantages = Literal["batch", "minibatch", "none"]
