"""Results as the contract carries them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from palate.models.foreign import Inferred
from palate.models.rendering import Rendered
from palate.models.score_position import transformers_score_position
from palate.v1 import common_pb2 as common
from palate.v1 import reward_service_pb2 as reward
from services.reward.metrics import ItemOutcome
from services.reward.model import RewardModel
from services.reward.ranking import best_first, preference_probability, ranks, z_scores
from services.reward.scoring import FailedItem, ItemResult, ScoredItem, Stages

_CODES = {
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
"""Optional features that every reward server of this version has."""


def provenance(model: RewardModel) -> reward.Provenance:
    """Which model gives the scores."""
    engine = model.engine
    return reward.Provenance(model=model.name, revision=model.digests.revision, engine=engine.name, dtype=engine.dtype)


def timings(stages: Stages) -> common.Timings:
    """Where the time went."""
    return common.Timings(queue_seconds=stages.queue, tokenize_seconds=stages.tokenize, compute_seconds=stages.compute)


def score_response(results: Sequence[ItemResult], model: RewardModel, stages: Stages) -> reward.ScoreResponse:
    """One result per item."""
    return reward.ScoreResponse(
        results=[_score_result(result) for result in results], provenance=provenance(model), timings=timings(stages)
    )


def stream_response(number: int, result: ItemResult, model: RewardModel, stages: Stages) -> reward.ScoreStreamResponse:
    """The result of one item of a stream."""
    return reward.ScoreStreamResponse(
        id=number, result=_score_result(result), provenance=provenance(model), timings=timings(stages)
    )


def compare_response(results: Sequence[ItemResult], model: RewardModel, stages: Stages) -> reward.CompareResponse:
    """A comparison of the two results; where a side failed, its error, naming the side."""
    response = reward.CompareResponse(provenance=provenance(model), timings=timings(stages))
    first, second = results
    if isinstance(first, FailedItem):
        response.error.CopyFrom(_error(first, "first: "))
    elif isinstance(second, FailedItem):
        response.error.CopyFrom(_error(second, "second: "))
    else:
        difference = first.score - second.score
        response.comparison.difference = difference
        response.comparison.probability = preference_probability(difference, model.manifest.logit_scale)
        response.comparison.first.CopyFrom(_scored(first))
        response.comparison.second.CopyFrom(_scored(second))
    return response


def rank_response(results: Sequence[ItemResult], model: RewardModel, stages: Stages) -> reward.RankResponse:
    """Places of the scored completions, errors of the others."""
    scores = {index: result.score for index, result in enumerate(results) if isinstance(result, ScoredItem)}
    places, standardised = ranks(scores), z_scores(list(scores.values()))
    z_score = dict(zip(scores, standardised, strict=True)) if standardised else {}
    response = reward.RankResponse(order=best_first(scores), provenance=provenance(model), timings=timings(stages))
    for index, result in enumerate(results):
        if isinstance(result, ScoredItem):
            ranked = reward.Ranked(scored=_scored(result), rank=places[index], z_score=z_score.get(index))
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
        capabilities=CAPABILITIES,
    )


def models_response(model: RewardModel) -> reward.ListModelsResponse:
    """The one model there is."""
    listing = reward.ModelListing(
        name=model.name, is_default=True, revision=model.digests.revision, kind=model.manifest.architecture
    )
    return reward.ListModelsResponse(models=[listing])


def inferences(items: Iterable[Inferred]) -> list[common.Inference]:
    """What the folder leaves open."""
    return [common.Inference(missing=item.missing, assumed=item.assumed) for item in items]


def _score_result(result: ItemResult) -> reward.ScoreResult:
    if isinstance(result, ScoredItem):
        return reward.ScoreResult(scored=_scored(result))
    return reward.ScoreResult(error=_error(result))


def _scored(result: ScoredItem) -> reward.Scored:
    return reward.Scored(
        score=result.score,
        calibrated=result.calibrated,
        token_count=result.token_count,
        truncated_tokens=result.truncated_tokens,
    )


def _error(result: FailedItem, prefix: str = "") -> reward.ItemError:
    return reward.ItemError(
        code=_CODES[result.outcome], message=prefix + result.message, retryable=result.outcome in _RETRYABLE
    )
