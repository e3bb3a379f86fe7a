"""What a logprob is, to the bit, for the policy service and the trainer alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def log_probabilities(logits: Tensor, temperature: float) -> Tensor:
    """Log-probabilities of every token at `temperature`, in float32 whatever the model computes in.

    Args:
        logits: (..., V); -inf marks tokens that cannot be drawn.
        temperature: Divides the logits; > 0.

    Returns:
        (..., V) float32, in nats.
    """
    scaled = logits.float()
    if temperature != 1.0:  # dividing by 1 changes no bit, and costs a pass over the logits both ways
        scaled = scaled / temperature
    return scaled.log_softmax(-1)


def sampled_logprobs(logits: Tensor, token_ids: Tensor, temperature: float) -> Tensor:
    """Log-probabilities of the given tokens at `temperature`.

    Args:
        logits: (..., V), at each position those that predict the token of `token_ids` there.
        token_ids: (...) integers.
        temperature: Divides the logits; > 0.

    Returns:
        (...) float32, in nats.
    """
    return log_probabilities(logits, temperature).gather(-1, token_ids.long().unsqueeze(-1)).squeeze(-1)


def masked_positions(attention_mask: Tensor) -> Tensor:
    """Position of each token counted from its row's first real one, whichever side the padding is on.

    Args:
        attention_mask: (B, T) integers, 1 at tokens and 0 at padding.

    Returns:
        (B, T) int64; 0 at padding on the left.
    """
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
