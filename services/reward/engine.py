"""What runs a forward pass: the contract between the service and its engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Row:
    """One input of a model.

    Attributes:
        token_ids: (T,) at least one id.
        segment_ids: (T,) which text each token belongs to; empty for models that are not told.
    """

    token_ids: tuple[int, ...]
    segment_ids: tuple[int, ...] = ()


class Engine(Protocol):
    """Scores rows. Blocks, and is called from one thread only. Knows neither text nor protobuf.

    The engine pads on the right and reads each row at its true last token (decoders) or its first (encoders); a row's
    score does not depend on the rows beside it beyond rounding.
    """

    @property
    def name(self) -> str:
        """As replies name it, e.g. "onnx"."""

    @property
    def dtype(self) -> str:
        """Number format of the forward pass, e.g. "float32"."""

    def score(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """(B, M) raw scores: a column for each member of an ensemble, one for a model without members."""
