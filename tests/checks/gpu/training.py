"""Training there, alone and as a team of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from benchmarks.ports import free_port
from tests.checks.gpu.seen import Place, Seen
from tests.checks.small_run import World, log_of, make_world, services, trainer
from tests.json_lines import read_rows

_STATISTICS = ("objective/scores", "policy/grad_norm_avg", "val/grad_norm_avg", "loss/value_avg", "objective/kl")
"""Of a first step, the same on every device but for rounding."""

_STEP_TOLERANCE = 1e-2
"""Relative: over a step's minibatches rounding is multiplied by the optimiser, whose first steps have the size of 1."""


def training(place: Place) -> Iterator[Seen]:
    """Runs of the trainer, published to a policy server there; a first step is that of the processor."""
    world, device = make_world(place.scratch / "world"), place.device
    with services(world) as servers:
        targets = [server.target for server in servers]
        ways = {"cpu": ("--device", "cpu"), device: ("--device", device)}
        ways |= {way: ("--device", device, "--distributed", way) for way in ("ddp", "fsdp2")}
        steps = {}
        for name, flags in ways.items():
            code = _train(world, f"on-{name}", targets, flags)
            yield Seen(f"training, {name}", f"exit {code}", "exit 0", code == 0)
            if code:
                print(log_of(world, f"on-{name}"))
            else:
                steps[name] = read_rows(world.out / f"on-{name}" / "metrics.jsonl")[0]
    for name in steps:
        if name != "cpu" and "cpu" in steps:
            far = max(_apart(steps["cpu"][each], steps[name][each]) for each in _STATISTICS if each in steps["cpu"])
            what = f"training, {name}, first step against the processor's"
            yield Seen(what, f"largest relative difference {far:.1e}", f"{_STEP_TOLERANCE:g}", far <= _STEP_TOLERANCE)


def _train(world: World, name: str, targets: Sequence[str], flags: Sequence[str]) -> int:
    with ExitStack() as stack:
        environment = {}
        if "--distributed" in flags:
            environment = _alone_in_a_team()
        process = trainer(world, name, targets, *flags, steps=2, environment=environment)
        stack.callback(process.kill)
        return process.wait(300)


def _alone_in_a_team() -> dict[str, str]:
    """What torchrun would tell a single process."""

    port = free_port()
    return {
        **{"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
    }


def _apart(one: float, other: float) -> float:
    return abs(one - other) / max(abs(one), 1e-6)
