"""How far each estimator raises the held-out gold reward, and at what KL: `python -m benchmarks.estimators --json F`.

The demo's world, SFT policy and reward model are made once for each seed; every estimator then starts from the same
ones. The KL controller steers all of them to one KL, so that gains can be compared. One way draws its rollouts while it
learns, as the first one otherwise: what that costs in gold is the difference of the two, seed by seed.
"""

from __future__ import annotations

import math
import statistics
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from rich.table import Table

from benchmarks.seeds import keep_rows, kept_rows, mean_and_margin, told
from palate.client import PolicyClient, RewardClient
from palate.local_server import LocalServer
from palate.terminal import stdout_console
from trainer.command import share_processors
from trainer.config import OverlapGroup, PPOConfig, RecordGroup, SamplingGroup, ServicesGroup
from trainer.demo import phases
from trainer.demo.config import DemoConfig
from trainer.demo.measure import Sampled, asked
from trainer.demo.results import PolicyMeasure
from trainer.demo.run import SAMPLING, Clock, clear, measured, serve_policies, serve_reward, train_until_ppo
from trainer.evaluation import mean_sequence_kl
from trainer.ppo.hyperparameters import PPOGroup
from trainer.ppo.run import run_ppo
from trainer.simulation.prompts import held_out_prompts

GROUP_SIZE = 4
GOAL = 1.0
"""Gold above the SFT policy, in SD of its completions."""

STEPS = 16
KL_TARGET = 4.0
_KL_GAIN = 2.0
_HORIZONS = 20
"""Of the KL controller, in a run."""

_PREPARED = "prepared.json"

_ALONE = {"critic_init": "policy"}
"""The default again: without a critic there is nothing to start."""

ESTIMATORS: Mapping[str, Mapping[str, Any]] = {
    "gae": {},
    "grpo": {**_ALONE, "estimator": "grpo", "kl_place": "loss_k2"},
    "dr_grpo": {
        **_ALONE,
        "estimator": "grpo",
        "grpo_by_std": False,
        "kl_place": "loss_k2",
        "loss_aggregation": "constant",
    },
    "rloo": {**_ALONE, "estimator": "rloo"},
    "reinforce_pp": {**_ALONE, "estimator": "reinforce_pp"},
    "gae_overlapped": {"tis_cap": 2.0},
}
"""What each one changes in the demo's hyperparameters."""

AHEAD: Mapping[str, OverlapGroup] = {"gae_overlapped": OverlapGroup(max_staleness=1)}
"""Who draws rollouts of the next step while it learns."""

OVERLAP_MARGIN = 0.3
"""Gold, in SD, that overlap may cost or gain at most, with the whole 90 % interval over seeds."""


@dataclass(frozen=True, slots=True)
class Row:
    """One run.

    Attributes:
        seed: Of everything.
        estimator: A name in `ESTIMATORS`.
        gain: Mean gold on held-out prompts above the SFT policy's, in SD of its completions.
        kl: Mean sequence KL to the SFT policy on them, in nats.
        kl_coef: Where the controller ended.
        before: The SFT policy.
        after: The trained one.
        seconds: Of training.
    """

    seed: int
    estimator: str
    gain: float
    kl: float
    kl_coef: float
    before: PolicyMeasure
    after: PolicyMeasure
    seconds: float


@dataclass(frozen=True, slots=True)
class _World:
    """A seed's servers and clients, and what its SFT policy says to the held-out prompts."""

    demo: DemoConfig
    services: ServicesGroup
    policy: PolicyClient
    ref: PolicyClient
    reward: RewardClient
    before: Sampled


def main() -> None:
    """Runs every estimator on every seed; exits with 1 where one gains too little, or overlap changes too much."""
    arguments = _arguments()
    share_processors()
    rows = _measured(arguments)
    differences = overlap_differences(rows)
    console = stdout_console()
    console.print(_table(rows, arguments.kl_target))
    if differences:
        console.print(f"gold with overlap less without, SD, over {len(differences)} seeds: {told(differences)}")
    raise SystemExit(0 if holds(rows) else 1)


