"""Several models behind one name: an engine that asks each of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.reward.engine import Engine, Row


class EnsembleEngine:
    """Runs its members one after the other on the same rows."""

    def __init__(self, members: Sequence[Engine]) -> None:
        self._members = tuple(members)
        self.name = "+".join(dict.fromkeys(member.name for member in members))
        self.dtype = "+".join(dict.fromkeys(member.dtype for member in members))
        self.layout = min((member.layout for member in members), key=lambda one: (one.lanes, one.batch_tokens))

    def score(self, rows: Sequence[Row], alone: bool = False) -> NDArray[np.float32]:
        """(B, M) the members' scores side by side, in the order of the members."""
        return np.concatenate([member.score(rows, alone) for member in self._members], axis=1)
