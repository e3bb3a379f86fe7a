"""What a policy server can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from palate.models.place import MAX_DOWNLOAD_BYTES
from services.runtime.config import ServerConfig


class PolicyConfig(ServerConfig):
    """Serves a policy: samples completions with their logprobs, and takes new weights while it runs."""

    model_config = SettingsConfigDict(env_prefix="PALATE_POLICY_")

    model: Path = Field(
        description="Folder of a Hugging Face causal language model (safetensors); or hub:org/name@revision, which is "
        "downloaded from the Hugging Face hub (branch, tag or commit; without one, main)."
    )
    max_download_bytes: int = Field(
        MAX_DOWNLOAD_BYTES, ge=1, description="Bytes of the largest model that is downloaded from the hub."
    )
    name: str = Field("", description="Name clients are told; default is the folder's.")
    engine: Literal["transformers", "vllm", "fake"] = Field(
        "transformers",
        description="What runs the forward pass; vllm needs a GPU and the extra of that name; fake draws from one "
        "fixed distribution with the folder's tokenizer.",
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="Number format of the forward pass.")
    device: str = Field(
        "auto", description="auto (a GPU where PyTorch sees one), cpu, cuda, cuda:1 and so on; vllm chooses its own."
    )
    eager: bool = Field(
        False,
        description="Engine vllm neither compiles the model nor records CUDA graphs of it: sooner ready, slower steps.",
    )
    threads: int = Field(
        0,
        ge=0,
        description="CPU threads of the engine; 0 = one per core. Give 1 where processes share few cores, and to "
        "networks of less than some million parameters, which are slower with more.",
    )
    min_step_seconds: float = Field(
        0.0,
        ge=0,
        description="Seconds that a decode step takes at least: rehearses a larger model or a slower machine.",
    )
    frozen: bool = Field(False, description="Never take other weights: a reference policy.")
    max_batch_rows: int = Field(64, ge=1, description="Completions that are drawn together.")
    max_batch_tokens: int = Field(
        65_536, ge=1, description="Tokens of prompts and completions that one batch may hold, padding included."
    )
    max_queue_tokens: int = Field(
        1_048_576,
        ge=1,
        description="Tokens that waiting and running calls may compute, shared among callers; more is refused at once.",
    )
    max_prompts: int = Field(1024, ge=1, description="Most prompts, or sequences to compute logprobs of, in a call.")
    max_completions: int = Field(4096, ge=1, description="Most completions a call may ask for.")
    staging_lease_seconds: float = Field(300.0, gt=0, description="How long staged weights are kept without a commit.")
