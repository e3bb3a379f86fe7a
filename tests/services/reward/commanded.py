"""An engine that does as it is told, for the tests of what happens around it."""

import threading
from collections.abc import Sequence

import numpy as np

from services.reward.engine import Row
from services.reward.layout import ONE_LANE


class Commanded:
    """Scores a row by its length; can be held, poisoned, or made to give no numbers."""

    name, dtype, layout = "commanded", "float32", ONE_LANE

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Event()
        self.poisoned: set[int] = set()
        self.not_a_number: set[int] = set()
        self.computed: list[int] = []

    def score(self, rows: Sequence[Row], alone: bool = False) -> np.ndarray:
        self.began.set()
        assert self.gate.wait(60)
        lengths = [len(row.token_ids) for row in rows]
        self.computed += lengths
        if self.poisoned & set(lengths):
            raise MemoryError("no room")
        return np.array([[np.nan if n in self.not_a_number else n] for n in lengths], np.float32)