def holds(rows: Sequence[Row]) -> bool:
    """Whether every estimator gains enough, in the mean over seeds, and overlap changes little."""
    return all(gain >= GOAL for gain in mean_gains(rows).values()) and _changes_little(overlap_differences(rows))


def _changes_little(differences: Sequence[float]) -> bool:
    """Whether the interval lies inside the margin; nothing to ask where nothing overlapped."""
    if not differences:
        return True
    mean, margin = mean_and_margin(differences)
    return abs(mean) + margin <= OVERLAP_MARGIN


def overlap_differences(rows: Sequence[Row]) -> list[float]:
    """Gain with overlap less that without, in SD, for every seed that has both."""
    plain, ahead = ({row.seed: row.gain for row in rows if row.estimator == name} for name in ("gae", "gae_overlapped"))
    return [ahead[seed] - plain[seed] for seed in sorted(plain.keys() & ahead.keys())]


def _measured(arguments: Namespace) -> list[Row]:
    """All rows, the file's among them; each is in the file as soon as it is found."""
    changes = {"changes": ESTIMATORS, "ahead": {name: group.model_dump() for name, group in AHEAD.items()}}
    settings = {"goal": GOAL, "kl_target": arguments.kl_target, "steps": arguments.steps, **changes}
    rows = [_read(row) for row in kept_rows(arguments.json, settings)]
    for seed in arguments.seeds:
        missing = [name for name in arguments.only if (seed, name) not in {(row.seed, row.estimator) for row in rows}]
        for row in _found(DemoConfig(out=arguments.work / str(seed), seed=seed, progress=False), missing, arguments):
            rows.append(row)
            keep_rows(arguments.json, settings, rows)
    return rows


def _found(demo: DemoConfig, names: Sequence[str], arguments: Namespace) -> Iterator[Row]:
    """A row for each name, in one world; without names none is made."""
    if not names:
        return
    with ExitStack() as stack:
        world = _world(demo, stack)
        for name in names:
            yield _row(world, name, arguments.steps, arguments.kl_target)


def _read(row: Mapping[str, Any]) -> Row:
    measures = {name: PolicyMeasure(**row[name]) for name in ("before", "after")}
    return Row(**{**row, **measures})


def mean_gains(rows: Sequence[Row]) -> dict[str, float]:
    """Estimator → gain, the mean over seeds."""
    names = dict.fromkeys(row.estimator for row in rows)
    return {name: statistics.fmean(row.gain for row in rows if row.estimator == name) for name in names}


def at_kl(row: Row, kl: float) -> float:
    """What the run would have gained at another KL, as long as gold rises with √KL.

    Source: the linear term of d = √KL in Gao, Schulman and Hilton (2022); only for a KL near that of the run.
    """
    return row.gain * math.sqrt(kl / row.kl)


def _arguments() -> Namespace:
    parser = ArgumentParser(prog="python -m benchmarks.estimators", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds to run")
    parser.add_argument("--json", type=Path, required=True, help="file for the figures; what is there stays")
    names = list(ESTIMATORS)
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="some estimators")
    parser.add_argument("--steps", type=int, default=STEPS, help="batches that each learns from")
    parser.add_argument("--kl-target", type=float, default=KL_TARGET, help="KL that all are steered to, in nats")
    parser.add_argument("--work", type=Path, default=Path("runs/estimators"), help="folder that stays, with the models")
    return parser.parse_args()


def _world(demo: DemoConfig, stack: ExitStack) -> _World:
    """Trains the models of a seed, or finds them in its folder."""
    paths = phases.Paths(demo.out)
    policy, ref = prepare(demo, paths, stack)
    reward = stack.enter_context(serve_reward(paths))
    services = ServicesGroup(policy=[policy.target], reward=reward.target, ref=ref.target)
    policy_client, ref_client = (stack.enter_context(PolicyClient(server.target)) for server in (policy, ref))
    prompts = held_out_prompts(demo.sizes.held_out, Random(f"held out {demo.seed}"))
    before = asked(ref_client, prompts, SAMPLING, demo.seed)
    reward_client = stack.enter_context(RewardClient(reward.target))
    return _World(demo, services, policy_client, ref_client, reward_client, before)


