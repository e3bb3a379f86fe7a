"""The scheduler over simulated minutes: overload, mixed lengths, and a flood, at an engine of known cost."""

import asyncio
import statistics

import pytest

from tests.services.runtime.simulation import Ended, Simulation

SIZES = (20, 256)


def by_outcome(ended: list[Ended], outcome: str) -> list[Ended]:
    return [item for item in ended if item.outcome == outcome]


def seconds(items: list[Ended]) -> list[float]:
    return sorted(item.answered - item.arrived for item in items)


def closed_loop(callers: int, span: float, **engine: float) -> tuple[float, Simulation]:
    """Items a second with so many callers that each wait for their answer."""

    async def scenario() -> tuple[float, Simulation]:
        simulation = Simulation(**engine)
        simulation.closed_loop(callers, SIZES)
        await simulation.until(span)
        rate = len(by_outcome(simulation.ended, "done")) / span
        await simulation.stop()
        return rate, simulation

    return asyncio.run(scenario())


ENGINES = [
    pytest.param({"fixed": 0.004, "per_token": 20e-6, "noise": 0.1}, id="usual"),
    pytest.param({"fixed": 0.001, "per_token": 20e-6, "noise": 0.3}, id="noisy"),
    pytest.param({"fixed": 0.02, "per_token": 40e-6, "noise": 0.1}, id="slow"),
]


@pytest.mark.parametrize("engine", ENGINES)
def test_twice_the_load_wastes_nothing_and_answers_in_time(engine: dict[str, float]):
    rate, _ = closed_loop(32, 5.0, **engine)

    async def scenario() -> Simulation:
        simulation = Simulation(seed=1, **engine)
        for number in range(4):
            simulation.open_loop(f"caller-{number}", 2 * rate / 4, SIZES, timeout=1.0, end=6.0)
        await simulation.finish()
        return simulation

    simulation = asyncio.run(scenario())
    done, expired = by_outcome(simulation.ended, "done"), by_outcome(simulation.ended, "expired")
    in_time = [item for item in done if item.answered - item.arrived <= 1.0]
    assert simulation.late_seconds <= 0.02 * simulation.busy_seconds
    assert len(in_time) / simulation.now >= 0.9 * rate
    assert seconds(done)[int(0.99 * len(done))] <= 1.0
    assert len(expired) <= 0.1 * (len(done) + len(expired))  # most of what cannot be done is refused at once
    refused = by_outcome(simulation.ended, "refused")
    assert len(refused) >= 0.2 * len(simulation.ended)
    assert max(seconds(refused)) == 0.0


def test_mixed_lengths_one_by_one_are_padded_little_and_starve_nobody():
    rate, simulation = closed_loop(32, 20.0, fixed=0.004, per_token=20e-6, noise=0.1)
    assert simulation.padded <= 1.15 * simulation.computed
    ideal = 1 / (0.004 / 32 + 20e-6 * statistics.mean(SIZES))  # every batch full and without padding
    assert rate >= 0.8 * ideal
    waits = seconds(by_outcome(simulation.ended, "done"))
    assert waits[-1] <= 4 * statistics.median(waits)
    answered = {item.caller: 0 for item in simulation.ended}
    for item in simulation.ended:
        answered[item.caller] += 1
    assert len(answered) == 32
    assert min(answered.values()) >= 0.7 * max(answered.values())


def test_a_flood_does_not_starve_a_caller_with_little():
    async def scenario() -> Simulation:
        simulation = Simulation()
        simulation.open_loop("flood", 900.0, SIZES, timeout=3.0, end=8.0)
        simulation.open_loop("little", 40.0, SIZES, timeout=3.0, end=8.0, begin=1.0)
        await simulation.finish()
        return simulation

    ended = asyncio.run(scenario()).ended
    little = [item for item in ended if item.caller == "little"]
    assert len(by_outcome(little, "done")) >= 0.98 * len(little)
    flood = [item for item in ended if item.caller == "flood"]
    assert len(by_outcome(flood, "refused")) > 0.4 * len(flood)
    median = {caller: statistics.median(seconds(by_outcome(items, "done")))
              for caller, items in (("little", little), ("flood", flood))}  # fmt: skip
    assert median["little"] < median["flood"]


def test_two_floods_share_the_engine():
    async def scenario() -> Simulation:
        simulation = Simulation()
        simulation.open_loop("many", 900.0, SIZES, timeout=2.0, end=8.0)
        simulation.open_loop("fewer", 300.0, SIZES, timeout=2.0, end=8.0)
        await simulation.finish()
        return simulation

    done = by_outcome(asyncio.run(scenario()).ended, "done")
    tokens = {caller: sum(item.size for item in done if item.caller == caller) for caller in ("many", "fewer")}
    assert tokens["many"] <= 1.3 * tokens["fewer"]


@pytest.mark.parametrize(("rate", "timeout"), [(300.0, 0.5), (250.0, 0.2)])
def test_a_slow_model_makes_a_fast_one_refuse_nothing(rate: float, timeout: float):
    """Once the slow model's backlog is gone, its pace says nothing of what waits for the fast one."""

    async def scenario() -> Simulation:
        simulation = Simulation(slower={"slow": 50.0})
        simulation.open_loop("one", 20.0, SIZES, timeout=30.0, end=1.0, group="slow")
        simulation.open_loop("other", rate, SIZES, timeout, begin=8.0, end=9.0, group="fast")
        await simulation.finish()
        return simulation

    ended = asyncio.run(scenario()).ended
    fast = [item for item in ended if item.group == "fast"]
    assert max(item.answered for item in ended if item.group == "slow") < 8.0
    assert len(by_outcome(fast, "done")) == len(fast)


def test_the_simulation_is_the_same_every_time():
    assert closed_loop(8, 1.0, fixed=0.004)[1].ended == closed_loop(8, 1.0, fixed=0.004)[1].ended
