"""Best of n: gold of what each objective likes best among n samples of the policy, over the KL that this costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from benchmarks.overoptimisation.world import ENSEMBLE, JUDGES, SINGLE, Sizes, by_objective, make_judges, serve_judges
from palate.client import PolicyClient, RewardClient, Scored
from palate.local_server import local_server
from trainer.demo import phases
from trainer.demo.config import DemoConfig
from trainer.demo.run import SAMPLING
from trainer.evaluation import CHUNK
from trainer.overoptimisation.best_of_n import best_of_n_curve, kl_of_best_of_n
from trainer.overoptimisation.gao import Unit, fit_with_intervals
from trainer.simulation.gold import gold_reward
from trainer.simulation.prompts import held_out_prompts

_SAMPLING_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class BestOfN:
    """One objective on one seed.

    Attributes:
        seed: Of everything.
        objective: By what is chosen.
        sizes: n.
        d: √KL of each.
        gold: Gain in gold over n = 1, mean over prompts (and, for a single model, over the members alone).
        proxy: The same in what is chosen by.
        fit: Gao's form on `gold`, its intervals over prompts.
        disagreement: Mean standard deviation over members of what is chosen, for each n.
    """

    seed: int
    objective: str
    sizes: tuple[int, ...]
    d: tuple[float, ...]
    gold: tuple[float, ...]
    proxy: tuple[float, ...]
    fit: Mapping[str, Any]
    disagreement: tuple[float, ...]


def best_of_n_rows(demo: DemoConfig, sizes: Sizes, out: Path) -> list[BestOfN]:
    """A row for each objective; what was drawn and trained stays in `out`."""
    run = make_judges(demo, sizes, out / "judges")
    drawn = _drawn(demo, sizes, out)
    gold = np.array([[gold_reward(prompt, text) for text in texts] for prompt, texts in drawn])  # (P, N)
    with ExitStack() as stack:
        server = serve_judges(run, out / "judges.log", stack)
        reward = stack.enter_context(RewardClient(server.target, model=JUDGES))
        members = np.array([_members(reward, prompt, texts) for prompt, texts in drawn])  # (P, N, M)
    named = [by_objective(scores) for scores in members.tolist()]
    proxies = {name: [np.array([one[name] for one in named])] for name in ENSEMBLE}
    proxies = {SINGLE: list(np.moveaxis(members, -1, 0)), **proxies}
    return [_row(demo.seed, name, each, gold, members.std(-1)) for name, each in proxies.items()]


def _row(seed: int, objective: str, proxies: Sequence[np.ndarray], gold: np.ndarray, spread: np.ndarray) -> BestOfN:
    sizes = tuple(2**power for power in range(gold.shape[1].bit_length()) if 2**power <= gold.shape[1])
    d = np.array([kl_of_best_of_n(n) for n in sizes]) ** 0.5
    curves = {
        name: np.mean([best_of_n_curve(proxy, proxy if of is None else of, sizes) for proxy in proxies], axis=0)
        for name, of in (("gold", gold), ("proxy", None), ("spread", spread))
    }  # (P, K) each
    gains = {name: curve - curve[:, :1] for name, curve in curves.items()}
    found = fit_with_intervals("best_of_n", [Unit(d, gain) for gain in gains["gold"]], seed)
    mean = {name: tuple(gain.mean(0).tolist()) for name, gain in gains.items()}
    disagreement = tuple(curves["spread"].mean(0).tolist())
    return BestOfN(seed, objective, sizes, tuple(d.tolist()), mean["gold"], mean["proxy"], asdict(found), disagreement)


def _drawn(demo: DemoConfig, sizes: Sizes, out: Path) -> list[tuple[str, list[str]]]:
    """Prompts, and what the SFT policy says to each; drawn once."""
    file = out / "drawn.json"
    if not file.exists():
        paths = phases.Paths(demo.out)
        prompts = held_out_prompts(sizes.prompts, Random(f"best of n {demo.seed}"))
        command = ("-m", "services.policy", "--model", str(paths.sft), "--frozen", "--threads", "1")
        with (
            local_server((*command, "--max-batch-rows", "256"), log=out / "policy.log") as server,
            PolicyClient(server.target) as policy,
        ):
            rows = [
                (prompt.text, _said(policy, prompt.text, sizes.samples, place)) for place, prompt in enumerate(prompts)
            ]
        file.write_text(json.dumps(rows), encoding="utf-8")
    return [(prompt, texts) for prompt, texts in json.loads(file.read_text(encoding="utf-8"))]


def _said(policy: PolicyClient, prompt: str, count: int, seed: int) -> list[str]:
    drawn = policy.generate(
        [prompt], sampling=SAMPLING, completions_per_prompt=count, seeds=[seed], timeout=_SAMPLING_SECONDS
    )
    return [one.text for one in sorted(drawn, key=lambda one: one.completion_index)]


def _members(reward: RewardClient, prompt: str, texts: Sequence[str]) -> list[tuple[float, ...]]:
    """(N, M) what each member says, through the service.

    Raises:
        ItemsFailed: A completion has no score.
    """
    found: list[tuple[float, ...]] = []
    for begin in range(0, len(texts), CHUNK):
        part = texts[begin : begin + CHUNK]
        reply = reward.score([prompt] * len(part), part, members=True)
        reply.scores()  # raises where one failed
        found += [one.members for one in reply.results if isinstance(one, Scored)]
    return found
