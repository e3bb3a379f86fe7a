"""A fake engine whose step fails on some rows, before or amid its work."""

from services.policy.engine_fake import FakeBatch, FakeEngine

WORDS = "what a user sent"


class PoisonedEngine(FakeEngine):
    """Fails where a batch holds a row that is poisoned, or more rows than it bears."""

    def __init__(self, vocab_size, eos_token_ids, before_step=None):
        super().__init__(vocab_size, eos_token_ids, before_step)
        self.poisoned = lambda row: False
        self.bears = 10_000
        self.amid = False  # whether it has drawn, and lost what it drew, when it fails
        self.failures = 0

    def batch(self, weights):
        batch = PoisonedBatch(weights, self.eos_token_ids, self._before_step)
        batch.engine = self
        return batch


class PoisonedBatch(FakeBatch):
    def step(self):
        engine = self.engine
        if not any(map(engine.poisoned, self._rows)) and len(self._rows) <= engine.bears:
            return super().step()
        if engine.amid:
            super().step()
        engine.failures += 1
        raise ArithmeticError(WORDS)
