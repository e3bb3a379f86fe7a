"""Two reward replicas under load, balanced, killed and restarted: `python -m tests.checks.ops_fleet`.

Behind a real Envoy, behind a real nginx, and with our client's own round robin: calls must be shared within 60/40, as
the servers count them; kill -9 of either, and SIGTERM with a restart of both one after the other, must lose no call of
our client. A proxy that is not installed is left out, and said.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.checks.load import Tally, load, more
from tests.checks.proxies import WAYS, program, proxy
from tests.checks.service import Service
from tests.tiny_models import make_tiny_reward

LARGEST_SHARE = 0.6
_CALLS = 150
"""Of every kind, between two events."""

_FLAGS = ("--engine", "fake", "--cache-items", "0", "--drain-delay-seconds", "1")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One round of one way.

    Attributes:
        way: How replicas were reached.
        what: What was done to them.
        answered: Calls that were answered, and items of streams.
        failures: What callers saw who got no answer.
        share: Of the replica with more calls, where both were well.
    """

    way: str
    what: str
    answered: int
    failures: tuple[str, ...]
    share: float

    def holds(self) -> bool:
        """Whether no call was lost and none had too much to do."""
        return not self.failures and self.share <= LARGEST_SHARE


@contextmanager
def replicas(folder: Path) -> Iterator[list[Service]]:
    """Two, of one model."""
    model = make_tiny_reward(folder / "model", "encoder", 0)
    with ExitStack() as stack:
        found = []
        for name in ("a", "b"):
            service = Service(name, ["-m", "services.reward", "--model", str(model), *_FLAGS], folder / f"{name}.log")
            stack.callback(service.close)
            found.append(service)
        yield found


@contextmanager
def reached(way: str, services: Sequence[Service], folder: Path) -> Iterator[str]:
    """The address by which clients reach both."""
    if way in WAYS:
        with proxy(way, [service.port for service in services], folder) as target:
            yield target
    else:
        yield "ipv4:" + ",".join(service.target for service in services)


async def disturbed(what: str, services: Sequence[Service], target: str) -> tuple[Tally, float]:
    """Load while each replica in turn is ended and started again; and the larger share before."""
    async with load(target) as tally:
        await more(tally, 20)  # connections are there
        before = [_begun(service) for service in services]
        await more(tally, _CALLS)
        shares = [_begun(service) - earlier for service, earlier in zip(services, before, strict=True)]
        for service in services:
            await asyncio.to_thread(_end, what, service)
            await more(tally, _CALLS)
            await asyncio.to_thread(service.restart)
            await _answering(service)
            await more(tally, _CALLS)
    return tally, max(shares) / sum(shares)


def _end(what: str, service: Service) -> None:
    if what == "kill -9":
        service.kill()
    elif (code := service.drain()) != 0:
        raise RuntimeError(f"a server that was told to stop ended with {code}")


async def _answering(service: Service) -> None:
    """Until clients have found it again."""
    for _ in range(600):
        if await asyncio.to_thread(_begun, service) > 0:
            return
        await asyncio.sleep(0.1)
    raise RuntimeError(f"nobody calls replica {service.name} after its restart")


def _begun(service: Service) -> float:
    labels = {"grpc_service": "palate.v1.RewardService", "grpc_type": "unary"}
    return service.samples("grpc_server_started_total", **labels)


def rounds(folder: Path, ways: Sequence[str], count: int) -> Iterator[Outcome]:
    """Every way and every event, so many times."""
    with replicas(folder) as services:
        for number in range(count):
            for way in ways:
                for what in ("kill -9", "rolling restart"):
                    place = folder / f"{way}-{number}-{what[:4]}"
                    place.mkdir()
                    with reached(way, services, place) as target:
                        tally, share = asyncio.run(disturbed(what, services, target))
                    yield Outcome(way, what, sum(tally.answered.values()), tuple(tally.failures), share)


def main() -> None:
    """Exits with 1 where a call was lost or the load was not shared."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is done")
    parser.add_argument("--ways", nargs="+", default=["round robin", *WAYS])
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    absent = [way for way in given.ways if way in WAYS and program(way) is None]
    for way in absent:
        print(f"skipped: {way} is not installed (`make ops-env` brings Envoy, nginx-light of Debian nginx)", flush=True)
    table = Table("way", "event", "answered", "lost", "larger share", title="two replicas under load")
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="palate-check-") as folder:
        for each in rounds(Path(folder), [way for way in given.ways if way not in absent], given.rounds):
            outcomes.append(each)
            told = (each.way, each.what, str(each.answered), str(len(each.failures)), f"{each.share:.2f}")
            table.add_row(*told)
            print(*told, *each.failures[:3], sep="  ", flush=True)
    Console(width=120).print(table)
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps({"skipped": absent, "rounds": [asdict(each) for each in outcomes]}, indent=2))
    sys.exit(0 if outcomes and all(each.holds() for each in outcomes) else 1)


if __name__ == "__main__":
    main()
