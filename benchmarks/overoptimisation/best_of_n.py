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

from benchmarks.overoptimisation.world import (
    JUDGES,
    OBJECTIVES,
    Sizes,
    make_judges,
    serve_judges,
)
from palate.client import PolicyClient, RewardClient, Scored
from palate.local_server import local_server
from trainer.demo import phases
from trainer.demo.config import DemoConfig
from trainer.demo.run import SAMPLING
from trainer.evaluation import CHUNK
from trainer.overoptimisation.curves import Choice, curves, sizes_up_to, units_of
from trainer.overoptimisation.gao import fit_with_intervals
from trainer.overoptimisation.objectives import objectives
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


def best_of_n_rows(demo: DemoConfig, sizes: Sizes, variance_weight: float, out: Path) -> list[BestOfN]:
    """A row for each objective; what was drawn and trained stays in `out`."""
    run = make_judges(demo, sizes, out / "judges")
    drawn = _drawn(demo, sizes, out)
    gold = np.array([[gold_reward(prompt, text) for text in texts] for prompt, texts in drawn])  # (P, N)
    with ExitStack() as stack:
        server = serve_judges(run, out / "judges.log", stack)
        reward = stack.enter_context(RewardClient(server.target, model=JUDGES))
        members = np.array([_members(reward, prompt, texts) for prompt, texts in drawn])  # (P, N, M)
    proxies = [objectives(one, variance_weight).values() for one in members]
    return [
        _row(demo.seed, name, list(map(Choice, chosen_by, gold, members.std(-1))))
        for name, chosen_by in zip(OBJECTIVES, zip(*proxies, strict=True), strict=True)
    ]


def _row(seed: int, objective: str, choices: Sequence[Choice]) -> BestOfN:
    sizes = sizes_up_to(len(choices[0].gold))
    found = curves(choices, sizes)
    assert found.spread is not None
    prompts = [[row] for row in range(len(choices))]
    fitted = fit_with_intervals("best_of_n", units_of(found.d, found.gold, prompts), seed)
    mean = [tuple(each.mean(axis=0).tolist()) for each in (found.gold, found.proxy, found.spread)]
    return BestOfN(seed, objective, sizes, tuple(found.d.tolist()), mean[0], mean[1], asdict(fitted), mean[2])


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
    """The first `count` completions that say something: an empty one has no score, so nothing could choose it.

    Raises:
        ValueError: More than one in sixteen is empty.
    """
    asked = count + count // 16 + 1
    drawn = policy.generate(
        [prompt], sampling=SAMPLING, completions_per_prompt=asked, seeds=[seed], timeout=_SAMPLING_SECONDS
    )
    said = [one.text for one in sorted(drawn, key=lambda one: one.completion_index) if one.text.strip()]
    if len(said) < count:
        raise ValueError(f"of {asked} completions {asked - len(said)} are empty: this policy has not learnt to answer")
    return said[:count]


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
