"""Whether a model learns as a whole or through low-rank adapters (LoRA): what every phase can be told."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from palate.settings import Group

ALL_LINEAR = "all-linear"


class LoraGroup(Group):
    """Learns low-rank adapters and leaves the model's weights as they are."""

    rank: int = Field(default=0, ge=0, description="Rank of the adapters, e.g. 16; 0 = no adapters: all weights learn.")
    alpha: int = Field(default=16, ge=1, description="An adapter's product counts alpha / rank.")
    target_modules: list[str] = Field(
        default=[ALL_LINEAR],
        min_length=1,
        description='Names of the linear layers that have one, e.g. q_proj,v_proj; "all-linear" = all but the output '
        "layer.",
    )

    @field_validator("target_modules")
    @classmethod
    def _names(cls, value: list[str]) -> list[str]:
        if not all(name.strip() for name in value):
            raise ValueError("target_modules holds an empty name")
        if ALL_LINEAR in value and len(value) > 1:
            raise ValueError(f'target_modules is "{ALL_LINEAR}" alone, or names of layers')
        return value

    @model_validator(mode="after")
    def _nothing_ignored(self) -> Self:
        for name, field in type(self).model_fields.items():
            if not self.rank and getattr(self, name) != field.default:
                raise ValueError(f"{name} has no effect with rank 0: set rank, e.g. 16, or leave it out")
        return self
