"""Which replicas of the policy service there are: an explicit list, or all addresses behind a DNS name, asked again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from palate.client.address import Address, addresses_of
from palate.client.policy import PolicyClient
from trainer.ppo.errors import NoReplica

_LOG = logging.getLogger(__name__)

_DNS = "dns:"
_FRESH_SECONDS = 2.0
"""An answer of the resolver is good for so long."""


def resolve(entry: str) -> list[Address]:
    """The replicas behind an entry of --services.policy, in a fixed order.

    Args:
        entry: "host:port" is one replica; "dns:name:port" (or "dns:///name:port") is one at every address of the name.

    Raises:
        NoReplica: The name has no address, or is none.
    """
    if not entry.startswith(_DNS):
        return [Address(entry)]
    host, _, port = entry.removeprefix(_DNS).removeprefix("///").rpartition(":")
    if not host or not port.isdigit():
        raise NoReplica(f"{entry} is not dns:NAME:PORT")
    try:
        return addresses_of(host, int(port))
    except OSError as error:
        raise NoReplica(
            f"{host} has no address: {error}. Is its Service there, and does it publish replicas?"
        ) from error


class Fleet:
    """The replicas that there are now; a client stays while its address does.

    Args:
        entries: As in --services.policy.
        connect: Makes the client of a replica.
        linger: Seconds for which the client of a replica that has gone stays open: others may be in a call.
    """

    def __init__(self, entries: Sequence[str], connect: Callable[[Address], PolicyClient], linger: float = 0.0) -> None:
        self._entries = tuple(entries)
        self._connect = connect
        self._clients: dict[Address, PolicyClient] = {}
        self._linger = linger
        self._gone: list[tuple[float, PolicyClient]] = []
        self._asked = -_FRESH_SECONDS
        self._lock = threading.Lock()

    def clients(self) -> tuple[PolicyClient, ...]:
        """One for each replica; names are resolved again where the last answer is old.

        Raises:
            NoReplica: A name has no address, and never had one.
        """
        with self._lock:
            if time.monotonic() - self._asked >= _FRESH_SECONDS:
                self._poll()
                self._asked = time.monotonic()
            return tuple(self._clients.values())

    def forget_gone(self) -> None:
        """Closes the clients of replicas that have gone; call it while nobody asks anything of those gone so long."""
        with self._lock:
            latest = time.monotonic() - self._linger
            gone = [client for since, client in self._gone if since <= latest]
            self._gone = [(since, client) for since, client in self._gone if since > latest]
        for client in gone:
            client.close()

    def close(self) -> None:
        """Closes all clients, and ends the calls that they are in."""
        with self._lock:
            clients = [*(client for _, client in self._gone), *self._clients.values()]
        for client in clients:
            client.close()

    def _poll(self) -> None:
        try:
            found = [address for entry in self._entries for address in resolve(entry)]
        except NoReplica as error:
            if not self._clients:
                raise
            _LOG.warning("going on with the replicas known so far: %s", error)
            return
        for address in self._clients.keys() - set(found):
            _LOG.warning("replica %s has gone", address.target)
            self._gone.append((time.monotonic(), self._clients.pop(address)))
        for address in found:
            if address not in self._clients:
                self._clients[address] = self._connect(address)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
