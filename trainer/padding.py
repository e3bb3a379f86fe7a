"""Padding of token ids on the right, and the tokenizers with which it would go wrong."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from palate.models.folder import FolderError
from palate.models.rendering import Renderer


def pad_right(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """(B, T) int64 from ragged rows; T is the longest one's length."""
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def mask_of(rows: Sequence[Sequence[int]]) -> Tensor:
    """(B, T) int64, 1 at tokens and 0 at padding."""
    return pad_sequence([torch.ones(len(row), dtype=torch.int64) for row in rows], batch_first=True)


def checked_pad(renderer: Renderer) -> int:
    """The id to pad a decoder's rows with.

    Raises:
        FolderError: Padding cannot be told from the end of a sequence, because they are one token or one is missing.
    """
    if renderer.eos_id is None or renderer.pad_id is None:
        raise FolderError(
            "the tokenizer needs an eos_token, to learn where to stop, and a pad_token: name both in "
            "tokenizer_config.json"
        )
    if renderer.pad_id == renderer.eos_id:
        raise FolderError(
            "the tokenizer pads with its end-of-sequence token; policies trained so run on, and scores are read at the "
            "wrong token. Set pad_token in tokenizer_config.json to another token, e.g. the unknown or an unused one"
        )
    return renderer.pad_id
