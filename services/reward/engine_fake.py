"""Engine without a model: scores that depend on the token ids and mean nothing; for trying a deployment."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from palate.models.folder import FolderError
from services.reward.engine import EngineOptions, Row


class FakeEngine:
    """A number in [-1, 1) per row, the same for the same ids everywhere."""

    name = "fake"
    dtype = "float32"

    def __init__(self, options: EngineOptions) -> None:
        if options.dtype not in ("auto", self.dtype) or options.device not in ("auto", "cpu"):
            raise FolderError("the fake engine computes nothing: leave --dtype and --device out")

    def score(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """(B,) one number per row."""
        return np.array([_number(row.token_ids) for row in rows], np.float32)


def _number(token_ids: Sequence[int]) -> float:
    digest = hashlib.sha256(np.array(token_ids, "<i8").tobytes()).digest()
    return int.from_bytes(digest[:4], "little") / 2**31 - 1.0
