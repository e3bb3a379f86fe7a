"""From a model's labels to its score, or to the scores of its members."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from palate.models.manifest import Manifest


def member_count(manifest: Manifest) -> int:
    """How many scores a row has: M."""
    return len(manifest.member_labels) or 1


def read_scores(logits: NDArray[np.float32], manifest: Manifest) -> NDArray[np.float32]:
    """(B, M) scores from (B, labels) logits.

    M is the number of member labels; where there are none it is 1: the only label, the chosen one, or the weighted sum
    of all.
    """
    if manifest.score_weights:
        weighted: NDArray[np.float64] = logits.astype(np.float64) @ np.array(manifest.score_weights, np.float64)
        return weighted.astype(np.float32)[:, None]
    labels = list(manifest.member_labels) or [manifest.score_index or 0]
    return np.ascontiguousarray(logits[:, labels], np.float32)
