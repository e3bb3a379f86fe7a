"""Rows of unequal length as the rectangles that models take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.reward.engine import Row


@dataclass(frozen=True, slots=True)
class Padded:
    """A batch, padded on the right: the side on which positions count from 0 in every row.

    Attributes:
        input_ids: (B, T).
        attention_mask: (B, T) 1 at tokens, 0 at padding.
        token_type_ids: (B, T), zero where rows have no segments.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]


def pad(rows: Sequence[Row], pad_id: int) -> Padded:
    """`rows` filled up to the longest with `pad_id`."""
    shape = (len(rows), max(len(row.token_ids) for row in rows))
    input_ids = np.full(shape, pad_id, np.int64)
    attention_mask, token_type_ids = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for index, row in enumerate(rows):
        length = len(row.token_ids)
        input_ids[index, :length] = row.token_ids
        attention_mask[index, :length] = 1
        token_type_ids[index, : len(row.segment_ids)] = row.segment_ids
    return Padded(input_ids, attention_mask, token_type_ids)
