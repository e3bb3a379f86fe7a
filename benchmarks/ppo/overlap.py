"""Steps a second with rollouts drawn while the policy learns, over those with both in turns.

Decode steps are given a pace at which rollouts take as long as everything else in a step; waiting for it takes no
processor from the trainer, as if the policy were served elsewhere. The ideal is then 2.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from operator import eq
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.figures import Figure, Finding, Goal
from benchmarks.models import make_encoder, make_policy, texts
from benchmarks.paired import Contest, Run, Way, median_seconds, times_as_fast
from palate.local_server import LocalServer, local_server
from palate.rollout_files import read_rollouts
from trainer.config import OverlapGroup, PPOConfig, RecordGroup, SamplingGroup, ScoringGroup, ServicesGroup
from trainer.metrics import read_metrics
from trainer.ppo.hyperparameters import PPOGroup
from trainer.ppo.run import run_ppo

_AT_LEAST = 1.6
_NEW_TOKENS = 16
_FIRST_PACE = 0.02
"""Seconds of a decode step while it is measured how long everything else takes."""

_WARM_UP = 2
"""Steps that do not count: what runs ahead has not filled yet, and memory is not laid out."""

_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class _World:
    """What all runs share; `steps` and `batch_size` of each run."""

    bench: Bench
    policy: Path
    prompts: Path
    reward: LocalServer
    steps: int
    batch_size: int


def overlap(bench: Bench) -> Iterator[Finding]:
    """Paces the policy server, then runs both ways in turns."""
    with ExitStack() as stack:
        world = _world(bench, stack)
        pace = _matching_pace(world)
        server = stack.enter_context(_policy_server(world, "paced", pace))
        ways = [
            Way(name, partial(_timed_run, world, server, name, staleness))
            for name, staleness in (("in turns", 0), ("overlap", 1))
        ]
        rounds = 1 if bench.quick else _ROUNDS
        runs = bench.turns("rollouts while learning against in turns", Contest(ways, lambda number: number, eq), rounds)
    per_step = {way: median_seconds(runs[way]) / _counted(world) for way in runs}
    yield Figure(
        "ppo/overlap",
        "steps a second: rollouts drawn while the policy learns (max_staleness 1) / drawn and learnt from in turns",
        times_as_fast(runs["overlap"], runs["in turns"]),
        goal=None if bench.quick else Goal("≥", _AT_LEAST),
        beside={
            "ms a decode step": 1000 * pace,
            "rollouts a step": world.batch_size,
            **{f"{way}, s a step": seconds for way, seconds in per_step.items()},
        },
    )


def _world(bench: Bench, stack: ExitStack) -> _World:
    prompts = bench.work / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts(64, 8, 24, 0)))
    encoder = make_encoder(bench.work / "ppo-reward", tiny=True)
    command = ("-m", "services.reward", "--model", str(encoder), "--cache-items=0")
    reward = stack.enter_context(local_server(command, log=bench.logs / "ppo-reward.log"))
    policy = make_policy(bench.work / "ppo-policy", tiny=True)
    return _World(bench, policy, prompts, reward, *((4, 8) if bench.quick else (12, 64)))


def _policy_server(world: _World, name: str, pace: float) -> Any:
    command = ("-m", "services.policy", "--model", str(world.policy), "--threads", "1", "--min-step-seconds", str(pace))
    return local_server(command, log=world.bench.logs / f"ppo-{name}.log")


def _matching_pace(world: _World) -> float:
    """Seconds of a decode step with which rollouts and their scores take as long as the rest of a step."""
    with _policy_server(world, "unpaced", _FIRST_PACE) as server:
        _run(world, server, "pace", 0)
    rows = read_metrics(world.bench.work / "runs" / "pace")[_WARM_UP:]
    drawing = statistics.median(row["time/rollouts"] for row in rows)
    scoring = statistics.median(row["time/scoring"] for row in rows)
    rest = statistics.median(row["time/step"] - row["time/wait"] for row in rows)
    return _FIRST_PACE * max(rest - scoring, drawing / 100) / drawing


def _timed_run(world: _World, server: LocalServer, name: str, staleness: int, number: int) -> Run[int]:
    """A run without its first steps; the answer is how many rollouts were learnt from."""
    out = _run(world, server, f"{name}-{number}", staleness)
    rows = read_metrics(out)
    return Run(rows[-1]["time"] - rows[_WARM_UP - 1]["time"], sum(1 for _ in read_rollouts(out, ("step",))))


def _counted(world: _World) -> int:
    return world.steps - _WARM_UP


def _run(world: _World, server: LocalServer, name: str, staleness: int) -> Path:
    out = world.bench.work / "runs" / name
    run_ppo(
        PPOConfig(
            out=out,
            policy=world.policy,
            prompts=world.prompts,
            total_steps=world.steps,
            threads=1,
            services=ServicesGroup(policy=[server.target], reward=world.reward.target),
            sampling=SamplingGroup(max_new_tokens=_NEW_TOKENS),
            scoring=ScoringGroup(max_dropped_share=0.5),  # a random policy now and then ends at once
            ppo=PPOGroup(batch_size=world.batch_size, tis_cap=2.0),
            overlap=OverlapGroup(max_staleness=staleness),
            record=RecordGroup(checkpoint_every=world.steps, progress=False),
        )
    )
    return out
