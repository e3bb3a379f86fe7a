"""Every number that a training run writes down: its name, and what it says. The writer takes no others."""

from __future__ import annotations

import re
from dataclasses import dataclass

from trainer.types import DropCause


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a step.

    Attributes:
        name: As rows, TensorBoard and the report call it.
        text: What it says, with its unit; it has no value in steps that have nothing to take one of.
        label: Where there is one for each of several things, what these are: `name` then ends in "_" and the thing's
            name, and Prometheus has it as a label.
    """

    name: str
    text: str
    label: str = ""

    @property
    def prometheus(self) -> str:
        """E.g. "objective/kl" → "palate_training_objective_kl"; times say that they are in seconds."""
        unit = "_seconds" if self.name.startswith("time/") else ""
        return "palate_training_" + re.sub(r"[^a-zA-Z0-9]+", "_", self.name) + unit


_FIT = {
    "train/loss": "Mean loss of the steps since the row before.",
    "train/grad_norm": "Norm of the gradient before clipping.",
    "train/learning_rate": "Learning rate.",
    "train/epoch": "Passes over the data so far.",
    "eval/loss": "Mean loss of held-out rows.",
}

_REWARD_MODEL = {
    "eval/accuracy_reward_model": "Share of held-out comparisons that the reward model judges as labelled.",
    "eval/accuracy_length_only": "The same, by which completion is longer.",
    "eval/accuracy_bag_of_words": "The same, by a logistic regression on word counts.",
    "eval/accuracy_shorter_won": "The same by the reward model, where the shorter completion was preferred.",
    "eval/accuracy_threshold": "Share of held-out completions on the right side of one threshold.",
    "eval/score_std": "Standard deviation of held-out scores; of an ensemble, of its members' means.",
    "eval/disagreement": "Standard deviation over an ensemble's members, mean over held-out completions, in that unit.",
    "eval/logit_scale": "What a difference of scores is multiplied with to be a log-odds.",
}

_OBJECTIVE = {
    "objective/scores": "Mean raw score of the batch.",
    "objective/scores_std": "Standard deviation of the raw scores.",
    "objective/shaped_scores": "Mean score as rewarded: standardised, clipped, marked down.",
    "objective/kl": "Mean over completions of the sum of log π_old − log π_ref over tokens, nats.",
    "objective/kl_k3_token": "Mean over tokens of the k3 estimate of that KL, nats.",
    "objective/kl_coef": "Coefficient that the KL was penalised with.",
    "objective/entropy": "Mean over completions of the sum of −log π_old over tokens, nats.",
    "objective/non_score_reward": "Mean over completions of the summed reward without the score: the KL penalty.",
    "objective/rlhf_reward": "Mean over completions of the summed reward, score and penalty together.",
}

_POLICY = {
    "policy/entropy_avg": "Mean entropy of the distribution of a token before the update, nats.",
    "policy/approxkl_avg": "Mean of ½ (log π_θ − log π_old)² over tokens and epochs.",
    "policy/clipfrac_avg": "Share of tokens whose policy loss is clipped.",
    "policy/dual_clipfrac_avg": "Share of tokens whose policy loss the dual clip decides.",
    "policy/ratio_avg": "Mean of π_θ / π_old over tokens and epochs.",
    "policy/ratio_max": "Largest of them.",
    "policy/grad_norm_avg": "Mean norm of the policy's gradient before clipping.",
    "policy/learning_rate": "Learning rate of the policy.",
    "publish/bytes": "Bytes of weights that the step sent to each replica.",
    "policy/importance_mean": "Mean importance weight π_old / π_behaviour of a token, uncapped.",
    "policy/importance_max": "Largest importance weight.",
    "policy/importance_ess": "Effective sample size of the importance weights, (Σw)² / Σw², as a share of the tokens.",
    "policy/importance_capped_share": "Share of tokens whose importance weight is above the cap.",
    "policy/behaviour_deviation": "Mean |log π_old − log π_behaviour| of tokens of the newest weights, nats.",
}

_CRITIC = {
    "val/mean": "Mean value of a token before the update.",
    "val/returns_mean": "Mean return of a token.",
    "val/explained_variance": "1 − Var(returns − values) / Var(returns) before the update.",
    "val/clipfrac_avg": "Share of tokens whose value loss is clipped.",
    "val/grad_norm_avg": "Mean norm of the critic's gradient before clipping.",
}

_LOSS = {
    "loss/policy_avg": "Mean policy loss.",
    "loss/kl_avg": "Mean KL term of the loss; 0 where the reward holds the KL.",
    "loss/value_avg": "Mean value loss.",
}

_GROUP = {
    "group/rewards_std": "Mean standard deviation of what the completions of one prompt earned.",
    "group/equal_share": "Share of prompts whose completions all earned the same.",
}

_ROLLOUT = {
    "rollout/mean_length": "Tokens of a completion.",
    "rollout/mean_prompt_length": "Tokens of a prompt.",
    "rollout/truncated_share": "Share of completions that the length limit cut off.",
    "rollout/mean_distinct_share": "Mean part of a completion in the batch's distinct pairs of words.",
    "rollout/staleness_mean": "Steps by which the weights that drew the batch are behind those that learn from it; "
    "where several drew a rollout, the oldest.",
    "rollout/staleness_max": "The same of the rollout that is furthest behind.",
    "rollout/interrupted_share": "Share of rollouts that were begun by some weights and went on under others.",
    "rollout/dropped_share": "Share of rollouts that got no completion or no score, or became too old.",
    "rollout/dropped_mean_length": "Tokens of a completion that fell out once it was drawn.",
    "rollout/dropped_mean_prompt_length": "Tokens of the prompt of whatever fell out.",
    **{f"rollout/dropped_{cause.lower()}": f"Rollouts that fell out with {cause}." for cause in DropCause},
}

_WATCH = {
    "watch/gold": "Mean raw score of gold, which nothing is learnt from.",
    "watch/gold_missing": "Rollouts that gold gave no score.",
    "watch/gold_correlation": "Spearman correlation of score and gold over the rollouts.",
    "watch/disagreement": "Mean over rollouts of an ensemble's standard deviation (divided by the members' number), in "
    "the unit of the score; of several ensembles the sum by weights.",
}

_IDLE = {
    "idle/trainer_share": "Of the step's time, how much the trainer waited for rollouts and their scores.",
    "idle/policy_share": "Of the step's time, in how much no replica of the policy service had a call of this run.",
    "idle/reward_share": "Of the step's time, in how much no reward service had a call of this run.",
    "idle/ref_share": "Of the step's time, in how much the reference policy's service had no call of this run.",
}

_TIME = {
    "time/step": "The whole step.",
    "time/publish": "Publishing weights.",
    "time/wait": "Waiting for rollouts and their scores.",
    "time/rollouts": "Drawing the rollouts, beside other work where they are drawn ahead.",
    "time/scoring": "Scoring them, likewise.",
    "time/evaluate": "What the networks say of the batch before the update.",
    "time/update": "The update.",
}

_COMPONENT = Metric("objective/score", "Mean raw score of each of several rewards.", "reward")
_BEHAVIOUR = Metric(
    "behaviour/shown", "Share of a policy's answers that show it; of verbosity, their words.", "behaviour"
)

FAMILIES: dict[str, tuple[Metric, ...]] = {
    title: tuple(Metric(name, text) for name, text in table.items())
    for title, table in {
        "What PPO optimises": _OBJECTIVE,
        "The policy": _POLICY,
        "The critic, where there is one": _CRITIC,
        "The losses": _LOSS,
        "Groups, where prompts have several completions": _GROUP,
        "Rollouts": _ROLLOUT,
        "Looked at, never learnt from": _WATCH,
        "Who waits": _IDLE,
        "Seconds of a step": _TIME,
        "`pretrain`, `sft`, `reward`": _FIT,
        "The reward model, after its training": _REWARD_MODEL,
    }.items()
}
FAMILIES["What PPO optimises"] += (_COMPONENT,)
FAMILIES["What the policy says, before and after the demo's PPO"] = (_BEHAVIOUR,)

_BY_NAME = {metric.name: metric for family in FAMILIES.values() for metric in family if not metric.label}


def find(name: str) -> tuple[Metric, str]:
    """The metric that has a number called `name`, and which of several things it is of; "" where it is of one alone.

    Raises:
        ValueError: There is none.
    """
    if name in _BY_NAME:
        return _BY_NAME[name], ""
    for labelled in (_COMPONENT, _BEHAVIOUR):
        if name.startswith(prefix := f"{labelled.name}_"):
            return labelled, name.removeprefix(prefix)
    raise ValueError(f"{name} is no metric: trainer/metric_names.py names them all")
