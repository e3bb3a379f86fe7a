"""Configuration of `palate best-of-n`."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from palate.aggregate import HELP
from palate.settings import Settings
from palate.waiting import WAIT_HELP, WAIT_SECONDS
from trainer.access import AccessFields

FEWEST = 8
"""Completions of a prompt: with fewer, and some without a score, there would be no curve to fit a form to."""


class BestOfNConfig(AccessFields, Settings):
    """Says what a reward model does under pressure: how proxy and gold go while n of best of n grows.

    Draws completions of your prompts from a policy service, has a reward service (the proxy) and something better
    (gold) score each, and estimates both for the completion that the proxy likes best among n, without bias. What is
    done is in OUT/drawn.jsonl prompt by prompt; stopped, the same command goes on. docs/best-of-n.md explains it.
    """

    model_config = SettingsConfigDict(env_prefix="PALATE_BEST_OF_N_")

    policy: str = Field(description="Address of the policy service.")
    prompts: Path = Field(description='JSONL file, one {"prompt": "..."} a line; "group" keeps prompts together.')
    out: Path = Field(description="Folder for what is drawn and for the report; one that exists is gone on with.")
    proxy: str = Field(description="Address of the reward service that chooses.")
    proxy_model: str = Field(default="", description="Its name there; empty = the server's default.")
    variance_weight: float = Field(default=1.0, ge=0, description=f"Proxy an ensemble: {HELP['variance_weight']}")
    gold: str = Field(default="", description="Address of the reward service that says what a completion is worth.")
    gold_model: str = Field(default="", description="Its name there; empty = the server's default.")
    gold_function: str = Field(
        default="", description='Instead of it a local function, "module:function": texts in, a number or None out.'
    )
    samples: int = Field(
        default=64, le=4096, description=f"Completions of each prompt, and the largest n; at least {FEWEST}."
    )
    limit: int = Field(default=200, ge=2, le=100_000, description="Most prompts; of more so many are drawn.")
    seed: int = Field(default=0, ge=0, lt=2**31, description="Of the choice of prompts, every draw, and the bootstrap.")
    temperature: float = Field(default=1.0, gt=0, description="Divides the logits.")
    max_new_tokens: int = Field(default=64, ge=1, description="Longest completion in tokens.")
    timeout: float = Field(default=120.0, gt=0, description="Seconds for one call, of a service or of the function.")
    wait: float = Field(default=WAIT_SECONDS, ge=0, description=WAIT_HELP)
    concurrency: int = Field(default=3, ge=1, le=64, description="Prompts at a time; changes speed, not results.")
    progress: bool = Field(default=True, description="Show a progress bar.")

    @field_validator("samples")
    @classmethod
    def _is_a_curve(cls, samples: int) -> int:
        if samples < FEWEST:
            raise ValueError(f"a curve over n takes {FEWEST} completions of a prompt or more, and 64 show something")
        return samples

    @model_validator(mode="after")
    def _something_else_is_gold(self) -> Self:
        if bool(self.gold) == bool(self.gold_function):
            raise ValueError("give --gold, a reward service that knows better, or --gold-function, and not both")
        if self.gold_model and not self.gold:
            raise ValueError("--gold-model has no effect without --gold")
        if (self.gold, self.gold_model) == (self.proxy, self.proxy_model):
            raise ValueError(f"gold is the proxy, {self.proxy}: it would agree with itself; give another --gold")
        return self