def is_prepared(demo: DemoConfig) -> bool:
    """Whether the models of a seed are in its folder, made with the same settings."""
    mark = demo.out / _PREPARED
    return mark.exists() and mark.read_text() == demo.model_dump_json(indent=2)


def prepare(demo: DemoConfig, paths: phases.Paths, stack: ExitStack) -> tuple[LocalServer, LocalServer]:
    """The policy service and the reference policy of a seed, whose models are made where they are not there."""
    if is_prepared(demo):
        return serve_policies(paths, stack)
    clear(demo.out)
    servers = train_until_ppo(demo, paths, Clock(), stack)
    (demo.out / _PREPARED).write_text(demo.model_dump_json(indent=2))
    return servers


def _row(world: _World, name: str, steps: int, kl_target: float) -> Row:
    clock = Clock()
    with clock.phase(f"seed {world.demo.seed}: {name}"):
        result = run_ppo(estimator_config(world.demo, world.services, name, steps, kl_target))
    said = asked(world.policy, world.before.prompts, SAMPLING, world.demo.seed)
    before, after = (measured(world.reward, sampled) for sampled in (world.before, said))
    return Row(
        seed=world.demo.seed,
        estimator=name,
        gain=(after.gold - before.gold) / before.gold_std,
        kl=mean_sequence_kl(said.completions, world.ref, phases.TEMPERATURE),
        kl_coef=result.metrics["objective/kl_coef"],
        before=before,
        after=after,
        seconds=sum(clock.seconds.values()),
    )


def estimator_config(demo: DemoConfig, services: ServicesGroup, name: str, steps: int, kl_target: float) -> PPOConfig:
    """The demo's phase 3 with another estimator and a KL to steer to; every run gets a folder of its own."""
    base = phases.ppo_config(demo, phases.Paths(demo.out), services)
    horizon = base.ppo.batch_size * steps / _HORIZONS
    steered = {**dict(base.ppo), "kl_target": kl_target, "kl_horizon": horizon, "kl_gain": _KL_GAIN}
    size = GROUP_SIZE if ESTIMATORS[name].get("estimator") in ("grpo", "rloo") else 1
    changed = {
        "out": demo.out / f"{name}-{len(list(demo.out.glob(f'{name}-*')))}",
        "total_steps": steps,
        "record": RecordGroup(**{**dict(base.record), "checkpoint_every": steps}),
        "sampling": SamplingGroup(**{**dict(base.sampling), "completions_per_prompt": size}),
        "ppo": PPOGroup(**{**steered, **ESTIMATORS[name]}),
        "overlap": AHEAD.get(name, base.overlap),
    }
    return PPOConfig(**{**dict(base), **changed})


def _table(rows: Sequence[Row], kl: float) -> Table:
    """Gain at KL for every seed, and their means with 90 % intervals over seeds."""
    seeds = sorted({row.seed for row in rows})
    columns = [f"seed {seed}" for seed in seeds]
    table = Table(
        "estimator",
        *columns,
        "gold gain, SD",
        "KL, nats",
        f"gain at {kl:g} nats",
        title="gold gain in SD (at KL in nats)",
    )
    for name in mean_gains(rows):
        own = {row.seed: row for row in rows if row.estimator == name}
        cells = [f"{own[seed].gain:.2f} ({own[seed].kl:.1f})" if seed in own else "" for seed in seeds]
        values = ([row.gain, row.kl, at_kl(row, kl)] for row in own.values())
        table.add_row(name, *cells, *map(told, zip(*values, strict=True)))
    return table


if __name__ == "__main__":
    main()
