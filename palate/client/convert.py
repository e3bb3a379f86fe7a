"""Replies as values; shared by the blocking and the asynchronous clients."""

from __future__ import annotations

from collections.abc import Iterable

from palate.client import types as t
from palate.v1 import admin_service_pb2 as admin
from palate.v1 import common_pb2 as common
from palate.v1 import policy_service_pb2 as policy
from palate.v1 import reward_service_pb2 as reward


def provenance(message: reward.Provenance) -> t.Provenance:
    """Which model gave a score."""
    return t.Provenance(message.model, message.revision, message.engine, message.dtype)


def timings(message: common.Timings) -> t.Timings:
    """Where the time went."""
    return t.Timings(message.queue_seconds, message.tokenize_seconds, message.compute_seconds)


def scored(message: reward.Scored) -> t.Scored:
    """A score."""
    return t.Scored(
        score=message.score,
        calibrated=message.calibrated if message.HasField("calibrated") else None,
        token_count=message.token_count,
        truncated_tokens=message.truncated_tokens,
        std=message.std if message.HasField("std") else None,
        members=tuple(message.members),
    )


def failed(message: reward.ItemError) -> t.Failed:
    """Why an item has no score; a code this client does not know reads as FAILED."""
    name = reward.ItemErrorCode.Name(message.code) if message.code in reward.ItemErrorCode.values() else ""
    known = name.removeprefix("ITEM_ERROR_CODE_")
    code = t.ItemErrorCode(known) if known in t.ItemErrorCode.__members__ else t.ItemErrorCode.FAILED
    retry_after = message.retry_after.ToTimedelta().total_seconds() if message.HasField("retry_after") else None
    return t.Failed(code, message.message, message.retryable, retry_after)


def score_result(message: reward.ScoreResult) -> t.ScoreResult:
    """A score or an error; a reply with neither is an error."""
    if message.WhichOneof("outcome") == "scored":
        return scored(message.scored)
    return failed(message.error)


def score_reply(message: reward.ScoreResponse) -> t.ScoreReply:
    """Results in the order of the items."""
    results = tuple(score_result(result) for result in message.results)
    return t.ScoreReply(results, provenance(message.provenance), timings(message.timings))


def comparison(message: reward.CompareResponse) -> t.Comparison | t.Failed:
    """A comparison, or why there is none."""
    if message.WhichOneof("outcome") != "comparison":
        return failed(message.error)
    inner = message.comparison
    return t.Comparison(
        difference=inner.difference,
        probability=inner.probability,
        first=scored(inner.first),
        second=scored(inner.second),
        provenance=provenance(message.provenance),
        difference_std=inner.difference_std if inner.HasField("difference_std") else None,
    )


def ranking(message: reward.RankResponse) -> t.Ranking:
    """Places in the order of the completions."""
    results = tuple(_rank_result(result) for result in message.results)
    return t.Ranking(results, tuple(message.order), provenance(message.provenance), timings(message.timings))


def _rank_result(message: reward.RankResult) -> t.Ranked | t.Failed:
    if message.WhichOneof("outcome") != "ranked":
        return failed(message.error)
    inner = message.ranked
    return t.Ranked(scored(inner.scored), inner.rank, inner.z_score if inner.HasField("z_score") else None)


def inferred(messages: Iterable[common.Inference]) -> tuple[t.Inferred, ...]:
    """What a folder left open."""
    return tuple(t.Inferred(message.missing, message.assumed) for message in messages)


def explanation(message: reward.ExplainResponse) -> t.Explanation:
    """What exactly is scored."""
    return t.Explanation(
        rendered_text=message.rendered_text,
        token_ids=tuple(message.token_ids),
        tokens=tuple(message.tokens),
        score_position=message.score_position,
        transformers_score_position=message.transformers_score_position,
        truncated_tokens=message.truncated_tokens,
        template_kind=message.template_kind,
        inferred=inferred(message.inferred),
        provenance=provenance(message.provenance),
    )


def model_info(message: reward.GetModelInfoResponse) -> t.ModelInfo:
    """What a reward service has loaded."""
    return t.ModelInfo(
        provenance=provenance(message.provenance),
        weights_digest=message.weights_digest,
        tokenizer_digest=message.tokenizer_digest,
        template_digest=message.template_digest,
        kind=message.kind,
        template_kind=message.template_kind,
        max_tokens=message.max_tokens,
        max_items=message.max_items,
        logit_scale=message.logit_scale,
        reference_mean=message.reference_mean if message.HasField("reference_mean") else None,
        reference_std=message.reference_std if message.HasField("reference_std") else None,
        inferred=inferred(message.inferred),
        capabilities=tuple(message.capabilities),
        members=tuple(_member(member) for member in message.members),
    )


