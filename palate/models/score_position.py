"""Where in a sequence the score is read: the true last token by the mask, and where transformers would look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import torch

    Mask = TypeVar("Mask", torch.Tensor, np.ndarray)


def last_token_positions(attention_mask: Mask) -> Mask:
    """Index of each row's last real token, whichever side the padding is on.

    Args:
        attention_mask: (B, T) integers, 1 at tokens and 0 at padding; every row holds at least one token.

    Returns:
        (B,) indices into T, of the same library as the mask. Traces into an ONNX graph with dynamic shapes.
    """
    mask: Any = attention_mask
    # A cumsum of ones instead of arange: the same call in numpy and torch, and no length baked into a traced graph.
    positions = (mask * 0 + 1).cumsum(-1) - 1  # (B, T) 0, 1, 2, …
    marked = mask * positions  # (B, T) each token's own index, 0 at padding
    last: Mask = marked.amax(-1) if hasattr(marked, "amax") else marked.max(-1)
    return last


def transformers_score_position(token_ids: Sequence[int], pad_token_id: int | None) -> int:
    """Index at which transformers' decoder classifiers read the score of one unpadded sequence.

    They take the last token whose id is not the pad id and never look at the mask, so that with pad == EOS a real
    trailing EOS is skipped. Without a pad id they take the last position, padding or not.
    Source: transformers 5.23, `GenericForSequenceClassification.forward` and its copies in GPT-2, GPT-NeoX, OPT etc.

    Args:
        token_ids: (T,) at least one id, no padding.
        pad_token_id: `pad_token_id` of the model's configuration.
    """
    if not token_ids:
        raise ValueError("a sequence without tokens has no position to read a score at")
    if pad_token_id is None:
        return len(token_ids) - 1
    return max((index for index, token in enumerate(token_ids) if token != pad_token_id), default=0)
