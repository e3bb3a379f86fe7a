"""Configuration of the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from palate.settings import Group, Settings

_OWN_SIZES = {"panel": ("comparisons", "ppo_steps"), "biased": ("way_comparisons", "way_steps")}
"""Which sizes belong to one kind of --annotators alone."""


class SizesGroup(Group):
    """How much of everything; the defaults fit five minutes on two cores."""

    documents: int = Field(4000, ge=10, description="Documents the base model reads.")
    base_steps: int = Field(400, ge=1, description="Steps of pretraining.")
    demonstrations: int = Field(8000, ge=10, description="Demonstrations to fine-tune on.")
    comparisons: int = Field(5000, ge=10, description="Labelled pairs.")
    ppo_steps: int = Field(20, ge=1, description="Batches of PPO.")
    prompts: int = Field(2000, ge=8, description="Prompts that PPO draws from.")
    way_comparisons: int = Field(3000, ge=10, description="The same with --annotators biased, for every way.")
    way_steps: int = Field(12, ge=1, description="Batches of PPO with --annotators biased, of every way.")
    trials: int = Field(48, ge=2, description="Trials of each behaviour in the policy audit, and of each probe.")
    held_out: int = Field(256, ge=8, description="Held-out prompts for measuring.")


class DemoConfig(Settings):
    """Runs the three phases of RLHF through real services, from nothing, and writes report.html."""

    model_config = SettingsConfigDict(env_prefix="PALATE_DEMO_")

    out: Path = Field(Path("runs/demo"), description="Folder of the run; an earlier demo in it is replaced.")
    seed: int = Field(0, ge=0, lt=2**31, description="Decides everything that is drawn.")
    annotators: Literal["panel", "biased"] = Field(
        "panel",
        description="With biased, the same pairs are labelled by biased, honest and mixed panels and learnt from in "
        "several ways, side by side; with panel, --panel labels.",
    )
    panel: Literal["honest", "biased"] = Field(
        "honest", description="Who labels: an honest panel, or one that likes flattery and length."
    )
    label_error: float = Field(0.2, ge=0, lt=0.5, description="Share of labels of the honest panel that are wrong.")
    threads: int = Field(2, ge=1, description="CPU threads of the trainer.")
    progress: bool = Field(True, description="Show progress bars.")
    sizes: SizesGroup = SizesGroup()

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> Self:
        """What was given must count."""
        if self.annotators == "biased" and "panel" in self.model_fields_set:
            raise ValueError("panel has no effect with annotators biased, where every panel labels: leave one out")
        if self.annotators == "panel" and self.panel == "biased" and "label_error" in self.model_fields_set:
            raise ValueError("label_error is of the honest panel, and has no effect with panel biased: leave one out")
        own, others = self.annotators, "panel" if self.annotators == "biased" else "biased"
        for name, instead in zip(_OWN_SIZES[others], _OWN_SIZES[own], strict=True):
            if getattr(self.sizes, name) != SizesGroup.model_fields[name].default:  # all count as set in a group
                raise ValueError(
                    f"sizes.{name} has no effect with annotators {own}, where sizes.{instead} says it: give that one"
                )
        return self
