"""What can stop a PPO run, each with cause and remedy.

TrainingError
├── PromptsUnusable      the prompts cannot be sampled from
├── NoReplica            no replica of the policy service is found
├── AccessRefused        a service does not let the trainer in
├── PromptMismatch       trainer and policy service read a prompt as different tokens
├── RolloutsFailed       the policy service does not deliver
│   └── OtherWeights     what it delivers is not drawn from the run's weights
├── ScoresFailed         the reward service does not deliver, and strict mode drops nothing
├── TooManyDropped       too many rollouts get no score
│   └── TooFewDrawn      and mostly because the policy service does not draw them
├── RewardModelChanged   a reward has another revision than the run is pinned to
├── RewardFunctionUnusable  a local reward function is not found
├── RewardFunctionBroken    one does not give a value for each completion
├── BrakeUnusable        a brake looks at something that the run does not have
├── ScoresAlike          scores cannot be standardised
├── PublishFailed        the new weights do not reach every replica
├── UnusableModel        a model folder does not fit its place
├── CheckpointRefused    a run cannot be started, continued or resumed like this
│   └── CheckpointDamaged  a checkpoint is not what was written
├── CheckpointNotWritten a checkpoint has no place; the one before it stays
├── NotStrict            strict mode cannot be kept with these services or settings
├── NoTeam               the process was not started as --distributed needs it
├── RankFailed           another of the processes that learn together failed
├── NotFinite            a loss or gradient is infinite or not a number
└── InvariantViolated    trainer and policy disagree about probabilities
    ├── PadIsEos         padding cannot be told from the end of a sequence
    ├── MaskMismatch     the mask does not cover the sampled tokens
    ├── BehaviourMismatch  recomputed logprobs are not those that were sampled with
    └── RatioMismatch    the first minibatch of an update does not start at ratio 1
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from trainer.errors import Failure

POLICY_ACCESS = "Give --services.token-file (or --services.certificate) of an identity with the role trainer"
REWARD_ACCESS = "Give --services.reward-token-file (or --services.certificate) of an identity with the role scorer"
"""What to do where a service refuses the trainer's credentials."""


class TrainingError(Exception):
    """Root of everything a run raises on purpose."""

    failure: ClassVar[Failure] = Failure.OTHER


class PromptsUnusable(TrainingError):
    """A prompt cannot be rendered, or leaves no room for a completion."""


class NoReplica(TrainingError):
    """A DNS name of --services.policy has no address."""


class AccessRefused(TrainingError):
    """A service does not know the trainer's credentials, or its role may not do what a run needs."""


class PromptMismatch(TrainingError):
    """Trainer and policy service turn the same prompt into different tokens."""


class RolloutsFailed(TrainingError):
    """The policy service did not deliver after all retries."""

    failure = Failure.ROLLOUTS


class OtherWeights(RolloutsFailed):
    """A completion was drawn from weights that were not published, or are too old."""


class ScoresFailed(TrainingError):
    """The reward service did not deliver, and the run may not drop what got no score."""

    failure = Failure.SCORES


class TooManyDropped(TrainingError):
    """More rollouts than allowed got no score."""

    failure = Failure.SCORES


class TooFewDrawn(TooManyDropped):
    """Most of them because the policy service gave no completion."""

    failure = Failure.ROLLOUTS


class RewardModelChanged(TrainingError):
    """A reward service or function has another revision than the one the run is pinned to."""


class RewardFunctionUnusable(TrainingError):
    """A local reward function is not found, or cannot be pinned."""


class RewardFunctionBroken(TrainingError):
    """A local reward function does not give one value for each completion."""


class BrakeUnusable(TrainingError):
    """A brake looks at something that the run does not have, or that never says anything, and so would never hold."""


class ScoresAlike(TrainingError):
    """The starting policy's scores are all the same, so that they have no scale to be standardised by."""


class PublishFailed(TrainingError):
    """Not every replica took the new weights; those that did were put back."""

    failure = Failure.PUBLISH


class UnusableModel(TrainingError):
    """A model folder does not fit the place it is given."""


class CheckpointRefused(TrainingError):
    """A run cannot be started, continued or resumed like this."""


class CheckpointDamaged(CheckpointRefused):
    """A checkpoint lacks files, or they are not those that were written."""


class CheckpointNotWritten(TrainingError):
    """The disk is full, read-only or broken; nothing counts of what was written."""


class NotStrict(TrainingError):
    """Strict mode promises the same bits, and something that a run depends on cannot keep that."""


class NoDevice(TrainingError):
    """What --device names is not there."""


class NoTeam(TrainingError):
    """The process was not started as --distributed needs it."""


class RankFailed(TrainingError):
    """Another of the processes that learn together failed, or did not come in time."""


class NotFinite(TrainingError):
    """A loss or a gradient is infinite or not a number; the weights before it are in the last checkpoint."""

    failure = Failure.NOT_FINITE


class InvariantViolated(TrainingError):
    """Trainer and policy disagree; training on would optimise something else than it reports.

    Attributes:
        causes: What it may be, likeliest first.
    """

    failure = Failure.INVARIANT

    def __init__(self, finding: str, causes: Sequence[str]) -> None:
        self.causes = tuple(causes)
        ranked = "".join(f"\n  {rank}. {cause}" for rank, cause in enumerate(self.causes, 1))
        super().__init__(f"{finding} Likely causes, likeliest first:{ranked}")


class PadIsEos(InvariantViolated):
    """The policy's pad token is its end-of-sequence token."""


class MaskMismatch(InvariantViolated):
    """The completion mask does not cover exactly the tokens that were sampled."""


class BehaviourMismatch(InvariantViolated):
    """Logprobs that the trainer recomputes are not those that the policy service recorded."""


class RatioMismatch(InvariantViolated):
    """An update does not start at ratio 1."""
