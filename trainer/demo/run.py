"""The demo from beginning to end: the order of phases, the servers they need, and what is measured."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console

from palate.client import PolicyClient, RewardClient, SamplingParams
from palate.local_server import LocalServer, local_server
from palate.rollout_files import read_rollouts
from trainer.config import ServicesGroup
from trainer.demo import phases
from trainer.demo.config import DemoConfig
from trainer.demo.measure import (
    Sampled,
    accuracies,
    asked,
    bag_of_words_accuracy,
    business_ideas,
    gold_of_best_text,
    gold_of_random_text,
    label_error,
)
from trainer.demo.page import History, write_demo_page
from trainer.demo.results import PolicyMeasure, Results, Sample, checks, write_results
from trainer.demo.says import Says, ask_policy, compare, log_levels
from trainer.evaluation import mean_sequence_kl, scores_of
from trainer.simulation.gold import gold_reward
from trainer.simulation.prompts import held_out_prompts

_CONSOLE = Console(stderr=True, highlight=False)
SAMPLING = SamplingParams(temperature=phases.TEMPERATURE, max_new_tokens=phases.MAX_NEW_TOKENS)
_MARK = ".palate-demo"
_CURVES = ("objective/scores", "objective/kl", "rollout/mean_length")
_EDGE = 3
"""Steps at either end whose completions are plotted."""

_READY_SECONDS = 600.0
"""A server may take so long to start, on a machine with other work."""

_SHOWN = 6
_RESCORED = 256
"""Recorded scores that are asked for again."""


@dataclass(frozen=True, slots=True)
class _Services:
    """The three servers of phase 3."""

    policy: LocalServer
    ref: LocalServer
    reward: LocalServer


class Clock:
    """Times phases, and says which one runs."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What happens inside is a phase."""
        _CONSOLE.print(f"[bold]{name}[/]")
        begin = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begin


def run_demo(config: DemoConfig) -> Results:
    """Runs everything and writes report.html and results.json into `config.out`.

    Servers are processes of their own and end with this function, however it ends.
    """
    paths, clock = phases.Paths(config.out), Clock()
    clear(config.out)
    with ExitStack() as servers:
        policy, ref = train_until_ppo(config, paths, clock, servers)
        with clock.phase("start the reward service"):
            reward = servers.enter_context(serve_reward(paths))
        services = _Services(policy, ref, reward)
        with clock.phase("measure what came before PPO"):
            before = _measure_before(config, paths, services)
        with clock.phase("phase 3: PPO"):
            phases.ppo(config, paths, ServicesGroup(policy=[policy.target], reward=reward.target, ref=ref.target))
        with clock.phase("measure what PPO made"):
            results = _results(config, paths, services, before, clock)
    write_results(config.out / "results.json", asdict(results), checks(results))
    write_demo_page(config.out / "report.html", results, history(paths))
    return results


def train_until_ppo(
    config: DemoConfig, paths: phases.Paths, clock: Clock, servers: ExitStack
) -> tuple[LocalServer, LocalServer]:
    """Phases 1 and 2 and what comes before them; returns the policy service and the reference, both of the SFT policy.

    They run until `servers` closes.
    """
    policy, ref = train_and_collect(config, paths, clock, servers)
    with clock.phase("phase 2: the reward model"):
        phases.train_reward(config, paths)
    return policy, ref


def train_and_collect(
    config: DemoConfig, paths: phases.Paths, clock: Clock, servers: ExitStack
) -> tuple[LocalServer, LocalServer]:
    """The same without the reward model: until there are comparisons."""
    with clock.phase("make the world's texts"):
        phases.make_data(config, paths)
    with clock.phase("train a base model"):
        phases.pretrain(config, paths)
    with clock.phase("phase 1: supervised fine-tuning"):
        phases.fine_tune(config, paths)
    with clock.phase("start policy service and reference policy"):
        policy, ref = serve_policies(paths, servers)
    with clock.phase("collect comparisons through both, which are the same so far"):
        phases.collect(config, paths, f"ipv4:{policy.target},{ref.target}")
    return policy, ref


def serve_policies(paths: phases.Paths, servers: ExitStack) -> tuple[LocalServer, LocalServer]:
    """The policy service and the reference policy, both with the SFT policy."""
    policy = servers.enter_context(_serve_policy(paths, "policy", paths.sft))
    return policy, servers.enter_context(_serve_policy(paths, "ref-policy", paths.sft, "--frozen"))


def clear(out: Path) -> None:
    """Makes room for a new run where an earlier demo was; anything else is left alone.

    Raises:
        FileExistsError: The folder holds something that is no demo.
    """
    if not out.exists() or not any(out.iterdir()):
        out.mkdir(parents=True, exist_ok=True)
    elif not (out / _MARK).exists():
        raise FileExistsError(f"{out} holds something that is no demo; give another --out")
    else:
        shutil.rmtree(out)
        out.mkdir()
    (out / _MARK).touch()


def _serve_policy(paths: phases.Paths, name: str, folder: Path, *flags: str) -> AbstractContextManager[LocalServer]:
    """One thread, because processes share the cores; wide batches, because steps of so small a model cost the same."""
    command = ("-m", "services.policy", "--model", str(folder), "--threads", "1", "--max-batch-rows", "256", *flags)
    return local_server(command, log=paths.log(name), ready_seconds=_READY_SECONDS)


