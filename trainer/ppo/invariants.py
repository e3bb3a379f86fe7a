"""Run-time proofs that trainer and policy service mean the same probabilities; one failure stops the run.

They catch a wrong temperature, dropout that is on, stale weights, padding taken for text and unequal numerics: faults
that otherwise show as a run that merely learns badly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from palate.client.types import PolicyVersion
from palate.models.weights import describe_tensors, untied_state_dict, weights_digest
from trainer.lora import merged_model
from trainer.ppo.errors import BehaviourMismatch, MaskMismatch, PadIsEos, RatioMismatch
from trainer.types import Rollout, padded

_DROPOUT = "dropout is on: {n} modules are in training mode; the trainer's networks belong in evaluation mode"
_STALE = "stale weights: the trainer's have digest {mine}, the rollouts were drawn from {theirs}"
_TEMPERATURE = "another temperature on one side: the trainer computes at {temperature:g}, as rollouts must be drawn"
_SAMPLER = "the policy service draws from a changed distribution (top-k, top-p, suppressed tokens)"
_TEXT = "the two sides read different tokens: chat template, BOS rule or tokenizer differ between the model folders"
_PADDING = "padding is read as text: positions or attention mask are wrong on one side"
_NUMERICS = "the policy service computes in another precision; raise the tolerance in --invariants if that is intended"
_CHANGED = "the weights changed between the pass over the batch and the update's first pass"
_SHAPES = "unequal kernels for unequal batch shapes; raise --invariants.ratio-tolerance if the excess is tiny"
_REORDERED = "rows of the batch and of its old logprobs are in different order"


@dataclass(frozen=True, slots=True)
class Suspects:
    """Where to look when a check fails.

    Attributes:
        model: The trainer's networks.
        actor: The part of it that is published.
        version: The newest that rollouts can have been drawn from.
        temperature: What the trainer computes logprobs at.
    """

    model: nn.Module
    actor: nn.Module
    version: PolicyVersion
    temperature: float


def check_pad_token(pad_id: int | None, eos_id: int | None) -> None:
    """Refuses a policy whose pad token ends sequences: it would never learn to end one.

    Raises:
        PadIsEos: They are the same, or one is missing.
    """
    if pad_id is not None and eos_id is not None and pad_id != eos_id:
        return
    what = f"one token, {pad_id}, for both" if None not in (pad_id, eos_id) else "not both of these tokens"
    raise PadIsEos(
        f"the policy has {what}: padding and the end of a sequence cannot be told apart.",
        (
            "tokenizer_config.json names the eos_token as pad_token: name another one, or add a token for it",
            "config.json has pad_token_id equal to eos_token_id, and the tokenizer names no pad_token",
        ),
    )


def check_mask(mask: Tensor, rollouts: Sequence[Rollout]) -> None:
    """The (B, T) mask covers as many tokens in each row as the policy service sent.

    Raises:
        MaskMismatch: It does not.
    """
    expected = [len(rollout.completion_ids) for rollout in rollouts]
    found = mask.sum(1).tolist()
    wrong = [row for row, (have, want) in enumerate(zip(found, expected, strict=True)) if have != want]
    if wrong:
        row = wrong[0]
        raise MaskMismatch(
            f"the completion mask is wrong in {len(wrong)} of {len(expected)} rows; row {row} has {found[row]} of "
            f"{expected[row]} tokens.",
            (
                "pad == eos: a mask made by comparing ids with the pad token hides the end of sequence",
                "completions were cut or padded between sampling and training",
            ),
        )


def check_behaviour(
    old_logprobs: Tensor, mask: Tensor, rollouts: Sequence[Rollout], tolerance: float, suspects: Suspects
) -> float | None:
    """Recomputed logprobs are those that the tokens were drawn with; returns their mean |Δ| over real tokens.

    Only tokens that the current weights drew can be judged: those of older ones differ by right, and their importance
    weights say how much. None where there is no token to judge.

    Raises:
        BehaviourMismatch: The mean |Δ| is above `tolerance`.
    """
    current = padded([rollout.drawn_by(suspects.version) for rollout in rollouts]).bool()  # (B, T)
    if not current.any():
        return None
    behaviour = padded([rollout.behaviour_logprobs for rollout in rollouts])  # (B, T)
    deviation = (old_logprobs - behaviour).abs()[mask & current]  # (N,)
    mean = deviation.mean().item()
    if mean <= tolerance:
        return mean
    raise BehaviourMismatch(
        f"the trainer's logprobs of the sampled tokens differ from the policy service's by {mean:.2e} on average "
        f"(largest {deviation.max().item():.2e}, allowed mean {tolerance:.0e}).",
        _ranked(suspects, (_TEMPERATURE, _SAMPLER, _TEXT, _PADDING, _NUMERICS)),
    )


def check_first_ratios(ratios: Tensor, tolerance: float, suspects: Suspects) -> None:
    """Before anything is learnt from a batch, new logprobs are the old ones.

    Args:
        ratios: (N,) exp(new − old) of the first minibatch's tokens.
        tolerance: Largest |ratio − 1| allowed.
        suspects: Where to look.

    Raises:
        RatioMismatch: Some ratio is further from 1.
    """
    worst = (ratios - 1).abs().max().item()
    if not worst <= tolerance:
        raise RatioMismatch(
            f"the first minibatch does not start at ratio 1: largest |ratio - 1| is {worst:.2e}, allowed is "
            f"{tolerance:.0e}.",
            _ranked(suspects, (_CHANGED, _REORDERED, _TEMPERATURE, _PADDING, _SHAPES)),
        )


def _ranked(suspects: Suspects, possible: Sequence[str]) -> list[str]:
    """What can be proved first, then what is possible."""
    return [*_proved(suspects), *(cause.format(temperature=suspects.temperature) for cause in possible)]


def _proved(suspects: Suspects) -> list[str]:
    proved = []
    if training := sum(module.training for module in suspects.model.modules() if not list(module.children())):
        proved.append(_DROPOUT.format(n=training))
    mine = weights_digest(describe_tensors(untied_state_dict(merged_model(suspects.actor))))
    if mine != suspects.version.digest:
        proved.append(_STALE.format(mine=mine[:12], theirs=suspects.version.digest[:12]))
    return proved
