"""The phases of the demo, each from files to files; `run.py` states their order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

from palate.models.export import export
from trainer.collect import CollectConfig, run_collect
from trainer.config import PPOConfig, RecordGroup, SamplingGroup, ScoringGroup, ServicesGroup
from trainer.data.lines import write_rows
from trainer.demo.config import DemoConfig
from trainer.ppo.hyperparameters import PPOGroup
from trainer.ppo.run import run_ppo
from trainer.pretrain import run_pretrain
from trainer.pretrain_config import PretrainConfig
from trainer.reward_model.config import AnnotatorRule, RewardTrainConfig
from trainer.reward_model.result import RewardResult
from trainer.reward_model.train import run_reward
from trainer.sft import run_sft
from trainer.sft_config import SftConfig
from trainer.simulation.prompts import train_prompts
from trainer.simulation.world import base_documents, demonstrations

MAX_NEW_TOKENS = 96
TEMPERATURE = 0.7
SECONDS = 600.0
"""Deadline of a call: everything shares a few cores, perhaps with other work."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Where everything lies; what is made of one set of labels lies in a folder of its own where they have a name."""

    out: Path
    labels: str = ""

    @property
    def own(self) -> Path:
        """What is made of these labels."""
        return self.out / self.labels

    @property
    def documents(self) -> Path:
        """Plain text of the world."""
        return self.out / "data" / "documents.jsonl"

    @property
    def demonstrations(self) -> Path:
        """Answered prompts."""
        return self.out / "data" / "demonstrations.jsonl"

    @property
    def prompts(self) -> Path:
        """Prompts for PPO and for collecting comparisons."""
        return self.out / "data" / "prompts.jsonl"

    @property
    def comparisons(self) -> Path:
        """Labelled pairs."""
        return self.own / "data" / "comparisons.jsonl"

    @property
    def base(self) -> Path:
        """The base model."""
        return self.out / "base" / "model"

    @property
    def sft(self) -> Path:
        """The fine-tuned policy, which is also the reference policy."""
        return self.out / "sft" / "model"

    @property
    def served_reward(self) -> Path:
        """The reward model as it is served."""
        return self.own / "reward" / "served"

    @property
    def ppo(self) -> Path:
        """The run of phase 3."""
        return self.own / "ppo"

    def log(self, name: str) -> Path:
        """The log of a server."""
        return self.out / "logs" / f"{name}.log"


def make_data(config: DemoConfig, paths: Paths) -> None:
    """Everything the phases read, drawn from the simulated world."""
    sizes, rng = config.sizes, Random(config.seed)
    write_rows(paths.documents, [{"text": text} for text in base_documents(sizes.documents, rng)])
    shown = [{"prompt": d.prompt.text, "completion": d.completion} for d in demonstrations(sizes.demonstrations, rng)]
    write_rows(paths.demonstrations, shown)
    prompts = [{"prompt": p.text} for p in train_prompts(sizes.prompts, rng)]
    write_rows(paths.prompts, prompts)


def pretrain(config: DemoConfig, paths: Paths) -> None:
    """A base model that continues the world's text."""
    run_pretrain(pretrain_config(config, paths))


def pretrain_config(config: DemoConfig, paths: Paths) -> PretrainConfig:
    """How the base model learns."""
    return PretrainConfig(
        out=paths.base.parent,
        documents=paths.documents,
        hidden_size=128,
        layers=3,
        batch_size=24,
        learning_rate=3e-3,
        max_steps=config.sizes.base_steps,
        seed=config.seed,
        threads=config.threads,
        progress=config.progress,
    )


def fine_tune(config: DemoConfig, paths: Paths) -> None:
    """Phase 1: a policy that answers, and stops."""
    run_sft(
        SftConfig(
            out=paths.sft.parent,
            model=paths.base,
            data=paths.demonstrations,
            held_out_share=0.01,
            batch_size=16,
            learning_rate=3e-3,
            samples=0,
            seed=config.seed,
            threads=config.threads,
            progress=config.progress,
        )
    )


def collect(config: DemoConfig, paths: Paths, policy: str) -> None:
    """Pairs sampled through the policy service and labelled by a panel whose members err."""
    run_collect(
        CollectConfig(
            policy=policy,
            prompts=paths.prompts,
            out=paths.comparisons,
            labeller="simulated",
            panel=config.panel,
            label_error=config.label_error,
            pairs=config.sizes.comparisons,
            max_new_tokens=MAX_NEW_TOKENS,
            temperature=TEMPERATURE,
            concurrency=4,
            timeout=SECONDS,
            seed=config.seed,
            progress=config.progress,
        )
    )


def train_reward(
    config: DemoConfig, paths: Paths, annotators: AnnotatorRule = "ignore", members: int = 1
) -> RewardResult:
    """Phase 2: a reward model from the comparisons, exported for serving without torch; members are its heads."""
    result = run_reward(
        RewardTrainConfig(
            out=paths.served_reward.parent,
            model=paths.base,
            data=paths.comparisons,
            annotators=annotators,
            members=members,
            shared_backbone=members > 1,
            held_out_share=0.05,
            learning_rate=5e-4,
            weight_decay=0.1,
            samples=0,
            seed=config.seed,
            threads=config.threads,
            progress=config.progress,
        )
    )
    export(result.model_folder, paths.served_reward)
    return result


def ppo(config: DemoConfig, paths: Paths, services: ServicesGroup) -> None:
    """Phase 3: PPO against the served reward model."""
    run_ppo(ppo_config(config, paths, services))


def ppo_config(config: DemoConfig, paths: Paths, services: ServicesGroup) -> PPOConfig:
    """How phase 3 learns."""
    return PPOConfig(
        out=paths.ppo,
        policy=paths.sft,
        prompts=paths.prompts,
        total_steps=config.sizes.ppo_steps,
        seed=config.seed,
        threads=config.threads,
        services=services,
        sampling=SamplingGroup(max_new_tokens=MAX_NEW_TOKENS, temperature=TEMPERATURE),
        scoring=ScoringGroup(standardize=True, missing_eos="subtract"),
        ppo=PPOGroup(
            learning_rate=2e-4,
            kl_coef=0.15,
            num_ppo_epochs=2,
            num_mini_batches=2,
            critic_init=f"reward:{paths.served_reward}",
        ),
        record=RecordGroup(checkpoint_every=config.sizes.ppo_steps, progress=config.progress),
    )