def serve_reward(paths: phases.Paths) -> AbstractContextManager[LocalServer]:
    """The reward service, one thread as the others."""
    command = ("-m", "services.reward", "--model", str(paths.served_reward), "--threads", "1")
    log = paths.log("-".join(filter(None, ("reward", paths.labels))))
    return local_server(command, log=log, ready_seconds=_READY_SECONDS)


@dataclass(frozen=True, slots=True)
class _Before:
    """What base and SFT say to the held-out prompts, SFT twice, for pairs; and SFT to the policy audit."""

    base: Sampled
    sft: Sampled
    sft_again: Sampled
    says: Says


def _measure_before(config: DemoConfig, paths: phases.Paths, services: _Services) -> _Before:
    prompts = held_out_prompts(config.sizes.held_out, Random(f"held out {config.seed}"))
    with _serve_policy(paths, "base", paths.base, "--frozen") as server, PolicyClient(server.target) as client:
        base = asked(client, prompts, SAMPLING, config.seed)
    with PolicyClient(services.policy.target) as client:
        sft, again = (asked(client, prompts, SAMPLING, config.seed + offset) for offset in (0, 1))
        return _Before(base, sft, again, ask_policy(client, services.policy.target, SAMPLING, config))


def _results(config: DemoConfig, paths: phases.Paths, services: _Services, before: _Before, clock: Clock) -> Results:
    prompts = before.sft.prompts
    with (
        PolicyClient(services.policy.target) as policy,
        PolicyClient(services.ref.target) as ref,
        RewardClient(services.reward.target) as reward,
    ):
        after = asked(policy, prompts, SAMPLING, config.seed)
        audit = compare(before.says, ask_policy(policy, services.policy.target, SAMPLING, config))
        log_levels(paths.own / "behaviours", audit, config.sizes.ppo_steps)
        base, sft, ppo = (measured(reward, said) for said in (before.base, before.sft, after))
        return Results(
            seed=config.seed,
            vocab_size=policy.policy_info().vocab_size,
            seconds=clock.seconds,
            base=base,
            sft=sft,
            ppo=ppo,
            kl=mean_sequence_kl(after.completions, ref, phases.TEMPERATURE),
            accuracies=accuracies(reward, before.sft, before.sft_again),
            bag_of_words=bag_of_words_accuracy(paths.comparisons, before.sft, before.sft_again),
            label_error=label_error(paths.comparisons),
            random_gold=gold_of_random_text(prompts, config.seed),
            best_gold=gold_of_best_text(prompts),
            rescored_delta=_rescored_delta(reward, paths),
            ideas=business_ideas(reward),
            samples=_shown(before, after),
            audit=audit,
        )


def measured(reward: RewardClient, said: Sampled) -> PolicyMeasure:
    """What a policy's completions are worth."""
    gold = said.gold
    scores = scores_of(reward, [p.text for p in said.prompts], [c.text for c in said.completions])
    return PolicyMeasure(
        gold=statistics.fmean(gold),
        gold_std=statistics.pstdev(gold),
        score=statistics.fmean(scores),
        mean_length=said.mean_length,
        ended_share=said.ended_share,
        unparsable_share=said.unparsable_share,
    )


def _rescored_delta(reward: RewardClient, paths: phases.Paths) -> float:
    """Asks for scores that were recorded in training once more; the largest difference in SD of the recorded ones."""
    rows = _rollouts(paths)[-_RESCORED:]
    again = scores_of(reward, [row["prompt"] for row in rows], [row["completion"] for row in rows])
    spread = statistics.pstdev(row["score"] for row in rows)
    largest: float = max(abs(row["score"] - score) for row, score in zip(rows, again, strict=True))
    return float(largest / spread)


def _rollouts(paths: phases.Paths) -> list[dict[str, Any]]:
    return list(read_rollouts(paths.ppo, ("step", "prompt", "completion", "score")))


def _shown(before: _Before, after: Sampled) -> list[Sample]:
    """The first prompts of as many different families as there are."""
    rows = list(
        zip(before.sft.prompts, before.base.completions, before.sft.completions, after.completions, strict=True)
    )
    by_family = {prompt.family: index for index, (prompt, *_) in reversed(list(enumerate(rows)))}
    chosen = (sorted(by_family.values()) + list(range(len(rows))))[:_SHOWN]
    return [
        Sample(
            prompt=rows[i][0].text,
            family=rows[i][0].family,
            base=rows[i][1].text,
            sft=rows[i][2].text,
            ppo=rows[i][3].text,
            sft_gold=gold_reward(rows[i][0].text, rows[i][2].text),
            ppo_gold=gold_reward(rows[i][0].text, rows[i][3].text),
        )
        for i in chosen
    ]


def history(paths: phases.Paths) -> History:
    """PPO step by step, with the gold that the trainer never saw added from the texts it recorded."""
    metrics = [json.loads(line) for line in (paths.ppo / "metrics.jsonl").read_text().splitlines()]
    rows = _rollouts(paths)
    gold: dict[int, list[float]] = {}
    points: dict[int, list[tuple[float, float]]] = {}
    for row in rows:
        value = gold_reward(row["prompt"], row["completion"])
        gold.setdefault(row["step"], []).append(value)
        points.setdefault(row["step"], []).append((row["score"], value))
    steps = sorted(gold)
    groups = {"first steps": steps[:_EDGE], "last steps": steps[-_EDGE:]}
    return History(
        steps=steps,
        metrics={name: [row[name] for row in metrics] for name in _CURVES},
        gold=[statistics.fmean(gold[step]) for step in steps],
        points={label: _columns([p for step in chosen for p in points[step]]) for label, chosen in groups.items()},
    )


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
