"""Runs independent computations side by side: actor and critic share nothing, so each gets half of the threads.

For small models this is worth more than threads inside of an operation: nothing is split, nothing waits in a spin.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Self

import torch

_LANES = 2


class Lanes:
    """Up to two computations at a time.

    Args:
        threads: CPU threads in all; with 1, computations run one after the other.
        one_by_one: Run them one after the other in any case: ranks must meet in the same order.
    """

    def __init__(self, threads: int, *, one_by_one: bool = False) -> None:
        lanes = 1 if one_by_one else min(_LANES, threads)
        inner = max(1, threads // lanes)
        torch.set_num_threads(inner)
        # torch keeps the number for the calling thread only, so every worker sets its own.
        self._pool = ThreadPoolExecutor(
            lanes, thread_name_prefix="lane", initializer=torch.set_num_threads, initargs=(inner,)
        )

    def run(self, *jobs: Callable[[], Any]) -> list[Any]:
        """Results in the order of `jobs`; waits for all, then raises the first job's error, if any."""
        futures = [self._pool.submit(job) for job in jobs]
        wait(futures)
        return [future.result() for future in futures]

    def close(self) -> None:
        """Ends the workers."""
        self._pool.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
