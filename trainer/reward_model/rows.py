"""Pairs as a model reads them: both sides rendered, padded into one batch, with their labels or their votes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, repeat
from typing import Any

import torch
from torch import Tensor, nn

from palate.models.rendering import Rendered, Renderer, RenderingError, TooLong
from trainer.data.comparisons import PREFERENCE
from trainer.data.lines import DataError
from trainer.data.votes import Pair
from trainer.fit import Batch, FitRow
from trainer.padding import mask_of, pad_right
from trainer.reward_model.crowd import VOTE_KEYS
from trainer.reward_model.labels import Labels
from trainer.reward_model.losses import bradley_terry_loss, centring_penalty
from trainer.reward_model.reliability import VoteTable

LABEL_KEYS = ("preference", "weight", "margin")
"""What a batch says of its pairs: (B, 1), and (B, 1) or (B, M) weights for the M members of an ensemble."""


@dataclass(frozen=True, slots=True)
class RenderedPair:
    """A pair with the token ids of both sides."""

    pair: Pair
    a: Rendered
    b: Rendered


def render_pairs(pairs: Sequence[Pair], renderer: Renderer) -> tuple[tuple[RenderedPair, ...], int]:
    """Renders both sides of each.

    Returns:
        (what could be rendered, how many were left out because a side is too long).

    Raises:
        DataError: The model's template does not take a text, or nothing is left.
    """
    sides_a = renderer.render_pairs([(row.prompt, row.a) for row in pairs])
    sides_b = renderer.render_pairs([(row.prompt, row.b) for row in pairs])
    kept, too_long = [], 0
    for row, a, b in zip(pairs, sides_a, sides_b, strict=True):
        if isinstance(a, TooLong) or isinstance(b, TooLong):
            too_long += 1
        elif isinstance(a, Rendered) and isinstance(b, Rendered):
            kept.append(RenderedPair(row, a, b))
        else:
            error = a if isinstance(a, RenderingError) else b
            raise DataError(f"a pair of group {row.group[:60]!r} cannot be rendered: {error}")
    if not kept:
        raise DataError(
            f"all {too_long} pairs are longer than {renderer.manifest.max_tokens} tokens; raise --max-tokens, or "
            "let them be cut with --truncation left"
        )
    return tuple(kept), too_long


def fit_rows(
    rendered: Sequence[RenderedPair],
    labels: Labels,
    default_margin: float,
    times: Sequence[Sequence[int]] | None = None,
) -> list[FitRow]:
    """Rows to learn labels from; "input_ids" is the longer side, by whose length batches are made.

    Args:
        rendered: The pairs.
        labels: What is said of them.
        default_margin: Where a pair has none.
        times: For each pair how often each member learns it; None = all learn it once.
    """
    found = zip(rendered, labels.preference.tolist(), labels.weight.tolist(), times or repeat((1,)), strict=False)
    return [
        _sides(row)
        | {
            "preference": [preference],
            "weight": [weight * count for count in counts],
            "margin": [default_margin if row.pair.margin is None else row.pair.margin],
        }
        for row, preference, weight, counts in found
    ]


def vote_rows(rendered: Sequence[RenderedPair], learnt: VoteTable) -> list[FitRow]:
    """Rows to learn single votes from, numbered in their order; annotators who are not in `learnt` stand for its end.

    Raises:
        DataError: A pair has a margin.
    """
    if any(row.pair.margin is not None for row in rendered):
        raise DataError("some comparisons have a margin, which --annotators reliability cannot use; leave it out")
    place = {name: index for index, name in enumerate(learnt.names)}
    numbers = count()
    return [
        _sides(row)
        | {
            "votes": [
                (next(numbers), place.get(vote.annotator, len(place)), PREFERENCE[vote.label])
                for vote in row.pair.votes
            ]
        }
        for row in rendered
    ]


def _sides(row: RenderedPair) -> dict[str, Any]:
    return {"input_ids": max(row.a.token_ids, row.b.token_ids, key=len), "a": row.a, "b": row.b}


def model_inputs(texts: Sequence[Rendered], pad_id: int) -> Batch:
    """(N, T) ids, mask, and segments for models that have them."""
    ids = [text.token_ids for text in texts]
    inputs = {"input_ids": pad_right(ids, pad_id), "attention_mask": mask_of(ids)}
    if texts[0].segment_ids:
        inputs["token_type_ids"] = pad_right([text.segment_ids for text in texts], 0)
    return inputs


def collator(pad_id: int) -> Callable[[list[FitRow]], Batch]:
    """Makes one batch of 2B texts, all first sides before all second ones, with (B, 1) labels or (V,) votes."""

    def collate(rows: list[FitRow]) -> Batch:
        inputs = model_inputs([row["a"] for row in rows] + [row["b"] for row in rows], pad_id)
        if "votes" not in rows[0]:
            return inputs | {name: torch.tensor([row[name] for row in rows]) for name in LABEL_KEYS}
        votes = [(index, *vote) for index, row in enumerate(rows) for vote in row["votes"]]
        return inputs | {
            name: torch.tensor(column) for name, column in zip(VOTE_KEYS, zip(*votes, strict=True), strict=True)
        }

    return collate


def comparison_loss(label_smoothing: float, centring: float) -> Callable[[nn.Module, Batch], Tensor]:
    """Mean weighted Bradley–Terry loss of a batch and its heads plus `centring` times the mean centring penalty."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        inputs = {name: value for name, value in batch.items() if name not in LABEL_KEYS}
        a, b = model(**inputs).chunk(2)  # (B, M), (B, M)
        preference, margin = (batch[name].expand_as(a) for name in ("preference", "margin"))
        losses = bradley_terry_loss(a, b, preference, margin, label_smoothing)  # (B, M)
        return (batch["weight"] * losses).mean() + centring * centring_penalty(a, b).mean()

    return loss


@torch.no_grad()
def scores_of(model: nn.Module, texts: Sequence[Rendered], pad_id: int, batch_size: int = 64) -> Tensor:
    """(N, M) raw scores of every head in the order of `texts`, on the CPU; texts of similar length share a batch."""
    order = sorted(range(len(texts)), key=lambda index: len(texts[index].token_ids))
    scores, device = [torch.empty(0)] * len(texts), next(model.parameters()).device
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        inputs = model_inputs([texts[index] for index in chosen], pad_id)
        logits = model(**{name: value.to(device) for name, value in inputs.items()})
        for index, row in zip(chosen, logits.float().cpu(), strict=True):
            scores[index] = row
    return torch.stack(scores)
