"""A reward server whose engine fails: on one poisoned row, or where a batch needs more memory than there is."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.reward import engine_fake
from services.reward.__main__ import main
from services.reward.engine import Row

POISON_TOKENS = "PALATE_TEST_POISON_TOKENS"
"""Variable: a row of so many tokens makes the engine raise."""

ROW_BYTES = "PALATE_TEST_ROW_BYTES"
"""Variable: bytes that the engine takes for each row."""


class Faulty(engine_fake.FakeEngine):
    """The fake engine with a weakness."""

    def score(self, rows: Sequence[Row], alone: bool = False) -> NDArray[np.float32]:
        poison, row_bytes = int(os.environ.get(POISON_TOKENS, "0")), int(os.environ.get(ROW_BYTES, "0"))
        if any(len(row.token_ids) == poison for row in rows):
            raise RuntimeError("poisoned")
        if row_bytes:
            np.empty(len(rows) * row_bytes, np.uint8)
        return super().score(rows, alone)


if __name__ == "__main__":
    engine_fake.FakeEngine = Faulty  # type: ignore[misc]
    main("python -m tests.checks.faults.faulty_reward")
