"""What is watched: real servers and a real run with tiny models, and the load on them, good or bad on purpose."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file

from benchmarks.ports import free_port
from palate.client import AdminClient, RewardClient
from palate.client.channel import ChannelOptions
from palate.client.errors import FailedPrecondition, PalateError
from palate.local_server import LocalServer, local_server
from palate.models.manifest import Calibration, load_manifest, write_manifest
from tests.checks.prometheus import Prometheus
from tests.checks.small_run import World, exported, make_world
from tests.tiny_models import make_tiny_reward

_WORDS = (
    *("honest", "plan", "costs", "business", "idea", "careful", "answer", "number", "little"),
    *("girl", "park", "dog", "reward", "token", "policy", "sure", "end"),
)
_POISON = "~"
"""A sign whose embedding is no number in the broken model; no built-in text holds it."""

_REFERENCE_TEXTS = 300
_DRIFTED_SHARE = 0.05
_SECONDS = 300.0
_FOR_EVER_SECONDS = 3600
_MANY = 50
ONCE = ChannelOptions(max_attempts=1)

Text = tuple[str, str]
Rewards = list[dict[str, Any]]

_PPO = (
    *(sys.executable, "-c", "from palate.command import main; main()", "train", "ppo", "--no-record.progress"),
    *("--total-steps", "100000", "--seed", "7", "--threads", "1", "--services.attempts", "1000"),
    *("--sampling.max-new-tokens", "24", "--ppo.batch-size", "8", "--ppo.num-mini-batches", "1"),
    *("--scoring.max-dropped-share", "0.9", "--record.checkpoint-every", "100000"),
    *("--watch.gold-function", "tests.checks.plain_letters:plain_letters"),
)


class Load:
    """Calls in threads, each again and again until it is stopped; what a call raises on purpose does not end it."""

    def __init__(self, *calls: Callable[[], object]) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._repeat, args=(call,), daemon=True) for call in calls]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(_SECONDS)

    def _repeat(self, call: Callable[[], object]) -> None:
        while not self._stop.wait(0.05):
            with suppress(PalateError):
                call()


class Watched:
    """Servers, runs and texts; a context.

    Attributes:
        reward: The reward service: "taste" is calibrated, "plain" is not, "broken" knows a sign without a number.
        policies: Two replicas.
    """

    def __init__(self, out: Path, prometheus: Prometheus) -> None:
        self._out = out
        self._prometheus = prometheus
        self._stack = ExitStack()
        self._runs: dict[str, tuple[subprocess.Popen[bytes], str]] = {}

    def __enter__(self) -> Self:
        self._world = make_world(self._out)
        make_broken(self._out)
        make_unequal(self._out)
        self.reward = self._serve("reward", [*_reward_command(self._world), "--model-root", str(self._out)])
        self.policies = [self._serve("policy", self._world.policy_command()) for _ in range(2)]
        self.ref = self._serve("ref-policy", [*self._world.policy_command(), "--frozen"])
        self._client = self._stack.enter_context(RewardClient(self.reward.target, timeout=_SECONDS, options=ONCE))
        self._calibrate()
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._runs):
            self.end_run(name)
        self._stack.close()

    def _serve(self, job: str, command: Sequence[str]) -> LocalServer:
        log = self._out / "logs" / f"{job}.log"
        server = self._stack.enter_context(local_server(command, log=log, ready_seconds=_SECONDS))
        self._prometheus.watch({server.metrics_target: f"palate-{job}"})
        return server

    def _calibrate(self) -> None:
        """Measures the reference samples, and serves the model anew with them, under the name that runs ask for."""
        chance = random.Random(0)
        texts = [_text(chance) for _ in range(_REFERENCE_TEXTS)]
        scores = self._client.score([p for p, _ in texts], [c for _, c in texts]).scores()
        ranked = sorted(zip(scores, texts, strict=True), reverse=True)
        self._best = [text for _, text in ranked[: round(_DRIFTED_SHARE * len(ranked))]]
        manifest = load_manifest(self._world.reward).manifest
        write_manifest(self._world.reward, replace(manifest, calibration=Calibration(fmean(scores), pstdev(scores))))
        with AdminClient(self.reward.target) as admin:
            admin.load_model("taste", str(self._world.reward), set_default=True)
            admin.load_model("broken", str(self._out / "broken"))

    def drain(self) -> LocalServer:
        """A replica that was told to end, and drains for longer than any alert waits; whoever asks ends it."""
        late = ("--frozen", "--drain-delay-seconds", str(_FOR_EVER_SECONDS))
        server = self._serve("ref-policy", [*self._world.policy_command(), *late])
        server.process.terminate()
        return server

    def end(self, server: LocalServer) -> None:
        """Ends a server at once, and forgets its target."""
        self._prometheus.forget(server.metrics_target)
        server.process.kill()
        server.process.wait()

    def start_run(self, name: str, replicas: Sequence[LocalServer], rewards: Rewards, *flags: str) -> None:
        """Starts a run that publishes to these replicas, and is scraped."""
        port, folder = free_port(), self._out / name
        files = ("--out", folder, "--policy", self._world.policy, "--prompts", self._world.prompts)
        services = ("--services.policy", ",".join(each.target for each in replicas), "--services.ref", self.ref.target)
        with (self._out / "logs" / f"run-{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*_PPO, *map(str, files), *services, "--rewards", json.dumps(rewards),
                 "--record.prometheus-port", str(port), *flags],
                stdout=log, stderr=log,
            )  # fmt: skip
        self._runs[name] = process, f"127.0.0.1:{port}"
        self._wait_for_port(port)
        self._prometheus.watch({f"127.0.0.1:{port}": "palate-training"})

    def _wait_for_port(self, port: int) -> None:
        """A run takes as long to begin as ever, but counts as gone so many times sooner: it is scraped when it runs."""
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                self.check_runs()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def rewards(self) -> Rewards:
        """What the model likes, and a second reward beside it."""
        taste = {"name": "taste", "target": self.reward.target, "model": "taste"}
        return [taste, {"name": "letters", "pattern": "[zqxj]", "weight": 1e-6}]

    def end_run(self, name: str) -> None:
        """Ends it, and forgets its target, as Kubernetes does."""
        process, target = self._runs.pop(name)
        self._prometheus.forget(target)
        process.kill()
        process.wait()

    def check_runs(self) -> None:
        """Looks whether all runs go on.

        Raises:
            RuntimeError: One has ended by itself; with the end of its log.
        """
        for name, (process, _) in self._runs.items():
            if process.poll() is not None:
                said = (self._out / "logs" / f"run-{name}.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"run {name} has ended: {said}")

    def expositions(self) -> dict[str, str]:
        """Target → what it shows now, of one process of each kind."""
        runs = [target for _, target in self._runs.values()]
        targets = [self.reward.metrics_target, self.policies[0].metrics_target, *runs]
        found = {}
        for target in targets:
            with urllib.request.urlopen(f"http://{target}/metrics", timeout=30) as reply:
                found[target] = reply.read().decode()
        return found

    def usual(self) -> Callable[[], object]:
        """Texts like the reference samples, by every way."""
        chance = random.Random(1)

        def call() -> None:
            texts = [_text(chance) for _ in range(4)]
            prompts, completions = [p for p, _ in texts], [c for _, c in texts]
            self._client.score(prompts, completions)
            self._client.rank(prompts[0], completions)

        return call

    def drifted(self) -> Callable[[], object]:
        """Texts that the model likes best: what a policy that was optimised against it would write."""
        chance = random.Random(2)

        def call() -> None:
            prompt, completion = chance.choice(self._best)
            self._client.score([prompt] * _MANY, [completion] * _MANY)

        return call

    def poisoned(self) -> Callable[[], object]:
        """Items that the broken model has no number for."""
        chance = random.Random(3)

        def call() -> None:
            texts = [_text(chance) for _ in range(_MANY)]
            self._client.score([p for p, _ in texts], [f"{c} {_POISON}" for _, c in texts], model="broken")

        return call

    def flood(self, seed: int) -> Callable[[], object]:
        """More long texts at once than the queue holds, so that some wait long and some calls are refused."""
        chance = random.Random(seed)

        def call() -> None:
            texts = [_text(chance, words=100) for _ in range(500)]
            self._client.score([p for p, _ in texts], [c for _, c in texts], model="plain")

        return call

    def load_unequal(self) -> None:
        """Loads a model whose scores depend on the batch by more than this server allows; it is refused."""
        with AdminClient(self.reward.target) as admin, suppress(FailedPrecondition):
            admin.load_model("unequal", str(self._out / "unequal"))
            raise RuntimeError("the model was loaded; this check needs one that is not the same alone and in a batch")


def make_broken(out: Path) -> Path:
    """A model that gives no number for one sign; the check at start does not see it."""
    folder = make_tiny_reward(out / "broken-torch", "encoder", seed=0)
    weights = load_file(folder / "model.safetensors")
    (name,) = (key for key in weights if key.endswith("word_embeddings.weight"))
    weights[name][_id_of(folder, _POISON)] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return exported(folder, out / "broken")


def make_unequal(out: Path) -> Path:
    """A decoder on PyTorch: alone and in a batch its scores differ in the last bits."""
    return make_tiny_reward(out / "unequal", "decoder", seed=1)


def _id_of(folder: Path, token: str) -> int:
    from tokenizers import Tokenizer

    return int(Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(token))


def _reward_command(world: World) -> list[str]:
    """A server that allows no difference at all, keeps no scores, and has a small queue."""
    flags = ("--parity-tolerance", "1e-12", "--cache-items", "0", "--no-deduplicate", "--max-queue-items", "8000")
    plain = ["--model", str(world.reward), "--name", "plain", "--threads", "1", "--drain-delay-seconds", "0"]
    return ["-m", "services.reward", *plain, *flags]


def _text(chance: random.Random, words: int = 12) -> Text:
    prompt, completion = (" ".join(chance.choices(_WORDS, k=chance.randint(3, words))) for _ in range(2))
    return prompt, completion
