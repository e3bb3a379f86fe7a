"""What is done to servers while they are called: connections are cut, processes are stopped, and at last killed."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Sequence

from tests.checks.faults.network import Way
from tests.checks.service import Service

_CUT_EVERY_SECONDS = 5.0
_STOP_EVERY_SECONDS = 20.0
_STOPPED_SECONDS = (1.0, 2.0)
_KILL_EVERY_SECONDS = 3.0
_ANSWERING_SECONDS = 120.0
_LOOK_SECONDS = 0.2


async def cut(way: Way, over: asyncio.Event) -> int:
    """Cuts the connections of the reward server now and then; how often."""
    cuts = 0
    while not await _over(over, _CUT_EVERY_SECONDS):
        way.hang_up()
        cuts += 1
    return cuts


async def stop(services: Sequence[Service], over: asyncio.Event) -> int:
    """Holds one server or the other for a second or two now and then; how often."""
    draw, stops = random.Random(0), 0
    while not await _over(over, _STOP_EVERY_SECONDS):
        service = draw.choice(services)
        service.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(draw.uniform(*_STOPPED_SECONDS))
        finally:
            service.send(signal.SIGCONT)
        stops += 1
    return stops


async def kill(services: Sequence[Service], seconds: float) -> int:
    """Ends one server after the other as kill -9 does, each once at least, and starts it again; how often.

    Raises:
        TimeoutError: One that was started again answered nobody.
    """
    end, kills = time.monotonic() + seconds, 0
    while kills < len(services) or time.monotonic() < end:
        service = services[kills % len(services)]
        await asyncio.sleep(_KILL_EVERY_SECONDS)
        await asyncio.to_thread(service.kill)
        await asyncio.to_thread(service.restart)
        await _answers(service)
        kills += 1
    return kills


async def _answers(service: Service) -> None:
    """Waits until it has answered a call."""
    async with asyncio.timeout(_ANSWERING_SECONDS):
        while not await asyncio.to_thread(service.samples, "grpc_server_handled_total", grpc_code="OK"):
            await asyncio.sleep(_LOOK_SECONDS)


async def _over(over: asyncio.Event, seconds: float) -> bool:
    """Whether it is over within so many seconds."""
    try:
        await asyncio.wait_for(over.wait(), seconds)
    except TimeoutError:
        return False
    return True
