"""Patience of commands with a server that still starts, is full, or went away; who waits is told so."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TypeVar

from palate.client import Overloaded, PalateError, Unavailable

Answer = TypeVar("Answer")

PATIENCE_SECONDS = 300.0
"""How long a server may be away or full before the run stops; what was done is kept."""

WAIT_SECONDS = 120.0
"""How long a command waits for the first answer, unless it is told otherwise."""

WAIT_HELP = "Seconds to wait for a server that still starts; 0 = none."


def when_ready(call: Callable[[], Answer], seconds: float) -> Answer:
    """The first call of a command, repeated while the server still starts.

    Raises:
        CallError: It refuses, or does not answer within so many seconds.
    """
    return patiently(call, lambda error: say_waiting(error, seconds), seconds)


def patiently(
    call: Callable[[], Answer], waiting: Callable[[PalateError], None], seconds: float = PATIENCE_SECONDS
) -> Answer:
    """`call`, repeated while the server is full or away, as long as it asked to wait, or a growing while.

    `waiting` is told once where the server is away.

    Raises:
        CallError: It refuses, or stayed away for longer than so many seconds.
    """
    give_up, pause, told = time.monotonic() + seconds, 0.2, False
    while True:
        try:
            return call()
        except (Overloaded, Unavailable) as error:
            wait = error.retry_after or pause
            if time.monotonic() + wait > give_up:
                raise
            if isinstance(error, Unavailable) and not told:
                waiting(error)
                told = True
            time.sleep(wait)
            pause = min(2 * pause, 10.0)


def say_waiting(error: PalateError, seconds: float = PATIENCE_SECONDS) -> None:
    """Tells on standard error that a server is waited for."""
    print(f"waiting up to {seconds:g} s for the server, then going on: {error}", file=sys.stderr, flush=True)
