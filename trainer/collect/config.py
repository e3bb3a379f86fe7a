"""Configuration of `palate collect`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self, TypeAlias

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from palate.settings import Settings
from palate.waiting import WAIT_HELP, WAIT_SECONDS
from trainer.access import AccessFields

LabellerName: TypeAlias = Literal["simulated", "person", "page", "judge"]

_GOES_WITH: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "labeller": {
        "panel": ("simulated",),
        "label_error": ("simulated",),
        "flip_rate": ("simulated",),
        "annotator": ("person", "page"),
        "page_port": ("page",),
        "judge": ("judge",),
        "principles": ("judge",),
        "least_mass": ("judge",),
    },
    "choose": {"reward": ("disagreement",), "reward_model": ("disagreement",), "pool": ("disagreement",)},
}
"""Option → option that it belongs to → what that one must be; anything else would leave it without effect."""

_NEEDED: Mapping[str, Mapping[str, str]] = {
    "labeller": {"person": "annotator", "page": "annotator", "judge": "judge"},
    "choose": {"disagreement": "reward"},
}


class CollectConfig(AccessFields, Settings):
    """Samples pairs of completions from a policy service and has each pair compared.

    By a simulated panel (--labeller simulated), by you in the terminal (person) or in a browser on this machine (page),
    or by a policy service that reads written principles (judge). People see neither where an answer comes from nor
    which was drawn first. Every label is in the file before the next pair is shown; stopped, the same command goes on.
    """

    model_config = SettingsConfigDict(env_prefix="PALATE_COLLECT_")

    policy: str = Field(description="Address of the policy service.")
    prompts: Path = Field(description='JSONL file, one {"prompt": "..."} a line; "group" keeps prompts together.')
    out: Path = Field(description="JSONL file of comparisons; one that exists is gone on with.")
    pairs: int = Field(default=1000, ge=1, le=10_000_000, description="Comparisons that the file shall hold.")
    labeller: LabellerName = Field(
        default="simulated",
        description="Who compares: simulated = a panel that judges the demo's world; person = you, in the terminal; "
        "page = you, in a browser on this machine; judge = a policy service.",
    )
    annotator: str = Field(
        default="", max_length=100, description="person, page: who you are; stands in every row of yours."
    )
    page_port: int = Field(default=0, ge=0, le=65535, description="page: port on loopback; 0 = a free one.")
    judge: str = Field(default="", description="judge: address of the policy service that judges.")
    principles: Path | None = Field(
        default=None, description='judge: YAML file, {"principles": ["...", ...]}; without one, general principles.'
    )
    least_mass: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="judge: probability that its two possible answers must have together; below it the answer is "
        "unreadable, and the pair is left out.",
    )
    panel: Literal["honest", "biased"] = Field(
        default="honest", description='simulated: "honest" errs at random; "biased" likes flattery, length and hedging.'
    )
    label_error: float = Field(
        default=0.2, ge=0, lt=0.5, description="How often the honest panel's labels contradict the true preference."
    )
    flip_rate: float = Field(
        default=0.1, ge=0, lt=0.5, description="How often the biased panel names what it likes less."
    )
    choose: Literal["random", "disagreement"] = Field(
        default="random",
        description="Which pairs are compared: random = all that are drawn; disagreement = those on whose preference "
        "the members of a served ensemble differ most.",
    )
    reward: str = Field(default="", description="disagreement: address of the reward service with the ensemble.")
    reward_model: str = Field(default="", description="disagreement: its name there; empty = the server's default.")
    pool: int = Field(default=4, ge=2, le=128, description="disagreement: pairs drawn for each one that is compared.")
    seed: int = Field(default=0, ge=0, lt=2**31, description="Of the order of prompts, every draw, side and label.")
    temperature: float = Field(default=1.0, gt=0, description="Divides the logits.")
    max_new_tokens: int = Field(default=64, ge=1, description="Longest completion in tokens.")
    timeout: float = Field(default=120.0, gt=0, description="Seconds for one call.")
    wait: float = Field(default=WAIT_SECONDS, ge=0, description=WAIT_HELP)
    concurrency: int = Field(default=3, ge=1, le=64, description="Calls at a time; changes speed, not results.")
    progress: bool = Field(default=True, description="Show a progress bar.")

    @field_validator("out")
    @classmethod
    def _plain(cls, value: Path) -> Path:
        if value.suffix == ".gz":
            raise ValueError(f"{value}: comparisons are written as plain lines, which a name ending in .gz would deny")
        return value

    @model_validator(mode="after")
    def _together(self) -> Self:
        """Nothing that is given may be without effect, and nothing that is needed missing."""
        for owner, parts in _GOES_WITH.items():
            chosen = getattr(self, owner)
            for name in sorted(self.model_fields_set & parts.keys()):
                if chosen not in parts[name]:
                    raise ValueError(f"--{_flag(name)} goes with --{owner} {' or '.join(parts[name])}, not {chosen}")
            needed = _NEEDED[owner].get(chosen)
            if needed and not getattr(self, needed).strip():
                told = str(type(self).model_fields[needed].description).partition(": ")[2]
                raise ValueError(f"--{owner} {chosen} needs --{_flag(needed)}: {told}")
        return self


def _flag(name: str) -> str:
    return name.replace("_", "-")
