"""What a reward server can be told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints
from pydantic_settings import SettingsConfigDict

from palate.client.adapters.endpoint import VARIABLES
from palate.client.adapters.openrlhf import END_TOKEN
from palate.client.adapters.verl import PROMPT_KEY
from palate.models.place import MAX_DOWNLOAD_BYTES
from palate.models.tolerances import tolerance_of
from services.reward.engine import DtypeName, EngineOptions
from services.reward.engines import EngineName
from services.reward.hardware import usable_cores
from services.reward.layout import MOST_TOKENS, ONE_LANE, Layout, share_threads
from services.runtime.batching import BatchLimits
from services.runtime.config import ServerConfig

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")
"""What a model may be called; a name stands in options, logs and metrics."""


class RewardConfig(ServerConfig):
    """Serves a reward model: scores, compares and ranks completions, and explains what it reads."""

    model_config = SettingsConfigDict(env_prefix="PALATE_REWARD_")

    model: Path = Field(
        description="Folder of a Hugging Face sequence classifier, or of `palate export`; or hub:org/name@revision, "
        "which is downloaded from the Hugging Face hub (branch, tag or commit; without one, main)."
    )
    name: str = Field("", description="Name of the model in replies and options; default is the folder's.")
    models: dict[Annotated[str, StringConstraints(pattern=f"^{MODEL_NAME.pattern}$")], Path] = Field(
        default_factory=dict,
        description="More models, each NAME=FOLDER (or NAME=hub:org/name@revision), e.g. --models strict=path/to/a "
        "--models mild=path/to/b; in YAML a mapping, in the environment JSON. Requests choose by name; --model "
        "answers those that name none.",
    )
    max_download_bytes: int = Field(
        MAX_DOWNLOAD_BYTES, ge=1, description="Bytes of the largest model that is downloaded from the hub."
    )
    model_root: Path | None = Field(
        None,
        description="Folder from which AdminService may load models while serving, for callers with the role admin; "
        "without it every administration is refused.",
    )
    max_models: int = Field(16, ge=1, description="Models that may be loaded at once.")
    engine: EngineName = Field(
        "auto",
        description="What runs the forward pass: onnx (needs `palate export`), torch, or auto, which is onnx where the "
        "folder has a model.onnx; fake gives meaningless scores for trying a deployment.",
    )
    device: str = Field(
        "auto", description="auto (a GPU where engine and machine have one), cpu, cuda, cuda:1 and so on."
    )
    dtype: DtypeName = Field(
        "auto",
        description="Number format of the forward pass: float32; bfloat16 (torch; where the processor or GPU has it); "
        "int8 (onnx, `palate export --precision int8`). auto is that of model.onnx, else float32.",
    )
    strict: bool = Field(
        False,
        description="Same bits whatever the batch, proved at start: onnx on a CPU keeps its batches where that shows "
        "it; torch, and what shows otherwise, computes every row by itself and shares no prompt.",
    )
    threads: int = Field(
        0,
        ge=0,
        description="CPU threads of all forward passes together; 0 = one per core that the process may use (affinity "
        "and container quota). Give 1 where several processes share few cores.",
    )
    lanes: int = Field(
        0,
        ge=0,
        le=64,
        description="Forward passes side by side, which share out --threads; 0 = one per thread on a CPU, one on a "
        "GPU. A pass that runs alone takes all threads, save in strict mode.",
    )
    min_batch_seconds: float = Field(
        0.0,
        ge=0,
        description="Seconds that a forward pass takes at least: rehearses a larger model or a slower machine.",
    )
    max_items: int = Field(1024, ge=1, description="Most items in one request.")
    max_stream_items: int = Field(
        128, ge=1, description="Items of one stream that may be without an answer; the server reads on when fewer are."
    )
    stream_idle_seconds: float = Field(
        120.0, gt=0, description="How long a stream may be open without an item before it is ended kindly."
    )
    max_queue_items: int = Field(4096, ge=1, description="Items that may wait; more is refused, streams wait.")
    max_queue_tokens: int = Field(1_048_576, ge=1, description="Tokens that may wait; more is refused, streams wait.")
    max_batch_items: int = Field(64, ge=1, description="Rows that the engine takes at once.")
    max_batch_tokens: int = Field(
        0,
        ge=0,
        description="Padded tokens (rows x longest) of a batch, a longer row goes alone; 0 = what suits the engine: "
        "few for ONNX Runtime on a CPU, whose caches are small, many on a GPU and for prompts that are shared.",
    )
    deduplicate: bool = Field(
        True, description="Equal items of different calls that wait or are being computed share one computation."
    )
    cache_items: int = Field(
        16_384,
        ge=0,
        description="Scores that are kept, the ones used longest ago leaving first, and given again for the same "
        "token ids; 0 = none. About 1 KB each.",
    )
    rendering_threads: int = Field(1, ge=1, description="Threads that turn text into token ids.")
    parity_tolerance: float | None = Field(
        None,
        gt=0,
        description="How far built-in texts scored alone and in one batch may be apart at start, in standard "
        "deviations of their scores; beyond it the server refuses to start. Default: 0.0001, for bfloat16 0.1.",
    )

    @classmethod
    def variables_of_others(cls) -> frozenset[str]:
        """Those of the reward functions for other trainers, which may run beside a server."""
        return frozenset({*VARIABLES.values(), PROMPT_KEY, END_TOKEN})

    @property
    def engine_options(self) -> EngineOptions:
        """How the engine is to run."""
        threads = self.threads or usable_cores()
        lanes = self.lanes or threads
        shared = share_threads(threads, lanes, strict=self.strict)
        return EngineOptions(self.device, self.dtype, shared, lanes, self.strict, self.max_batch_tokens or MOST_TOKENS)

    def batch_limits(self, layout: Layout = ONE_LANE) -> BatchLimits:
        """How large batches become for an engine that likes its work so."""
        tokens = self.max_batch_tokens or layout.batch_tokens
        return BatchLimits(self.max_batch_items, tokens, layout.padding_slack, layout.overhead_tokens)

    def tolerance(self, dtype: str) -> float:
        """What the check at start allows an engine of that number format, in standard deviations."""
        return self.parity_tolerance or tolerance_of(dtype).batch
