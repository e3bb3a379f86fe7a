"""Connections that are bad, silent, slow or lead elsewhere now."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import grpc

from benchmarks.protected import make_protection
from palate.client import ChannelOptions
from palate.client.errors import call_error
from palate.v1.reward_service_pb2_grpc import RewardServiceStub
from tests.checks.faults.accounting import Fate
from tests.checks.faults.callers import answers, more, own_connection, scores_of, scoring
from tests.checks.faults.case import Case, Report
from tests.checks.faults.network import Weather, way_to
from tests.checks.faults.servers import descriptors, reward_server, settles
from tests.checks.service import Service
from tests.palate.client.name_server import name_server

_BAD_SECONDS = 3.0
_IDLE_STREAMS, _PER_CONNECTION = 1000, 100
_LORISES = 200
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


async def bad_way(folder: Path, report: Report) -> None:
    """A proxy that drops, delays, repeats, changes bytes and cuts, between TLS at both ends."""
    protection = make_protection(folder)
    options = ChannelOptions(tls=protection.tls)
    async with reward_server(folder) as plain:
        right = await scores_of(plain.target)
    async with (
        reward_server(folder, *protection.tls_flags, probe_tls=protection.tls) as reward,
        way_to("127.0.0.1", reward.port) as way,
    ):
        for weather in [each for each in Weather if each is not Weather.FAIR]:
            ledger = report.ledger(weather)
            async with scoring(way.target, ledger, right, callers=8, seconds=2.0, options=options):
                await more(ledger, 20)
                way.weather = weather
                await asyncio.sleep(_BAD_SECONDS)
                way.weather = Weather.FAIR
                way.hang_up()
                await more(ledger, 20)
        report.expect(await answers(reward.target, right, options=options), "a new caller is not answered")


async def half_open(folder: Path, report: Report) -> None:
    """The server's end of a connection is gone, and the caller's end does not know: nothing comes back, ever."""
    async with reward_server(folder) as reward, way_to("127.0.0.1", reward.port) as way:
        right, ledger = await scores_of(reward.target), report.ledger("Score, 2 s")
        async with scoring(way.target, ledger, right, callers=8, seconds=2.0):
            await more(ledger, 20)
            way.weather = Weather.DROP
            await more(ledger, 16, Fate.EXPIRED)
            way.weather = Weather.FAIR
            way.hang_up()
            await more(ledger, 20)
        report.expect(not ledger.ended[Fate.REFUSED], f"nobody refused: {ledger.told()}")


async def renamed(folder: Path, report: Report) -> None:
    """A name leads to another server now, and the former one is killed."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(reward_server(folder, name="first"))
        second = await stack.enter_async_context(
            reward_server(folder, name="second", host="127.0.0.2", port=first.port)
        )
        right, ledger = await scores_of(first.target), report.ledger("Score")
        names = stack.enter_context(name_server("127.0.0.1"))
        async with scoring(names.target(first.port), ledger, right, callers=8, seconds=30.0):
            await more(ledger, 100)
            names.addresses[:] = ["127.0.0.2"]
            await asyncio.to_thread(first.kill)
            await more(ledger, 200)
        served = second.samples("grpc_server_handled_total", grpc_method="Score", grpc_code="OK")
        report.facts["answered by the second server"] = f"{served:.0f}"
        report.expect(served > 0, "the second server was never asked")


async def idle_streams(folder: Path, report: Report) -> None:
    """A thousand streams that send nothing, of ten connections; another caller beside them; then all are cancelled."""
    async with AsyncExitStack() as stack:
        reward = await stack.enter_async_context(reward_server(folder))
        right, streams, beside = await scores_of(reward.target), report.ledger("ScoreStream"), report.ledger("Score")
        calls = []
        for number in range(_IDLE_STREAMS // _PER_CONNECTION):
            options = [("palate.own", number)]
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(reward.target, options=options))
            stub = RewardServiceStub(channel)
            calls += [stub.ScoreStream(timeout=300) for _ in range(_PER_CONNECTION)]
        waiting = [asyncio.create_task(streams.enter(_read(call), 300, lambda got: None)) for call in calls]
        async with scoring(reward.target, beside, right, seconds=30.0, options=own_connection(1)):
            await _in_flight(reward, _IDLE_STREAMS, at_least=True)
            await more(beside, 200)
        for call in calls:
            call.cancel()
        await asyncio.gather(*waiting)
        left = await _in_flight(reward, 0, at_least=False)
        report.expect(left == 0, f"{left:.0f} calls are still in flight")
        report.expect(beside.ended[Fate.ANSWERED] == beside.made, f"others were not answered: {beside.told()}")
        report.expect(
            streams.ended[Fate.CANCELLED] == streams.made, f"{streams.told()}, {streams.causes.most_common(3)}"
        )


async def _read(call: grpc.aio.StreamStreamCall) -> object:
    """The first reply; cancelled where the call is."""
    try:
        return await call.read()
    except grpc.RpcError as error:
        raise call_error(error, "the server", "palate.v1.RewardService") from error


async def _in_flight(reward: Service, count: int, *, at_least: bool) -> float:
    """Calls in flight once they are so many, or after a minute."""
    for _ in range(50):
        found = await asyncio.to_thread(reward.samples, "palate_calls_in_flight")
        if found >= count if at_least else found <= count:
            break
        await asyncio.sleep(0.2)
    return float(found)


async def slow_loris(folder: Path, report: Report) -> None:
    """Two hundred connections that say hello a byte at a time, for as long as they may."""
    async with reward_server(folder) as reward:
        right, ledger = await scores_of(reward.target), report.ledger("Score beside them")
        before = descriptors(reward)
        lorises = [asyncio.create_task(_loris(reward.port)) for _ in range(_LORISES)]
        async with scoring(reward.target, ledger, right, seconds=30.0):
            await more(ledger, 200)
            held = descriptors(reward) - before
            done, left = await asyncio.wait(lorises, timeout=60)
            await more(ledger, 50)
        for loris in left:
            loris.cancel()
        after = await settles(reward, before + 1)
        report.facts["connections"] = f"{held} held, {len(done)} cut by the server"
        report.facts["descriptors"] = f"{before} before, {after} after"
        report.expect(not left, f"{len(left)} of {_LORISES} connections that say nothing were not cut in a minute")
        report.expect(after <= before + 1, "descriptors are left")
        report.expect(ledger.ended[Fate.ANSWERED] == ledger.made, f"others were not answered: {ledger.told()}")


async def _loris(port: int) -> None:
    """Ends when the server hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for byte in _PREFACE[:-1]:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.5)
        while await reader.read(1024):
            pass
    except OSError:
        return
    finally:
        writer.close()


CASES = (
    Case("proxy", "a way that drops, delays, repeats, changes or cuts (TLS): no wrong answer, deadlines hold", bad_way),
    Case(
        "half-open",
        "a connection that only the caller believes in: calls expire in time, the next one works",
        half_open,
    ),
    Case("dns", "a name that leads elsewhere: callers follow it, and no answer is wrong", renamed),
    Case("idle", "a thousand idle streams: others are answered, and nothing is left when they go", idle_streams),
    Case("loris", "connections that say hello a byte at a time: others are answered, and they are cut", slow_loris),
)
