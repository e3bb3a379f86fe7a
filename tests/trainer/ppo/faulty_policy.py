"""A policy server whose engine, a real one, fails on every step that a poisoned row is in."""

from __future__ import annotations

import os

from services.policy import engine_transformers
from services.policy.__main__ import main
from services.policy.decoding import Decoding
from services.policy.engine import DecodeStep

POISON_TOKENS = "PALATE_TEST_POISON_PROMPT_TOKENS"
"""Variable: a row whose prompt has so many tokens makes the step raise."""


class Faulty(Decoding):
    """The engine's batch with a weakness."""

    def step(self) -> DecodeStep:
        """Raises where a poisoned row arrives; none gets beyond that."""
        poison = int(os.environ[POISON_TOKENS])
        if any(len(row.prompt_ids) == poison for row in self._arriving):
            raise ArithmeticError("what a user sent")
        return super().step()


if __name__ == "__main__":
    engine_transformers.Decoding = Faulty  # type: ignore[misc]
    main("python -m tests.trainer.ppo.faulty_policy")
