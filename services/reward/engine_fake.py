"""Engine without a model: scores that depend on the token ids and mean nothing; for trying a deployment."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from palate.models.folder import FolderError
from services.reward.engine import EngineOptions, Row
from services.reward.layout import ONE_LANE


class FakeEngine:
    """A number in [-1, 1) per row, the same for the same ids everywhere."""

    name = "fake"
    dtype = "float32"
    layout = ONE_LANE

    def __init__(self, options: EngineOptions, members: int = 1) -> None:
        if options.dtype not in ("auto", self.dtype) or options.device not in ("auto", "cpu"):
            raise FolderError("the fake engine computes nothing: leave --dtype and --device out")
        self._members = members

    def score(self, rows: Sequence[Row], alone: bool = False) -> NDArray[np.float32]:
        """(B, M) one number per row and member."""
        return np.array([_numbers(row.token_ids, self._members) for row in rows], np.float32)


def _numbers(token_ids: Sequence[int], count: int) -> list[float]:
    """As many as there are members; the first is the same however many there are."""
    digest = hashlib.shake_256(np.array(token_ids, "<i8").tobytes()).digest(4 * count)
    return [int.from_bytes(digest[at : at + 4], "little") / 2**31 - 1.0 for at in range(0, len(digest), 4)]
