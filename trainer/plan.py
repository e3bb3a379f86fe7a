"""How long a PPO run takes, where its time goes and what it needs, from measured rates: plain arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from trainer.ppo.choices import DistributedWay

_STATE_BYTES = 16
"""Of each learnt parameter: float32 weight, gradient, and Adam's two moments."""

_WEIGHT_BYTES = 4
_MOST_REPLICAS = 4096


@dataclass(frozen=True, slots=True)
class Workload:
    """What a run does; tokens are means over rollouts.

    Attributes:
        steps: Batches to learn from.
        batch_size: Rollouts in a batch.
        prompt_tokens: Of a prompt.
        completion_tokens: Of a completion.
        longest_tokens: Of the longest completion of a batch.
        epochs: Passes of the update over a batch.
        publish_bytes: What each replica gets at each publication.
        staleness: Publications that a rollout's weights may lie behind; 0 = no overlap.
    """

    steps: int
    batch_size: int
    prompt_tokens: float
    completion_tokens: float
    longest_tokens: float
    epochs: int
    publish_bytes: float
    staleness: int = 0

    @property
    def tokens(self) -> float:
        """Prompts and completions of a batch."""
        return self.batch_size * (self.prompt_tokens + self.completion_tokens)


@dataclass(frozen=True, slots=True)
class Rates:
    """What one of each does in a second, as measured with as many of them as the run will have.

    Attributes:
        generate: Tokens that a policy replica draws, its batch full.
        sequence: Tokens of a single completion that a policy replica draws.
        score: Tokens that a reward replica reads.
        evaluate: Tokens that a rank reads forward through policy, reference and critic.
        train: Tokens that a rank reads forward and backward through policy and critic.
        bandwidth: Bytes that leave rank 0, to all replicas together.
    """

    generate: float
    sequence: float
    score: float
    evaluate: float
    train: float
    bandwidth: float


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many of each there are."""

    policy_replicas: int
    reward_replicas: int
    ranks: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Seconds of each stage of a step, and what they make of a run.

    Rollouts and scoring of a batch make one lane, learning from it and publishing the other. Without overlap they
    take turns; within a staleness bound of s, s + 1 batches are under way, but only one in each lane.
    """

    steps: int
    staleness: int
    rollouts: float
    scoring: float
    evaluate: float
    update: float
    publish: float

    @property
    def making(self) -> float:
        """Seconds in which a batch is made."""
        return self.rollouts + self.scoring

    @property
    def learning(self) -> float:
        """Seconds in which a batch is learnt from and what was learnt is published."""
        return self.evaluate + self.update + self.publish

    @property
    def step(self) -> float:
        """Seconds between two steps once the lanes are full."""
        return max(self.making, self.learning, (self.making + self.learning) / (self.staleness + 1))

    @property
    def total(self) -> float:
        """Seconds of the run: the first publication, the first batch through both lanes, and every further step."""
        return self.publish + self.making + self.learning + (self.steps - 1) * self.step

    @property
    def bottleneck(self) -> str:
        """The stage that takes longest in the lane that does."""
        lane = ("rollouts", "scoring") if self.making > self.learning else ("evaluate", "update", "publish")
        return max(lane, key=lambda name: float(getattr(self, name)))


def plan(work: Workload, rates: Rates, sizes: Sizes) -> Plan:
    """What a run takes.

    A batch is drawn when its longest completion is: beyond that, more replicas do not help. All replicas are staged at
    once and share what leaves rank 0.
    """
    drawn = work.batch_size * work.completion_tokens / (rates.generate * sizes.policy_replicas)
    return Plan(
        work.steps,
        work.staleness,
        rollouts=max(drawn, work.longest_tokens / rates.sequence),
        scoring=work.tokens / (rates.score * sizes.reward_replicas),
        evaluate=work.tokens / (rates.evaluate * sizes.ranks),
        update=work.epochs * work.tokens / (rates.train * sizes.ranks),
        publish=work.publish_bytes * sizes.policy_replicas / rates.bandwidth,
    )


def best_replicas(work: Workload, rates: Rates, sizes: Sizes) -> int:
    """The fewest policy replicas with the shortest step: each draws its share, and each is published to."""

    def step(count: int) -> float:
        return plan(work, rates, replace(sizes, policy_replicas=count)).step

    return min(range(1, _MOST_REPLICAS + 1), key=step)


def rank_bytes(policy: float, critic: float, way: DistributedWay, ranks: int, *, local_ref: bool = True) -> float:
    """Bytes of weights, gradients and optimiser on each rank, activations and buffers not counted.

    Args:
        policy: Its parameters.
        critic: Its parameters; 0 = there is none.
        way: How ranks share them.
        ranks: How many.
        local_ref: Whether the reference policy is in the trainer.
    """
    whole = _STATE_BYTES * (policy + critic) + (_WEIGHT_BYTES * policy if local_ref else 0)
    return whole / ranks if way == "fsdp2" else whole


def enough_ranks(policy: float, critic: float, room: float, *, local_ref: bool = True) -> int:
    """The fewest ranks with which FSDP2 leaves every one at or below `room` bytes."""
    return math.ceil(rank_bytes(policy, critic, "fsdp2", 1, local_ref=local_ref) / room)
