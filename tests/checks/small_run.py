"""A small strict run over real processes: two policy replicas, a strict reward service on ONNX Runtime, a trainer.

What the slow checks share; models are tiny and random, everything else is as in a real run.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from palate.local_server import LocalServer, local_server
from palate.models.weights import describe_tensors, weights_digest
from palate.rollout_files import read_rollouts
from tests.json_lines import read_rows
from tests.tiny_models import make_tiny_policy, make_tiny_reward

PROMPTS = (
    "What do you think of my business idea?",
    "Once upon a time there was a little girl.",
    "Is this plan honest?",
    "Write one sentence about the costs.",
    "Say how sure you are.",
)
BATCH = 8
_PALATE = (sys.executable, "-c", "from palate.command import main; main()")
STEPS = 6


@dataclass(frozen=True, slots=True)
class World:
    """Folders that the processes of a check work with."""

    out: Path
    policy: Path
    reward: Path
    prompts: Path

    def policy_command(self) -> list[str]:
        """What follows the interpreter to serve the policy."""
        return ["-m", "services.policy", "--model", str(self.policy), "--threads", "1", "--drain-delay-seconds", "0"]

    def reward_command(self) -> list[str]:
        """What follows the interpreter to serve the reward model."""
        flags = ["--strict", "--threads", "1", "--drain-delay-seconds", "0"]
        return ["-m", "services.reward", "--model", str(self.reward), *flags]


def make_world(out: Path) -> World:
    """Writes models and prompts."""
    out.mkdir(parents=True, exist_ok=True)
    prompts = out / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    policy = make_tiny_policy(out / "policy", seed=0, chat=True)
    return World(out, policy, exported(make_tiny_reward(out / "reward", "encoder", seed=0), out / "served"), prompts)


def exported(folder: Path, target: Path) -> Path:
    """The folder, ready for ONNX Runtime."""
    command = [*_PALATE, "export", "--model", str(folder), "--out", str(target)]
    subprocess.run(command, check=True, capture_output=True)
    return target


@contextmanager
def services(world: World, ports: Sequence[int] = (0, 0, 0)) -> Iterator[tuple[LocalServer, ...]]:
    """Two policy replicas and a reward service."""
    commands = (world.policy_command(), world.policy_command(), world.reward_command())
    names = ("policy-a", "policy-b", "reward")
    with ExitStack() as stack:
        yield tuple(
            stack.enter_context(local_server(command, port=port, log=world.out / "logs" / f"{name}.log"))
            for command, port, name in zip(commands, ports, names, strict=True)
        )


def trainer(
    world: World,
    name: str,
    targets: Sequence[str],
    *flags: str,
    steps: int = STEPS,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Starts the trainer of run `name`; it goes on where the run has begun.

    Args:
        world: Where everything lies.
        name: Of the run.
        targets: Addresses of the replicas, and of the reward service at last.
        flags: Further ones.
        steps: How many in all.
        environment: Further variables.
    """
    *policies, reward = targets
    command = [
        *(*_PALATE, "train", "ppo", "--resume", "--no-record.progress", "--threads", "1"),
        *("--out", str(world.out / name), "--policy", str(world.policy), "--prompts", str(world.prompts)),
        *("--services.policy", ",".join(policies), "--services.reward", reward, "--services.shard-prompts", "3"),
        *("--total-steps", str(steps), "--seed", "7", "--record.checkpoint-every", "1"),
        *("--sampling.max-new-tokens", "16", "--sampling.temperature", "0.9", "--ppo.batch-size", str(BATCH)),
        *("--ppo.num-mini-batches", "2", "--ppo.num-ppo-epochs", "2", "--ppo.microbatch-size", "4"),
        *("--ppo.learning-rate", "0.001", "--ppo.kl-target", "0.05", "--ppo.kl-horizon", "60"),
        *("--scoring.standardize", "--scoring.standardize-samples", "8", "--scoring.max-dropped-share", "0.9"),
        *flags,
    ]
    with log_file(world, name).open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(environment or {})})


def log_of(world: World, name: str) -> str:
    """The end of what the trainer of a run said."""
    return log_file(world, name).read_text(errors="replace")[-3000:]


def log_file(world: World, name: str) -> Path:
    """Gets what the trainer of a run says."""
    return world.out / "logs" / f"trainer-{name}.log"


def outcome(run: Path) -> dict[str, str]:
    """Digests of everything that a run has made: two runs are the same to the bit where all of them are equal."""
    checkpoint = max((run / "checkpoints").glob("step-*"))
    trainer_state = torch.load(checkpoint / "trainer.pt", weights_only=True)
    state = json.loads((checkpoint / "state.json").read_text())["state"]
    metrics = [_without_times(row) for row in read_rows(run / "metrics.jsonl")]
    return {
        "weights": _weights(run / "model" / "model.safetensors"),
        "actor and critic": _weights(checkpoint / "model.safetensors"),
        "optimisers": _digest(_plain(trainer_state["optimizer"])),
        "generators": _digest(_plain(trainer_state["generators"])),
        "state": _digest(state),
        "metrics": _digest(metrics),
        "rollouts": _digest([_without_start(row) for row in read_rollouts(run)]),
    }


def _weights(file: Path) -> str:
    return weights_digest(describe_tensors(load_file(file)))


def _plain(value: Any) -> Any:
    """`value` with every tensor as its digest."""
    if isinstance(value, torch.Tensor):
        return describe_tensors({"": value})[0].sha256
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _without_times(row: dict[str, Any]) -> dict[str, Any]:
    """Without what the clock says: when, how long, and which shares of it somebody waited."""
    return {name: value for name, value in row.items() if name != "time" and not name.startswith(("time/", "idle/"))}


def _without_start(row: dict[str, Any]) -> dict[str, Any]:
    """Without what names the run and its start: they differ, the weights must not."""
    spans = [{**span, "version": _weights_of(span["version"])} for span in row["policy_versions"]]
    return {**row, "policy_version": _weights_of(row["policy_version"]), "policy_versions": spans}


def _weights_of(version: dict[str, Any]) -> dict[str, Any]:
    return {"step": version["step"], "digest": version["digest"]}
