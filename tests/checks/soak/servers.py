"""What is soaked: tiny real models, computed by ONNX Runtime and by transformers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from palate.models.export import export
from tests.checks.faults.servers import running
from tests.checks.service import Service
from tests.tiny_models import make_tiny_policy, make_tiny_reward

_COMMON = ("--threads", "1", "--log-level", "DEBUG", "--max-concurrent-calls", "64", "--drain-delay-seconds", "0")
_CACHE = ("--cache-items", "1024")
"""Half of the texts that callers draw from: some are found there, and some that were found there leave again."""


@asynccontextmanager
async def soaked(folder: Path) -> AsyncIterator[tuple[Service, Service]]:
    """A reward server with its cache and a policy server, with models of this folder and logs in it."""
    judge = export(make_tiny_reward(folder / "classifier", "encoder", seed=0), folder / "judge").path
    writer = make_tiny_policy(folder / "writer", seed=0)
    reward = ["-m", "services.reward", "--model", str(judge), "--engine", "onnx", *_CACHE, *_COMMON]
    policy = ["-m", "services.policy", "--model", str(writer), "--engine", "transformers", *_COMMON]
    async with running("reward", reward, folder) as judging, running("policy", policy, folder) as writing:
        yield judging, writing
