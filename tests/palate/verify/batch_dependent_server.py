"""A reward server whose engine's scores depend on the batch: what `palate verify` is there to catch."""

from collections.abc import Sequence

import numpy as np

from services.reward import engine_fake
from services.reward.__main__ import main
from services.reward.engine import Row


class BatchDependent(engine_fake.FakeEngine):
    """The fake engine's scores, moved by the number of rows beside them."""

    def score(self, rows: Sequence[Row], alone: bool = False) -> np.ndarray:
        return super().score(rows) + np.float32(0.01 * (len(rows) - 1))


engine_fake.FakeEngine = BatchDependent
main()
