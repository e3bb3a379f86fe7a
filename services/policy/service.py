"""The policy service as gRPC serves it: check, queue, convert; no maths."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from palate.client.convert import policy_version_message
from palate.models.rendering import Renderer
from palate.v1 import common_pb2 as common
from palate.v1 import policy_service_pb2 as pb
from services.policy.drawing import Drawing
from services.policy.engine import Engine
from services.policy.generation import Measured, Planner
from services.policy.jobs import Drawn, Failed, Job
from services.policy.mailbox import Piece
from services.policy.metrics import PolicyMetrics
from services.policy.publishing import PublishingServicer
from services.policy.requests import GenerateCall, Limits, generate_call, logprobs_call
from services.policy.staging import Publication, Served
from services.policy.texts import GrowingText, completion_text
from services.policy.turns import Turns
from services.policy.versions import check_pin
from services.runtime.callers import current_caller
from services.runtime.deadlines import deadline_of
from services.runtime.errors import EngineFailed, InvalidRequest

_INSTANCE_ID = uuid.uuid4().hex
"""Names this start of the process."""

_CAPABILITIES = ("text", "token_ids", "top_k", "top_p", "stop", "ignore_eos", "stream_tokens", "compute_logprobs")


@dataclass(frozen=True, slots=True)
class Parts:
    """What the servicer is made of; the composition root puts it together."""

    model: str
    engine: Engine[Any]
    renderer: Renderer
    publication: Publication[Any]
    planner: Planner
    drawing: Drawing
    turns: Turns
    limits: Limits
    metrics: PolicyMetrics
    max_seconds: float


class PolicyServicer(PublishingServicer):
    """Generate, ComputeLogprobs, GetPolicyInfo, and the publishing calls."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts.engine, parts.publication, parts.metrics, parts.max_seconds)
        self._parts = parts

    async def Generate(  # noqa: N802
        self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.GenerateResponse]:
        """Streams every completion as it finishes, its tokens before where they are asked for, then a summary.

        Raises:
            EngineFailed: At the end, after all completions that the engine did not fail on.
        """
        parts, begin = self._parts, time.monotonic()
        deadline = deadline_of(context, parts.max_seconds)
        call = await asyncio.to_thread(generate_call, request, parts.renderer, parts.limits)
        rendered = time.monotonic()
        groups = parts.planner.generate(call, self._pinned(call))
        count = len(call.prompts) * call.completions_per_prompt
        job: Job[Drawn | Failed | Piece] = Job(
            2 * count, deadline, groups=groups, stream=call.stream_tokens, caller=current_caller()
        )
        texts: dict[tuple[int, int], GrowingText] = {}
        failed: list[Failed] = []
        tokens = 0
        _submit(parts.turns, job, context)
        async for event in job.events():
            if isinstance(event, Piece):
                yield pb.GenerateResponse(tokens=self._chunk(call, event, texts))
            elif isinstance(event, Failed):
                parts.metrics.completions.labels("failed").inc()
                failed.append(event)
            else:
                tokens += len(event.token_ids)
                yield pb.GenerateResponse(completion=self._completion(call, event))
        if failed:
            raise EngineFailed(_failure(failed, call))
        summary = pb.GenerateSummary(
            completions=count,
            tokens=tokens,
            timings=_timings(rendered - begin, job),
            tokenizer_digest=parts.renderer.tokenizer_digest,
        )
        yield pb.GenerateResponse(summary=summary)

    async def ComputeLogprobs(  # noqa: N802
        self, request: pb.ComputeLogprobsRequest, context: grpc.aio.ServicerContext
    ) -> pb.ComputeLogprobsResponse:
        """Logprobs of all sequences under one version of the weights."""
        parts, begin = self._parts, time.monotonic()
        deadline = deadline_of(context, parts.max_seconds)
        call = await asyncio.to_thread(logprobs_call, request, parts.renderer, parts.limits)
        rendered = time.monotonic()
        served = parts.publication.current
        check_pin(call.required, served.version)
        slices = parts.planner.logprobs(call, served)
        job: Job[Measured] = Job(len(call.sequences), deadline, slices=slices, caller=current_caller())
        rows: dict[int, tuple[float, ...]] = {}
        _submit(parts.turns, job, context)
        async for measured in job.events():
            rows[measured.index] = measured.logprobs
            parts.metrics.logprob_tokens.inc(len(measured.logprobs))
        return pb.ComputeLogprobsResponse(
            sequences=[pb.SequenceLogprobs(logprobs=rows[index]) for index in range(len(call.sequences))],
            policy_version=policy_version_message(served.version),
            timings=_timings(rendered - begin, job),
        )

    async def GetPolicyInfo(  # noqa: N802
        self, request: pb.GetPolicyInfoRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetPolicyInfoResponse:
        """What is loaded, its limits, and what can be asked of it."""
        parts = self._parts
        strict = ("strict",) if parts.engine.strict else ()
        chat = ("conversation",) if parts.renderer.manifest.template_kind == "chat" else ()
        return pb.GetPolicyInfoResponse(
            model=parts.model,
            policy_version=policy_version_message(parts.publication.current.version),
            tokenizer_digest=parts.renderer.tokenizer_digest,
            template_digest=parts.renderer.template_digest,
            engine=parts.engine.name,
            dtype=parts.engine.dtype,
            max_tokens=parts.limits.max_tokens,
            max_prompts=parts.limits.max_prompts,
            max_completions=parts.limits.max_completions,
            eos_token_id=next(iter(parts.engine.eos_token_ids), 0),
            vocab_size=parts.engine.vocab_size,
            frozen=parts.publication.frozen,
            capabilities=(*_CAPABILITIES, *chat, *parts.publication.capabilities, *strict),
            decode_steps=parts.drawing.steps,
            threads=parts.engine.threads,
            max_batch_rows=parts.planner.limits.max_rows,
            max_batch_tokens=parts.planner.limits.max_tokens,
            instance_id=_INSTANCE_ID,
        )

    def _pinned(self, call: GenerateCall) -> Served[Any] | None:
        """The weights that alone may draw a call; None where it does not say.

        Raises:
            WrongPin: It requires others than are served.
            InvalidRequest: It wants the same bits always, and the engine cannot promise that.
        """
        if call.strict and not self._parts.engine.strict:
            raise InvalidRequest(f"engine {self._parts.engine.name} does not support strict; leave it out")
        current = self._parts.publication.current
        check_pin(call.required, current.version)
        return None if call.required is None else current

    def _chunk(self, call: GenerateCall, piece: Piece, texts: dict[tuple[int, int], GrowingText]) -> pb.TokenChunk:
        """A piece as it is sent; `texts` holds the text of every completion that has begun and not ended."""
        renderer, prompt = self._parts.renderer, call.prompts[piece.prompt_index]
        text = texts.pop(piece.completion, None) or GrowingText(renderer, prompt.ids)
        if not piece.last:
            texts[piece.completion] = text
        return pb.TokenChunk(
            prompt_index=piece.prompt_index,
            completion_index=piece.completion_index,
            first_token=piece.first_token,
            token_ids=piece.token_ids,
            logprobs=piece.logprobs,
            text=text.add(piece.token_ids, piece.last),
        )

    def _completion(self, call: GenerateCall, drawn: Drawn) -> pb.Completion:
        prompt = call.prompts[drawn.prompt_index]
        self._parts.metrics.tokens.inc(len(drawn.token_ids))
        self._parts.metrics.completions.labels("stop" if drawn.stopped else "length").inc()
        spans = [
            pb.VersionSpan(first_token=span.first_token, version=policy_version_message(span.version))
            for span in drawn.versions
        ]
        return pb.Completion(
            prompt_index=drawn.prompt_index,
            completion_index=drawn.completion_index,
            token_ids=drawn.token_ids,
            text=completion_text(self._parts.renderer, prompt.ids, drawn.token_ids),
            logprobs=drawn.logprobs,
            finish_reason=pb.FINISH_REASON_STOP if drawn.stopped else pb.FINISH_REASON_LENGTH,
            policy_versions=spans,
            seed=prompt.seed,
            prompt_token_ids=prompt.ids,
        )


def _submit(turns: Turns, job: Job[Any], context: grpc.aio.ServicerContext) -> None:
    """Queues the job, and tells it when its call is over, whichever way that happens."""
    turns.submit(job)
    # A cancelled call does not unwind a generator that stands at its yield; the callback comes at once.
    context.add_done_callback(lambda _: job.cancel())


def _failure(failed: Sequence[Failed], call: GenerateCall) -> str:
    """What was not sent, why, and what to do."""
    first = failed[0]
    where = f"completion {first.completion_index} of prompt {first.prompt_index}"
    if len(failed) > 1:
        where += f" and on {len(failed) - 1} more"
    remedy = "ask again for what is missing; if it fails again, the server's log has the cause"
    if call.strict:
        remedy = "a strict batch fails as a whole, because parts of it could draw other bits; " + remedy
    return f"the engine failed ({first.cause}) on {where}; all others were sent: {remedy}"


def _timings(tokenize_seconds: float, job: Job[Any]) -> common.Timings:
    return common.Timings(
        queue_seconds=job.timing.queue_seconds,
        tokenize_seconds=tokenize_seconds,
        compute_seconds=job.timing.compute_seconds,
    )
