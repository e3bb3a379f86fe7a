"""Chunks on their way to the thread that checks them: some are read ahead while it works, never more than that."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from palate.models.weights import Chunk
from services.policy.upload import Upload

_BATCH = 4
"""Chunks that are handed over together. Twice as many may be in memory: those that are checked, and those to come."""


class Receiving:
    """Feeds an upload in a thread: hashing a MiB takes a millisecond that other calls need, and handing it over too.

    Reading from the wire goes on meanwhile, so an error of a chunk is raised with one that comes later, or at the end.
    """

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self._waiting: list[Chunk] = []
        self._checking: asyncio.Future[None] | None = None

    async def add(self, chunk: Chunk) -> None:
        """Takes the next chunk; waits where the thread has not kept up.

        Raises:
            InvalidRequest: This chunk, or one before it, is not the next one, or its tensor arrived broken.
        """
        self._waiting.append(chunk)
        if len(self._waiting) == _BATCH:
            await self._hand_over()

    async def end(self) -> None:
        """Returns when every chunk is checked.

        Raises:
            InvalidRequest: One of them is not the next one, or its tensor arrived broken.
        """
        await self._hand_over()
        await self._checked()

    async def _hand_over(self) -> None:
        await self._checked()
        batch, self._waiting = self._waiting, []
        self._checking = asyncio.get_running_loop().run_in_executor(None, _add, self._upload, batch)
        self._checking.add_done_callback(_look)

    async def _checked(self) -> None:
        if self._checking is not None:
            await self._checking


def _add(upload: Upload, chunks: Sequence[Chunk]) -> None:
    for chunk in chunks:
        upload.add(chunk)


def _look(checking: asyncio.Future[None]) -> None:
    """What went wrong in a batch that nobody waits for any more is of no interest: another error ended the call."""
    if not checking.cancelled():
        checking.exception()
