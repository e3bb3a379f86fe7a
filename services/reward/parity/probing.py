"""The built-in texts as an engine sees them: rows, scored alone and in batches."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from palate.models.agreement import Agreement, Scored, agreement
from palate.models.probe_texts import AT_START
from palate.models.rendering import Rendered, Renderer
from services.reward.engine import Engine, Row


class ParityError(Exception):
    """The engine's scores depend on the batch, or are no numbers; the message says by how much and what to do."""


def probe_rows(renderer: Renderer) -> list[Row]:
    """The rows of the built-in texts, at least two, the longest last.

    Raises:
        ParityError: The template takes fewer.
    """
    rendered = [item for item in renderer.render_pairs(AT_START, "left") if isinstance(item, Rendered)]
    rows = sorted((Row(item.token_ids, item.segment_ids) for item in rendered), key=lambda row: len(row.token_ids))
    if len(rows) < 2:
        raise ParityError("the model's template takes none of the built-in texts, so nothing could be checked")
    return rows


def score_alone(engine: Engine, rows: Sequence[Row]) -> NDArray[np.float32]:
    """(N, M) scores of rows of which each is a batch of its own."""
    return _finite(engine, np.concatenate([engine.score([row], alone=True) for row in rows]))


def compare(engine: Engine, rows: Sequence[Row], alone: NDArray[np.float32], batch: Sequence[int]) -> list[Agreement]:
    """Scores the rows at the places `batch` together; one agreement with `alone` for each of M members."""
    found = _finite(engine, engine.score([rows[place] for place in batch]))
    places = np.array(batch, np.intp)
    return [agreement(alone[:, member], [Scored(places, found[:, member])]) for member in range(alone.shape[1])]


def random_batches(rows: Sequence[Row], max_items: int, max_tokens: int, seed: int) -> Iterator[list[int]]:
    """Places of rows, mixed at random: batches of 1, 2, 4 and so on, the last as large as batches may become.

    Kernels are chosen by shape, so small batches alone would prove little.

    Args:
        rows: What to mix; a row may be in a batch several times.
        max_items: Rows of a batch.
        max_tokens: Padded tokens of a batch.
        seed: Of the mixing.
    """
    draw, size = random.Random(seed), 1
    while size < 2 * max_items:
        batch = [draw.randrange(len(rows)) for _ in range(min(size, max_items))]
        longest = max(len(rows[place].token_ids) for place in batch)
        yield batch[: max(1, max_tokens // longest)]
        size *= 2


def _finite(engine: Engine, scores: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(scores).all():
        raise ParityError(f"engine {engine.name} gives scores that are not finite; the checkpoint may be broken")
    return scores
