"""A way to a server that loses, delays, repeats or changes bytes, or that only one end still believes in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import StrEnum

_DELAY_SECONDS = 0.2
_BLOCK_BYTES = 16 * 1024


class Weather(StrEnum):
    """What becomes of bytes."""

    FAIR = "fair"
    DROP = "drop"
    DELAY = "delay"
    DUPLICATE = "duplicate"
    CORRUPT = "corrupt"
    CUT = "cut"


class Way:
    """A TCP proxy.

    Attributes:
        weather: Of all connections, from the next bytes on.
        target: Its address.
    """

    def __init__(self, host: str, port: int) -> None:
        self.weather = Weather.FAIR
        self.target = ""
        self._to = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carries a connection's bytes both ways until one end is gone."""
        try:
            onward_reader, onward = await asyncio.open_connection(*self._to)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, onward}
        await asyncio.gather(self._carry(reader, onward), self._carry(onward_reader, writer))
        self._writers -= {writer, onward}

    def hang_up(self) -> None:
        """Ends every connection, without a word to the other end."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while block := await reader.read(_BLOCK_BYTES):
                if self.weather is Weather.CUT:
                    break
                if self.weather is Weather.DELAY:
                    await asyncio.sleep(_DELAY_SECONDS)
                writer.write(_carried(block, self.weather))
                await writer.drain()
        writer.close()


def _carried(block: bytes, weather: Weather) -> bytes:
    if weather is Weather.DROP:
        return b""
    if weather is Weather.DUPLICATE:
        return block + block
    if weather is Weather.CORRUPT:
        middle = len(block) // 2
        return block[:middle] + bytes([block[middle] ^ 0x10]) + block[middle + 1 :]
    return block


@asynccontextmanager
async def way_to(host: str, port: int) -> AsyncIterator[Way]:
    """A running one, in fair weather."""
    way = Way(host, port)
    server = await asyncio.start_server(way.connect, "127.0.0.1", 0)
    way.target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield way
    finally:
        server.close()
        way.hang_up()
        await server.wait_closed()
