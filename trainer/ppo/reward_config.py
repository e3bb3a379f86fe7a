"""Configuration of one of a run's rewards: where its scores come from, and how they count."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from palate.aggregate import HELP, AggregateName, aggregate_of
from palate.client.types import AggregateLike
from palate.settings import Group

Transform = Literal["none", "standardize", "sigmoid"]

_SOURCES = ("target", "function", "max_tokens", "pattern")
_OF_A_SERVICE = ("model", "aggregate", "variance_weight", "token_file", "server_name")


class RewardConfig(Group):
    """A reward: exactly one of target, function, max_tokens and pattern says what gives its scores."""

    name: str = Field(
        pattern="^[a-z][a-z0-9_]*$", max_length=40, description="Names it in metrics, rollouts and checkpoints."
    )
    target: str = Field(default="", description="Address of a reward service.")
    model: str = Field(default="", description="Name of its model; empty = the server's default.")
    aggregate: AggregateName | None = Field(default=None, description=HELP["aggregate"])
    variance_weight: float | None = Field(default=None, ge=0, description=HELP["variance_weight"])
    token_file: Path | None = Field(default=None, description="Its bearer token; default: services.token_file.")
    server_name: str = Field(default="", description="Name in its certificate; default: services.server_name.")
    function: str = Field(
        default="", description='A local function, "module:function": texts in, a number or None for each out.'
    )
    timeout: float | None = Field(
        default=None, gt=0, description="Seconds for one call of a local function; default: services.timeout."
    )
    max_tokens: int | None = Field(default=None, ge=0, description="A length penalty: -1 for every token above it.")
    pattern: str | None = Field(
        default=None, description="A format penalty: -1 where this regular expression is not found, else 0."
    )
    weight: float = Field(default=1.0, description="What it is multiplied with in the sum of rewards.")
    transform: Transform = Field(
        default="none",
        description='"standardize" by its scores of the starting policy, or "sigmoid", before the weight.',
    )
    clip: float | None = Field(default=None, gt=0, description="Largest absolute value after the transform.")

    @field_validator("weight")
    @classmethod
    def _counts(cls, weight: float) -> float:
        if weight == 0 or not math.isfinite(weight):
            raise ValueError("a weight is a number other than 0; leave the reward out instead")
        return weight

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from error
        return pattern

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in _SOURCES if getattr(self, name) not in ("", None)]
        if len(given) != 1:
            raise ValueError(f"{self.name}: give one of {', '.join(_SOURCES)} (there is {', '.join(given) or 'none'})")
        ignored = [name for name in _OF_A_SERVICE if getattr(self, name) not in ("", None)]
        if ignored and not self.target:
            raise ValueError(f"{self.name}: {', '.join(ignored)} has no effect without target")
        if self.timeout is not None and not self.function:
            raise ValueError(f"{self.name}: timeout has no effect without function; services.timeout is for services")
        self.way()
        return self

    def way(self) -> AggregateLike:
        """How members become one score."""
        return aggregate_of(self.aggregate, self.variance_weight)
