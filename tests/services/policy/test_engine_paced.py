"""A paced engine draws what the engine behind it draws, and waits for the rest of each step."""

import pytest

from services.policy import engine_paced
from services.policy.engine import Row
from services.policy.engine_fake import FakeEngine
from services.policy.engine_paced import PacedEngine
from services.policy.sampling import Sampling

SAMPLING = Sampling(1.0, 0, 1.0, 5, True)
ROWS = (Row(0, (1,), 3, SAMPLING), Row(1, (1, 2), 4, SAMPLING))


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


@pytest.mark.parametrize(("work", "waits"), [(0.3, 0.7), (1.5, 0.0)])
def test_steps_take_at_least_so_long(monkeypatch, work, waits):
    clock = Clock()
    monkeypatch.setattr(engine_paced, "time", clock)

    def working():
        clock.now += work

    engine = FakeEngine(8, (), working)
    paced = PacedEngine(engine, 1.0)
    weights = engine.initial_weights()
    batch, bare = paced.batch(weights), FakeEngine(8, ()).batch(weights)
    for one in (batch, bare):
        one.join(ROWS)
    for _ in range(5):
        assert batch.step() == bare.step()
        clock.now += 9.0  # the reader's time is not the step's
    assert clock.waited == pytest.approx([waits] * 5)
    assert (paced.name, paced.vocab_size, paced.threads) == ("fake", 8, 1)
