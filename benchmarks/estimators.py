"""How far each estimator raises the held-out gold reward, and at what KL: `python -m benchmarks.estimators --json F`.

The demo's world, SFT policy and reward model are made once for each seed; every estimator then starts from the same
ones. The KL controller steers all of them to one KL, so that gains can be compared.
"""

from __future__ import annotations

import json
import statistics
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.table import Table

from palate.client import PolicyClient, RewardClient
from palate.local_server import LocalServer
from trainer.command import share_processors
from trainer.config import PPOConfig, SamplingGroup, ServicesGroup
from trainer.demo import phases
from trainer.demo.config import DemoConfig
from trainer.demo.measure import Sampled, asked
from trainer.demo.results import PolicyMeasure
from trainer.demo.run import SAMPLING, Clock, measured, serve_policies, serve_reward, train_until_ppo
from trainer.evaluation import mean_sequence_kl
from trainer.ppo.hyperparameters import PPOGroup
from trainer.ppo.run import run_ppo
from trainer.simulation.prompts import held_out_prompts

GROUP_SIZE = 4
GOAL = 1.0
"""Gold above the SFT policy, in SD of its completions."""

_KL_HORIZON = 128.0
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
}
"""What each one changes in the demo's hyperparameters."""


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
    """Runs every estimator on every seed; exits with 1 where one gains too little."""
    arguments = _arguments()
    share_processors()
    rows: list[Row] = []
    for seed in arguments.seeds:
        with ExitStack() as stack:
            world = _world(DemoConfig(out=arguments.work / str(seed), seed=seed, progress=False), stack)
            for name in arguments.only or ESTIMATORS:
                rows.append(_row(world, name, arguments.kl_target))
                _write(arguments.json, rows, arguments.kl_target)
    Console(width=120).print(_table(rows))
    raise SystemExit(0 if all(row.gain >= GOAL for row in rows) else 1)


def _arguments() -> Namespace:
    parser = ArgumentParser(prog="python -m benchmarks.estimators", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds to run")
    parser.add_argument("--json", type=Path, required=True, help="file for the figures")
    parser.add_argument("--only", nargs="+", choices=list(ESTIMATORS), help="some estimators")
    parser.add_argument("--kl-target", type=float, default=8.0, help="KL that all are steered to, in nats a completion")
    parser.add_argument("--work", type=Path, default=Path("runs/estimators"), help="folder that stays, with the models")
    return parser.parse_args()


def _world(demo: DemoConfig, stack: ExitStack) -> _World:
    """Trains the models of a seed, or finds them in its folder."""
    paths = phases.Paths(demo.out)
    policy, ref = _prepared(demo, paths, stack)
    reward = stack.enter_context(serve_reward(paths))
    services = ServicesGroup(policy=[policy.target], reward=reward.target, ref=ref.target)
    policy_client, ref_client = (stack.enter_context(PolicyClient(server.target)) for server in (policy, ref))
    prompts = held_out_prompts(demo.sizes.held_out, Random(f"held out {demo.seed}"))
    before = asked(ref_client, prompts, SAMPLING, demo.seed)
    reward_client = stack.enter_context(RewardClient(reward.target))
    return _World(demo, services, policy_client, ref_client, reward_client, before)


def _prepared(demo: DemoConfig, paths: phases.Paths, stack: ExitStack) -> tuple[LocalServer, LocalServer]:
    mark, settings = demo.out / _PREPARED, demo.model_dump_json(indent=2)
    if mark.exists() and mark.read_text() == settings:
        return serve_policies(paths, stack)
    demo.out.mkdir(parents=True, exist_ok=True)
    servers = train_until_ppo(demo, paths, Clock(), stack)
    mark.write_text(settings)
    return servers


def _row(world: _World, name: str, kl_target: float) -> Row:
    clock = Clock()
    with clock.phase(f"seed {world.demo.seed}: {name}"):
        result = run_ppo(estimator_config(world.demo, world.services, name, kl_target))
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


def estimator_config(demo: DemoConfig, services: ServicesGroup, name: str, kl_target: float) -> PPOConfig:
    """The demo's phase 3 with another estimator and a KL to steer to; every run gets a folder of its own."""
    base = phases.ppo_config(demo, phases.Paths(demo.out), services)
    steered = {**dict(base.ppo), "kl_target": kl_target, "kl_horizon": _KL_HORIZON}
    size = 1 if name == "gae" else GROUP_SIZE
    changed = {
        "out": demo.out / f"{name}-{len(list(demo.out.glob(f'{name}-*')))}",
        "sampling": SamplingGroup(**{**dict(base.sampling), "completions_per_prompt": size}),
        "ppo": PPOGroup(**{**steered, **ESTIMATORS[name]}),
    }
    return PPOConfig(**{**dict(base), **changed})


def _write(file: Path, rows: Sequence[Row], kl_target: float) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    document = {"goal": GOAL, "kl_target": kl_target, "rows": [asdict(row) for row in rows]}
    file.write_text(json.dumps(document, indent=2) + "\n")


def _table(rows: Sequence[Row]) -> Table:
    """Gain at KL for every seed, and their means."""
    seeds = sorted({row.seed for row in rows})
    columns = [f"seed {seed}" for seed in seeds]
    table = Table("estimator", *columns, "gold gain, SD", "KL, nats", title="gold gain in SD (at KL in nats)")
    for name in dict.fromkeys(row.estimator for row in rows):
        own = {row.seed: row for row in rows if row.estimator == name}
        cells = [f"{own[seed].gain:.2f} ({own[seed].kl:.1f})" for seed in seeds]
        means = (statistics.fmean(getattr(row, what) for row in own.values()) for what in ("gain", "kl"))
        table.add_row(name, *cells, *(f"{mean:.2f}" for mean in means))
    return table


if __name__ == "__main__":
    main()
