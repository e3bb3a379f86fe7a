"""What runs a forward pass: the contract between the service and its engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from services.reward.layout import ONE_THREAD, Layout, Threads

DtypeName = Literal["auto", "float32", "bfloat16", "int8"]


@dataclass(frozen=True, slots=True)
class Row:
    """One input of a model.

    Attributes:
        token_ids: (T,) at least one id.
        segment_ids: (T,) which text each token belongs to; empty for models that are not told.
    """

    token_ids: tuple[int, ...]
    segment_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How an engine is to run.

    Attributes:
        device: "auto", "cpu", "cuda", "cuda:1" etc.
        dtype: Number format of the forward pass; "auto" is that of model.onnx, float32 for torch.
        threads: CPU threads of a forward pass.
        lanes: Forward passes side by side on a CPU.
        strict: Whether a row's score must be the same bits whatever is beside it.
        max_batch_tokens: Tokens whose keys and values may be held at once for rows that share a prefix.
    """

    device: str = "auto"
    dtype: DtypeName = "auto"
    threads: Threads = ONE_THREAD
    lanes: int = 1
    strict: bool = False
    max_batch_tokens: int = 8192


class Engine(Protocol):
    """Scores rows. Blocks, and may be called from several threads at once. Knows neither text nor protobuf.

    The engine pads on the right and reads each row at its true last token (decoders) or its first (encoders); a row's
    score does not depend on the rows beside it beyond rounding.
    """

    @property
    def name(self) -> str:
        """As replies name it, e.g. "onnx"."""

    @property
    def dtype(self) -> str:
        """Number format of the forward pass: "float32", "bfloat16", or "int8" (weights and products)."""

    @property
    def layout(self) -> Layout:
        """How it likes its work, for whoever makes the batches."""

    def score(self, rows: Sequence[Row], alone: bool = False) -> NDArray[np.float32]:
        """(B, M) raw scores: a column for each member of an ensemble, one for a model without members.

        Args:
            rows: At least one.
            alone: Whether nothing else waits or is being computed, so that all threads are free.
        """
