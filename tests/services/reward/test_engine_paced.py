"""A paced engine scores as the engine behind it, and waits for the rest of each pass."""

import numpy as np
import pytest

from services.reward import engine_paced
from services.reward.engine import EngineOptions, Row
from services.reward.engine_fake import FakeEngine
from services.reward.engine_paced import PacedEngine
from services.reward.layout import ONE_LANE


class Clock:
    """A clock that only waiting and working move."""

    def __init__(self):
        self.now = 100.0
        self.waited = []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.waited.append(seconds)
        self.now += seconds


class Working(FakeEngine):
    """Takes its time."""

    def __init__(self, clock, seconds):
        super().__init__(EngineOptions())
        self.clock, self.seconds = clock, seconds

    def score(self, rows, alone=False):
        self.clock.now += self.seconds
        return super().score(rows, alone)


@pytest.mark.parametrize(("work", "waits"), [(0.3, 0.7), (1.5, 0.0)])
def test_passes_take_at_least_so_long(monkeypatch, work, waits):
    clock = Clock()
    monkeypatch.setattr(engine_paced, "time", clock)
    rows = [Row((1, 2, 3)), Row((4,))]
    paced = PacedEngine(Working(clock, work), 1.0)
    for _ in range(3):
        assert np.array_equal(paced.score(rows), FakeEngine(EngineOptions()).score(rows))
    assert clock.waited == pytest.approx([waits] * 3)
    assert (paced.name, paced.dtype, paced.layout) == ("fake", "float32", ONE_LANE)
