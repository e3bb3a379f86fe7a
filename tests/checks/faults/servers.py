"""Servers for the cases, each a process of its own, and what the system says of them."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tests.checks.service import Service
from tests.tiny_models import make_tiny_policy, make_tiny_reward

FAULTY_REWARD = ("-m", "tests.checks.faults.faulty_reward")
FAULTY_POLICY = ("-m", "tests.checks.faults.faulty_policy")

_DRAIN = ("--drain-delay-seconds", "0")


@cache
def reward_folder() -> Path:
    """A tiny reward model, made once."""
    return make_tiny_reward(Path(tempfile.gettempdir()) / "reward", "encoder", seed=0)


@cache
def policy_folder() -> Path:
    """A tiny policy, made once."""
    return make_tiny_policy(Path(tempfile.gettempdir()) / "policy", seed=0)


def make_models() -> None:
    """Makes both, so that no case does."""
    reward_folder()
    policy_folder()


@asynccontextmanager
async def reward_server(
    folder: Path,
    *flags: str,
    program: Sequence[str] = ("-m", "services.reward"),
    name: str = "reward",
    **where: Any,
) -> AsyncIterator[Service]:
    """A reward server with the fake engine, whose scores mean nothing and are right all the same.

    Args:
        folder: For its log.
        flags: Further ones.
        program: What serves.
        name: Of its log.
        where: Where it listens and how it is asked, as `local_server` takes it.
    """
    engine = ("--engine", "fake", "--cache-items", "0")
    command = [*program, "--model", str(reward_folder()), *engine, *_DRAIN, *flags]
    async with running(name, command, folder, **where) as service:
        yield service


@asynccontextmanager
async def policy_server(
    folder: Path, *flags: str, program: Sequence[str] = ("-m", "services.policy"), name: str = "policy"
) -> AsyncIterator[Service]:
    """A policy server with the fake engine: one distribution, and the same draws for the same seeds."""
    command = [*program, "--model", str(policy_folder()), "--engine", "fake", *_DRAIN, *flags]
    async with running(name, command, folder) as service:
        yield service


@asynccontextmanager
async def running(name: str, command: Sequence[str], folder: Path, **where: Any) -> AsyncIterator[Service]:
    """A server with its log in a folder."""
    service = await asyncio.to_thread(Service, name, command, folder / f"{name}.log", **where)
    try:
        yield service
    finally:
        await asyncio.to_thread(service.close)


def descriptors(service: Service) -> int:
    """Open files and sockets."""
    return len(list(Path(f"/proc/{service.pid}/fd").iterdir()))


def threads(service: Service) -> int:
    """Threads of the process."""
    return len(list(Path(f"/proc/{service.pid}/task").iterdir()))


def processor_seconds(service: Service) -> float:
    """Time that the process has computed."""
    user, system = Path(f"/proc/{service.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def resident_bytes(service: Service) -> int:
    """Memory that is in use."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{service.pid}/status").read_text().splitlines() if ":" in line
    )
    return int(fields["VmRSS"].split()[0]) * 1024


async def settles(service: Service, most: int, seconds: float = 30.0) -> int:
    """Descriptors once they are `most` at most, or after so many seconds."""
    end = asyncio.get_running_loop().time() + seconds
    while (found := descriptors(service)) > most and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.1)
    return found