def _member(message: reward.EnsembleMember) -> t.EnsembleMember:
    return t.EnsembleMember(message.name, message.revision, message.label if message.HasField("label") else None)


def model_listings(message: reward.ListModelsResponse) -> tuple[t.ModelListing, ...]:
    """What a reward service has."""
    return tuple(
        t.ModelListing(each.name, each.is_default, each.revision, each.kind, each.member_count)
        for each in message.models
    )


def loaded_model(message: admin.LoadModelResponse) -> t.LoadedModel:
    """What is served now."""
    return t.LoadedModel(provenance(message.provenance), message.previous_revision or None)


def policy_version(message: policy.PolicyVersion) -> t.PolicyVersion:
    """Which weights."""
    return t.PolicyVersion(message.run_id, message.incarnation, message.step, message.digest)


def policy_version_message(value: t.PolicyVersion) -> policy.PolicyVersion:
    """Which weights, for a request, and for the replies of servers."""
    return policy.PolicyVersion(
        run_id=value.run_id, incarnation=value.incarnation, step=value.step, digest=value.digest
    )


def completion(message: policy.Completion) -> t.GeneratedCompletion:
    """A finished completion."""
    spans = tuple(t.VersionSpan(span.first_token, policy_version(span.version)) for span in message.policy_versions)
    return t.GeneratedCompletion(
        prompt_index=message.prompt_index,
        completion_index=message.completion_index,
        token_ids=tuple(message.token_ids),
        text=message.text,
        logprobs=tuple(message.logprobs),
        finish_reason=t.FinishReason(policy.FinishReason.Name(message.finish_reason).removeprefix("FINISH_REASON_")),
        policy_versions=spans,
        seed=message.seed,
        prompt_token_ids=tuple(message.prompt_token_ids),
    )


def token_chunk(message: policy.TokenChunk) -> t.TokenChunk:
    """Tokens that have just been drawn."""
    return t.TokenChunk(
        prompt_index=message.prompt_index,
        completion_index=message.completion_index,
        first_token=message.first_token,
        token_ids=tuple(message.token_ids),
        logprobs=tuple(message.logprobs),
        text=message.text,
    )


def finished(message: policy.GenerateResponse) -> t.GeneratedCompletion | None:
    """A completion; None where the message holds something else."""
    return completion(message.completion) if message.WhichOneof("event") == "completion" else None


def drawn(message: policy.GenerateResponse) -> t.TokenChunk | t.GeneratedCompletion | None:
    """Tokens or a completion; None where the message holds something else."""
    return token_chunk(message.tokens) if message.WhichOneof("event") == "tokens" else finished(message)


def logprobs_reply(message: policy.ComputeLogprobsResponse) -> t.LogprobsReply:
    """Logprobs in the order of the sequences."""
    rows = tuple(tuple(sequence.logprobs) for sequence in message.sequences)
    return t.LogprobsReply(rows, policy_version(message.policy_version), timings(message.timings))


def policy_info(message: policy.GetPolicyInfoResponse) -> t.PolicyInfo:
    """What a policy service has loaded."""
    return t.PolicyInfo(
        model=message.model,
        policy_version=policy_version(message.policy_version),
        tokenizer_digest=message.tokenizer_digest,
        template_digest=message.template_digest,
        engine=message.engine,
        dtype=message.dtype,
        max_tokens=message.max_tokens,
        max_prompts=message.max_prompts,
        max_completions=message.max_completions,
        eos_token_id=message.eos_token_id,
        vocab_size=message.vocab_size,
        frozen=message.frozen,
        capabilities=tuple(message.capabilities),
        decode_steps=message.decode_steps,
        threads=message.threads,
        max_batch_rows=message.max_batch_rows,
        max_batch_tokens=message.max_batch_tokens,
        instance_id=message.instance_id,
    )


def staged(message: policy.StageWeightsResponse) -> t.Staged:
    """Where the weights are kept aside."""
    return t.Staged(message.staging_id, message.digest, message.lease.ToTimedelta().total_seconds())
