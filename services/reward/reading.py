"""From a model's labels to its one score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from palate.models.manifest import Manifest


def read_scores(logits: NDArray[np.float32], manifest: Manifest) -> NDArray[np.float32]:
    """(B,) scores from (B, labels) logits: the only label, the chosen one, or the weighted sum of all."""
    if manifest.score_weights:
        weighted: NDArray[np.float64] = logits.astype(np.float64) @ np.array(manifest.score_weights, np.float64)
        return weighted.astype(np.float32)
    return np.ascontiguousarray(logits[:, manifest.score_index or 0], np.float32)
