"""Results as the contract carries them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from palate.models.foreign import Inferred
from palate.models.rendering import Rendered
from palate.models.score_position import transformers_score_position
from palate.v1 import common_pb2 as common
from palate.v1 import reward_service_pb2 as reward
from services.reward.calibration import Aggregate, spread
from services.reward.metrics import ItemOutcome
from services.reward.model import RewardModel
from services.reward.ranking import best_first, preference_probability, ranks, z_scores
from services.reward.scoring import Demand, FailedItem, ItemResult, ScoredItem, Stages

CODES = {
    ItemOutcome.INVALID: reward.ITEM_ERROR_CODE_INVALID,
    ItemOutcome.TOO_LONG: reward.ITEM_ERROR_CODE_TOO_LONG,
    ItemOutcome.EXPIRED: reward.ITEM_ERROR_CODE_EXPIRED,
    ItemOutcome.FAILED: reward.ITEM_ERROR_CODE_FAILED,
}

_RETRYABLE = frozenset({ItemOutcome.EXPIRED, ItemOutcome.FAILED})

CAPABILITIES = (
    "compare",
    "explain",
    "list_models",
    "priority",
    "rank",
    "score_stream",
    "token_ids",
    "truncation.left",
    "truncation.right",
)
"""Optional features that every model on a reward server of this version has."""

ENSEMBLE_CAPABILITIES = ("include_members", *(f"aggregate.{aggregate}" for aggregate in Aggregate))
"""Those of ensembles alone."""

STRICT = "strict"
"""That of models whose scores were proved to be the same bits in every batch."""


def provenance(model: RewardModel) -> reward.Provenance:
    """Which model gives the scores."""
    engine = model.engine
    return reward.Provenance(model=model.name, revision=model.digests.revision, engine=engine.name, dtype=engine.dtype)


@dataclass(frozen=True, slots=True)
class Source:
    """Where results come from: the model, what was asked of it, and where the time went."""

    model: RewardModel
    demand: Demand
    stages: Stages


def score_response(results: Sequence[ItemResult], source: Source) -> reward.ScoreResponse:
    """One result per item."""
    return reward.ScoreResponse(results=[_score_result(result, source) for result in results], **_origin(source))


def stream_response(number: int, result: ItemResult, source: Source) -> reward.ScoreStreamResponse:
    """The result of one item of a stream."""
    return reward.ScoreStreamResponse(id=number, result=_score_result(result, source), **_origin(source))


def compare_response(results: Sequence[ItemResult], source: Source) -> reward.CompareResponse:
    """A comparison of the two results; where a side failed, its error, naming the side."""
    response = reward.CompareResponse(**_origin(source))
    first, second = results
    if isinstance(first, FailedItem):
        response.error.CopyFrom(_error(first, "first: "))
    elif isinstance(second, FailedItem):
        response.error.CopyFrom(_error(second, "second: "))
    else:
        difference = first.score - second.score
        comparison = reward.Comparison(
            difference=difference,
            probability=preference_probability(difference, source.model.manifest.logit_scale),
            first=_scored(first, source),
            second=_scored(second, source),
            difference_std=spread([a - b for a, b in zip(first.members, second.members, strict=True)]),
        )
        response.comparison.CopyFrom(comparison)
    return response


def rank_response(results: Sequence[ItemResult], source: Source) -> reward.RankResponse:
    """Places of the scored completions, errors of the others."""
    scores = {index: result.score for index, result in enumerate(results) if isinstance(result, ScoredItem)}
    places, standardised = ranks(scores), z_scores(list(scores.values()))
    z_score = dict(zip(scores, standardised, strict=True)) if standardised else {}
    response = reward.RankResponse(order=best_first(scores), **_origin(source))
    for index, result in enumerate(results):
        if isinstance(result, ScoredItem):
            ranked = reward.Ranked(scored=_scored(result, source), rank=places[index], z_score=z_score.get(index))
            response.results.add(ranked=ranked)
        else:
            response.results.add(error=_error(result))
    return response


def explain_response(item: Rendered, model: RewardModel) -> reward.ExplainResponse:
    """What exactly is read, and where the score is."""
    is_decoder = model.manifest.architecture == "decoder"
    ids = item.token_ids
    return reward.ExplainResponse(
        rendered_text=item.text,
        token_ids=ids,
        tokens=model.renderer.tokens(ids),
        score_position=len(ids) - 1 if is_decoder else 0,
        transformers_score_position=transformers_score_position(ids, model.pad_token_id) if is_decoder else 0,
        truncated_tokens=item.truncated_tokens,
        template_kind=model.manifest.template_kind,
        inferred=inferences(model.inferred),
        provenance=provenance(model),
    )


def info_response(model: RewardModel, max_items: int) -> reward.GetModelInfoResponse:
    """What is loaded."""
    manifest, calibration = model.manifest, model.manifest.calibration
    return reward.GetModelInfoResponse(
        provenance=provenance(model),
        weights_digest=model.digests.weights,
        tokenizer_digest=model.digests.tokenizer,
        template_digest=model.digests.template,
        kind=manifest.architecture,
        template_kind=manifest.template_kind,
        max_tokens=manifest.max_tokens,
        max_items=max_items,
        logit_scale=manifest.logit_scale,
        reference_mean=calibration.mean if calibration else None,
        reference_std=calibration.std if calibration else None,
        inferred=inferences(model.inferred),
        capabilities=sorted(_capabilities(model)),
        members=[
            reward.EnsembleMember(name=each.name, revision=each.revision, label=each.label) for each in model.members
        ],
    )


def _capabilities(model: RewardModel) -> Iterator[str]:
    yield from CAPABILITIES
    if model.members:
        yield from ENSEMBLE_CAPABILITIES
    if model.is_strict:
        yield STRICT


def models_response(models: Iterable[RewardModel], default: str) -> reward.ListModelsResponse:
    """Every model there is."""
    listings = [
        reward.ModelListing(
            name=model.name,
            is_default=model.name == default,
            revision=model.digests.revision,
            kind=model.manifest.architecture,
            member_count=len(model.members),
        )
        for model in models
    ]
    return reward.ListModelsResponse(models=listings)


def inferences(items: Iterable[Inferred]) -> list[common.Inference]:
    """What the folder leaves open."""
    return [common.Inference(missing=item.missing, assumed=item.assumed) for item in items]


def _origin(source: Source) -> dict[str, Any]:
    """The fields that every reply with scores ends with."""
    stages = source.stages
    timings = common.Timings(
        queue_seconds=stages.queue, tokenize_seconds=stages.tokenize, compute_seconds=stages.compute
    )
    return {"provenance": provenance(source.model), "timings": timings}


def _score_result(result: ItemResult, source: Source) -> reward.ScoreResult:
    if isinstance(result, ScoredItem):
        return reward.ScoreResult(scored=_scored(result, source))
    return reward.ScoreResult(error=_error(result))


def _scored(result: ScoredItem, source: Source) -> reward.Scored:
    return reward.Scored(
        score=result.score,
        calibrated=result.calibrated,
        token_count=result.token_count,
        truncated_tokens=result.truncated_tokens,
        std=spread(result.members),
        members=result.members if source.demand.include_members else (),
    )


def _error(result: FailedItem, prefix: str = "") -> reward.ItemError:
    return reward.ItemError(
        code=CODES[result.outcome], message=prefix + result.message, retryable=result.outcome in _RETRYABLE
    )
