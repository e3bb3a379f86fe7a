"""Options that are names; apart from the code behind them, so that a configuration needs no torch."""

from __future__ import annotations

from typing import Literal

MissingEos = Literal["none", "replace", "subtract"]
OptimizerName = Literal["adam", "adam_tf_style"]
WhitenAdvantages = Literal["batch", "minibatch", "none"]
