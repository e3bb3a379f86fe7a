"""A policy server whose engine fails on one poisoned row, amid its step, once three tokens of it are drawn."""

from __future__ import annotations

import os
from typing import Any

from services.policy import engine_fake
from services.policy.__main__ import main
from tests.services.policy.poisoned import PoisonedEngine

POISON_TOKENS = "PALATE_TEST_POISON_PROMPT_TOKENS"
"""Variable: a row whose prompt has so many tokens makes the step raise."""

DRAWN = 3
"""Tokens that the row has by then."""


class Faulty(PoisonedEngine):
    """The fake engine with a weakness."""

    def __init__(self, vocab_size: int, eos_token_ids: tuple[int, ...]) -> None:
        super().__init__(vocab_size, eos_token_ids)
        poison = int(os.environ[POISON_TOKENS])
        self.amid = True
        self.poisoned: Any = lambda row: len(row.prompt_ids) == poison and len(row.token_ids) == DRAWN


if __name__ == "__main__":
    engine_fake.FakeEngine = Faulty  # type: ignore[misc]
    main("python -m tests.checks.faults.faulty_policy")
