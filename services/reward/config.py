"""What a reward server can be told."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.reward.engines import EngineName
from services.runtime.config import ServerConfig


class RewardConfig(ServerConfig):
    """Serves a reward model: scores, compares and ranks completions, and explains what it reads."""

    model_config = SettingsConfigDict(env_prefix="PALATE_REWARD_")

    model: Path = Field(description="Folder of a Hugging Face sequence classifier, or of `palate export`.")
    name: str = Field("", description="Name of the model in replies and options; default is the folder's.")
    engine: EngineName = Field(
        "auto",
        description="What runs the forward pass: onnx (needs `palate export`), torch, or auto, which is onnx where the "
        "folder has a model.onnx; fake gives meaningless scores for trying a deployment.",
    )
    device: str = Field("auto", description="For torch: auto, cpu, cuda, cuda:1 and so on.")
    threads: int = Field(
        0, ge=0, description="CPU threads of the engine; 0 = one per core. Give 1 where processes share few cores."
    )
    max_items: int = Field(1024, ge=1, description="Most items in one request.")
    max_stream_items: int = Field(
        128, ge=1, description="Items of one stream that may be without an answer; the server reads on when fewer are."
    )
    max_queue_items: int = Field(4096, ge=1, description="Items that may wait; more is refused, streams wait.")
    max_queue_tokens: int = Field(1_048_576, ge=1, description="Tokens that may wait; more is refused, streams wait.")
    max_batch_items: int = Field(64, ge=1, description="Rows that the engine takes at once.")
    max_batch_tokens: int = Field(
        8192, ge=1, description="Padded tokens (rows x longest) of a batch; a longer row goes alone."
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
    parity_tolerance: float = Field(
        1e-4,
        gt=0,
        description="How far built-in texts scored alone and in one batch may be apart at start, in standard "
        "deviations of their scores; beyond it the server refuses to start.",
    )
