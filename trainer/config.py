"""Configuration of a PPO run."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from palate.aggregate import HELP, AggregateName, aggregate_of
from palate.client.types import AggregateLike
from palate.settings import Group
from palate.waiting import WAIT_HELP, WAIT_SECONDS
from trainer.access import AccessFields
from trainer.exposure import LOOPBACK, Exposure
from trainer.phase_settings import PhaseSettings
from trainer.ppo.choices import DeviceName, DistributedWay, MissingEos, StaleRule
from trainer.ppo.hyperparameters import PPOGroup
from trainer.ppo.lora_config import PolicyLoraGroup
from trainer.ppo.reward_config import RewardConfig
from trainer.ppo.watch_config import WatchGroup


class ServicesGroup(AccessFields):
    """Where the services are, and how to get in; what is said of access holds for all of them."""

    policy: list[str] = Field(
        default=["127.0.0.1:50052"],
        min_length=1,
        description="Address of every policy replica; each gets the weights. dns:NAME:PORT stands for one at every "
        "address of the name, which is resolved again as the run goes on.",
    )
    reward: str = Field(
        default="127.0.0.1:50051", description="Address of the reward service, where --rewards names none."
    )
    reward_model: str = Field(default="", description="Name of the reward model; empty = the server's default.")
    ref: str = Field(
        default="local",
        description='The reference policy: "local" = a frozen copy in the trainer (with --lora.rank the policy without '
        "its adapters, which takes no memory), else a frozen service.",
    )
    timeout: float = Field(default=120.0, gt=0, description="Seconds for one call.")
    wait: float = Field(default=WAIT_SECONDS, ge=0, description=WAIT_HELP)
    attempts: int = Field(
        default=4,
        ge=1,
        description="How often a call is tried while a service is away or busy, or fails on a part of it.",
    )
    patience: float = Field(
        default=900.0,
        gt=0,
        description="With --strict instead: seconds for which a call is tried before the run stops.",
    )
    full_every: int = Field(
        default=1,
        ge=1,
        description="Every how many publications all weights are sent; between them only what changed, where that is "
        "less. Pays where replicas serve bfloat16: most weights then round to the same.",
    )
    stage_timeout: float = Field(
        default=300.0, gt=0, description="Seconds in which a replica must have received and checked new weights."
    )
    commit_timeout: float = Field(
        default=15.0, gt=0, description="Seconds in which a replica must serve them, or go back to the former ones."
    )
    shard_prompts: int = Field(
        default=64, ge=1, description="Prompts in one generation call, at most the server's maximum."
    )
    scoring_concurrency: int = Field(default=4, ge=1, description="Scoring calls at a time.")
    reward_token_file: Path | None = Field(
        default=None, description="File with the bearer token for the reward service; default: --services.token-file."
    )
    reward_server_name: str = Field(
        default="", description="Name in the reward service's certificate; default: --services.server-name."
    )


class SamplingGroup(Group):
    """How completions are drawn. Nothing else changes the distribution, so ratios need no correction."""

    max_new_tokens: int = Field(default=48, ge=1, description="Longest completion in tokens.")
    temperature: float = Field(
        default=1.0, gt=0, description="Divides the logits, for sampling and for policy and reference logprobs alike."
    )
    ignore_eos: bool = Field(
        default=False,
        description="Go on behind the end-of-sequence token: every completion has --sampling.max-new-tokens tokens, "
        "and no policy can learn to change that.",
    )
    completions_per_prompt: int = Field(
        default=1, ge=1, description="Completions of each prompt in a batch; grpo and rloo compare them."
    )


class ScoringGroup(Group):
    """From raw scores to what is rewarded, in this order: standardise, clip, missing end of sequence, too short,
    variety.
    """

    standardize: bool = Field(default=False, description="Standardise scores by those of the starting policy.")
    standardize_samples: int = Field(default=256, ge=2, description="Completions of the starting policy to measure.")
    aggregate: AggregateName | None = Field(default=None, description=HELP["aggregate"])
    variance_weight: float | None = Field(default=None, ge=0, description=HELP["variance_weight"])
    clip: float | None = Field(default=None, gt=0, description="Largest absolute score, after standardising.")
    missing_eos: MissingEos = Field(
        default="none",
        description='Completions cut off by the length limit: "replace" the score by -penalty, or "subtract" it.',
    )
    missing_eos_penalty: float = Field(default=1.0, ge=0, description="That penalty, in the unit of the score by then.")
    min_tokens: int = Field(
        default=0, ge=0, description="Completions of fewer tokens lose --scoring.short-penalty; 0 = none is too short."
    )
    short_penalty: float = Field(default=1.0, ge=0, description="That penalty, in the unit of the score by then.")
    variety_bonus: float = Field(
        default=0.0,
        ge=0,
        description="Added times the completion's part in its batch's distinct-2 (0 to 1; a pair of words that occurs "
        "k times in the batch counts 1/k); keeps a policy from saying the same to everything.",
    )
    max_dropped_share: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Share of the last 100 rollouts (or of a batch, where that is more) that may get no completion or "
        "no score and be drawn again; above it a run stops.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.way()
        return self

    def way(self) -> AggregateLike:
        """How members become one score."""
        return aggregate_of(self.aggregate, self.variance_weight)


class OverlapGroup(Group):
    """Rollouts of the next steps are drawn and scored while a step is learnt from."""

    max_staleness: int = Field(
        default=0,
        ge=0,
        description="Steps by which the weights that drew a rollout may be behind those that learn from it; 0 = draw "
        "and learn in turns. Above 0 it needs --ppo.tis-cap, and excludes --strict.",
    )
    stale: StaleRule = Field(
        default="wait",
        description='What keeps that bound: "wait" begins no rollout that could become older; "drop" begins them as '
        "long as there is room, and drops those that have.",
    )
    interrupt: bool = Field(
        default=False,
        description="With each publication, completions that are being drawn go on under the new weights from their "
        "next token; by default they end on those that they began with. The first ones count as the rollout's age.",
    )

    @model_validator(mode="after")
    def _nothing_ignored(self) -> Self:
        if self.stale != "wait" and not self.max_staleness:
            raise ValueError(f"stale {self.stale} has no effect with max_staleness 0: leave it out")
        if self.interrupt and not self.max_staleness:
            raise ValueError("interrupt has no effect with max_staleness 0: nothing is drawn while weights change")
        return self


class InvariantsGroup(Group):
    """How closely trainer and policy service must agree; the defaults are for float32 on both sides."""

    ratio_tolerance: float = Field(
        default=1e-5, gt=0, description="Largest |ratio - 1| in an update's first minibatch."
    )
    behaviour_tolerance: float = Field(
        default=1e-4, gt=0, description="Mean difference of recomputed and recorded logprobs, in nats."
    )


class RecordGroup(Group):
    """What is kept and shown."""

    checkpoint_every: int = Field(
        default=10, ge=1, description="Steps between checkpoints; the last step always has one."
    )
    keep_checkpoints: int = Field(default=2, ge=1, description="Checkpoints that stay.")
    samples_every: int = Field(default=10, ge=1, description="Steps between tables of samples.")
    samples: int = Field(default=4, ge=1, le=100, description="Rows of such a table.")
    rollout_file_steps: int = Field(
        default=10,
        ge=1,
        description="Steps in one file of rollouts/, at most; every checkpoint ends a file too.",
    )
    max_rollout_bytes: int = Field(
        default=1 << 30, ge=1 << 20, description="Size of rollouts/; above it the oldest files are removed."
    )
    prometheus_port: int | None = Field(
        default=None, ge=0, le=65535, description="Port of /metrics; 0 = any, without it there is none."
    )
    prometheus_host: str = Field(
        default=LOOPBACK, description="Address of /metrics; 0.0.0.0 where Prometheus is on another machine."
    )
    last_scrape_seconds: float = Field(
        default=0.0,
        ge=0,
        description="Seconds for which a run that has ended or failed waits at most until /metrics was read once more.",
    )
    progress: bool = Field(default=True, description="Show a progress bar and tables of samples.")

    def exposure(self) -> Exposure:
        """Where /metrics is."""
        return Exposure(self.prometheus_port, self.prometheus_host, self.last_scrape_seconds)


class PPOConfig(PhaseSettings):
    """Trains a policy against a reward service with PPO."""

    phase = "ppo"

    out: Path = Field(
        description="Folder of the run: metrics, report.html, samples, checkpoints, and the trained model in model/."
    )
    policy: Path = Field(description="Folder of the policy to start from; the policy service serves the same one.")
    prompts: Path = Field(description='JSONL file, one {"prompt": "..."} a line.')
    total_steps: int = Field(default=60, ge=1, description="Batches to learn from.")
    seed: int = Field(default=0, ge=0, description="Decides the order of prompts and every draw.")
    run_id: str = Field(
        default="", max_length=100, description="Names the run in policy versions; empty = a random name."
    )
    threads: int = Field(default=2, ge=1, description="CPU threads of the trainer; policy and critic share them.")
    device: DeviceName = Field(
        default="cpu", description='What the networks are on: "cpu", or "cuda" with a GPU for each process.'
    )
    distributed: DistributedWay = Field(
        default="none",
        description='How the processes that torchrun has started learn together: "ddp" copies the networks, "fsdp2" '
        "cuts them in pieces; docs/scaling.md says how to start them.",
    )
    collective_timeout: float = Field(
        default=600.0, gt=0, description="Seconds in which all processes must come to a common operation."
    )
    resume: bool = Field(
        default=False, description="Go on from the newest checkpoint in --out; start where there is none."
    )
    strict: bool = Field(
        default=False,
        description="Promise the same bits however often the run is killed and resumed: what cannot keep that is "
        "refused, calls are tried for --services.patience, and no rollout falls out because a service is away.",
    )
    accept_new_reward: bool = Field(
        default=False, description="Let a resumed run go on with another reward model revision."
    )
    rewards: list[RewardConfig] = Field(
        default=[],
        max_length=16,
        description="Several rewards that are added up, a list in YAML (docs/ppo.md); instead of --services.reward.",
    )
    services: ServicesGroup = ServicesGroup()
    sampling: SamplingGroup = SamplingGroup()
    scoring: ScoringGroup = ScoringGroup()
    ppo: PPOGroup = PPOGroup()
    lora: PolicyLoraGroup = PolicyLoraGroup()
    overlap: OverlapGroup = OverlapGroup()
    invariants: InvariantsGroup = InvariantsGroup()
    record: RecordGroup = RecordGroup()
    watch: WatchGroup = WatchGroup()

    @model_validator(mode="after")
    def _reachable_length(self) -> Self:
        if self.scoring.min_tokens > self.sampling.max_new_tokens:
            raise ValueError(
                f"scoring.min_tokens {self.scoring.min_tokens} is more than sampling.max_new_tokens "
                f"{self.sampling.max_new_tokens}: every completion would be too short"
            )
        return self

    @model_validator(mode="after")
    def _ends_where_an_end_counts(self) -> Self:
        if self.sampling.ignore_eos and self.scoring.missing_eos != "none":
            raise ValueError(
                "sampling.ignore_eos and scoring.missing_eos exclude each other: no completion would end by itself, so "
                "all would be penalised alike"
            )
        return self

    @model_validator(mode="after")
    def _whole_groups(self) -> Self:
        size, batch = self.sampling.completions_per_prompt, self.ppo.batch_size
        if batch % size:
            raise ValueError(f"ppo.batch_size {batch} is no multiple of sampling.completions_per_prompt {size}")
        if size == 1 and self.ppo.estimator in ("grpo", "rloo"):
            raise ValueError(
                f"ppo.estimator {self.ppo.estimator} compares completions of one prompt: set "
                "sampling.completions_per_prompt to 2 or more"
            )
        return self

    def reward_list(self) -> tuple[RewardConfig, ...]:
        """The rewards; the one of --services.reward has the name "reward" and weight 1."""
        return tuple(self.rewards) or (_single_reward(self.services, self.scoring),)

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        names = [reward.name for reward in self.rewards]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"rewards: {', '.join(twice)} is there twice; every reward has a name of its own")
        if self.rewards and _single_reward(self.services, self.scoring) != _single_reward(
            ServicesGroup(), ScoringGroup()
        ):
            raise ValueError(
                "services.reward (with model, token and server name), scoring.aggregate and scoring.variance_weight "
                "have no effect with rewards: say it there"
            )
        return self

    @model_validator(mode="after")
    def _usable_when_stale(self) -> Self:
        if not self.overlap.max_staleness:
            return self
        if self.strict:
            raise ValueError(
                "overlap.max_staleness and strict exclude each other: which weights draw a rollout is then a matter of "
                "timing"
            )
        if self.ppo.tis_cap is None:
            raise ValueError(
                "overlap.max_staleness above 0 needs ppo.tis_cap, e.g. 2: rollouts of older weights are learnt from by "
                "importance weights"
            )
        return self

    @model_validator(mode="after")
    def _adapters_go_whole(self) -> Self:
        if self.lora.rank and self.services.full_every > 1:
            raise ValueError("services.full_every has no effect with lora.rank: adapters always go whole. Leave it out")
        return self

    @model_validator(mode="after")
    def _one_reward(self) -> Self:
        if self.strict and self.accept_new_reward:
            raise ValueError("strict and accept_new_reward exclude each other: other scores make another run")
        return self


def _single_reward(services: ServicesGroup, scoring: ScoringGroup) -> RewardConfig:
    return RewardConfig(
        name="reward",
        target=services.reward,
        model=services.reward_model,
        aggregate=scoring.aggregate,
        variance_weight=scoring.variance_weight,
        token_file=services.reward_token_file,
        server_name=services.reward_server_name,
    )
