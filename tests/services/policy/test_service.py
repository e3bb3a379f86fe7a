"""Servicer and engine thread behind a real socket, with an engine that stops where the test wants it."""

import asyncio
import threading
import time
from contextlib import asynccontextmanager

import grpc
import pytest
from prometheus_client import CollectorRegistry

from benchmarks.protected import make_protection, token_of
from palate.client import (
    AsyncPolicyClient,
    ChannelOptions,
    DeadlineExceeded,
    GeneratedCompletion,
    InternalError,
    Overloaded,
    PolicyVersion,
    SamplingParams,
    TokenChunk,
)
from palate.models.manifest import load_manifest
from palate.models.rendering import Renderer
from palate.models.weights import weights_digest
from palate.v1 import policy_service_pb2_grpc
from services.policy.drawing import BatchLimits, Drawing
from services.policy.engine_fake import FakeEngine
from services.policy.generation import Planner
from services.policy.metrics import PolicyMetrics
from services.policy.requests import Limits
from services.policy.service import Parts, PolicyServicer
from services.policy.staging import Publication, Served
from services.policy.turns import Turns
from services.runtime.admission import Admission
from services.runtime.health import Health
from services.runtime.identity import Guard, Identities
from services.runtime.interceptors import CallInterceptor
from tests.services.policy.poisoned import WORDS, PoisonedEngine
from tests.tiny_models import make_tiny_policy

NAME = "palate.v1.PolicyService"
PATIENCE = 20.0


class Gate:
    """Lets the engine take as many steps as it was given, and tells when it wants another."""

    def __init__(self):
        self._arrived = threading.Semaphore(0)
        self._open = threading.Semaphore(0)

    def __call__(self):
        self._arrived.release()
        assert self._open.acquire(timeout=PATIENCE)

    async def reached(self):
        assert await asyncio.to_thread(self._arrived.acquire, timeout=PATIENCE)

    def let_go(self, steps=1):
        self._open.release(steps)


class WatchedTurns(Turns):
    """Remembers its jobs."""

    def __init__(self, drawing, max_tokens, metrics):
        self.jobs = []
        super().__init__(drawing, max_tokens, metrics)

    def submit(self, job):
        self.jobs.append(job)
        super().submit(job)


@pytest.fixture(scope="module")
def renderer(tmp_path_factory):
    folder = make_tiny_policy(tmp_path_factory.mktemp("policy"), seed=0)
    return Renderer.from_folder(folder, load_manifest(folder).manifest)


@asynccontextmanager
async def serving(renderer, gate, max_rows=4, kind=FakeEngine, identities=None):
    metrics = PolicyMetrics(CollectorRegistry())
    engine = kind(renderer.vocab_size, (renderer.eos_id,), gate)
    weights = engine.initial_weights()
    layout = engine.describe(weights)
    publication = Publication(Served(PolicyVersion(digest=weights_digest(layout)), weights), layout, engine.tensors)
    limits = BatchLimits(max_rows, 10_000)
    drawing = Drawing(engine, publication, limits, metrics)
    parts = Parts(
        model="fake",
        engine=engine,
        renderer=renderer,
        publication=publication,
        planner=Planner(engine, renderer, limits),
        drawing=drawing,
        turns=WatchedTurns(drawing, 10_000, metrics),
        limits=Limits(256, 100, 100, 4 << 20, renderer.vocab_size),
        metrics=metrics,
        max_seconds=60.0,
    )
    health = Health([NAME], ["model"])
    health.set("model", True)
    guard = Guard(None if identities is None else Identities(identities))
    interceptor = CallInterceptor([NAME], guard, Admission(health, 100), metrics.server, 60.0)
    server = grpc.aio.server(interceptors=[interceptor])
    policy_service_pb2_grpc.add_PolicyServiceServicer_to_server(PolicyServicer(parts), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", parts
    finally:
        gate.let_go(10_000)
        await server.stop(0)
        await asyncio.to_thread(parts.turns.close)


def until(condition):
    async def wait():
        while not condition():
            await asyncio.sleep(0.001)

    return asyncio.wait_for(wait(), PATIENCE)


def dropped(parts, reason):
    return parts.metrics.dropped.labels(reason)._value.get()


LONG = SamplingParams(max_new_tokens=200, ignore_eos=True)


async def test_one_identity_takes_neither_the_whole_queue_nor_all_turns(renderer, tmp_path):
    gate, identities = Gate(), make_protection(tmp_path).folder / "identities.yaml"

    def client_of(role):
        return AsyncPolicyClient(target, timeout=60, options=ChannelOptions(token=token_of(role), max_attempts=1))

    async def drawn(client, count, tokens):
        sampling = SamplingParams(max_new_tokens=tokens, ignore_eos=True)
        return [done.prompt_index async for done in client.generate(["a"] * count, sampling=sampling)]

    async with (
        serving(renderer, gate, identities=identities) as (target, parts),
        client_of("generator") as many,
        client_of("trainer") as few,
    ):
        flood = [asyncio.create_task(drawn(many, 100, 20)) for _ in range(4)]
        await until(lambda: len(parts.turns.jobs) == 4)  # 8,000 of 10,000 tokens
        with pytest.raises(Overloaded, match="keeps some for those who have few"):
            await drawn(many, 100, 20)
        late = asyncio.create_task(drawn(few, 100, 10))
        await until(lambda: len(parts.turns.jobs) == 6)
        gate.let_go(20 + 10 * 50)  # a turn of those who are there, then at least half of all places
        assert sorted(await late) == list(range(100))
        assert not any(task.done() for task in flood)
        gate.let_go(10_000)
        assert [sorted(await task) for task in flood] == [list(range(100))] * 4
    assert parts.metrics.queue_tokens._value.get() == 0


async def test_a_cancelled_call_stops_the_engine_within_one_step(renderer):
    gate = Gate()
    async with serving(renderer, gate) as (target, parts), AsyncPolicyClient(target) as client:
        reader = asyncio.create_task(anext(client.generate(["a"] * 9, sampling=LONG)))
        for _ in range(3):
            await gate.reached()
            gate.let_go()
        await gate.reached()  # the fourth step is under way
        job_ended = asyncio.create_task(until(lambda: dropped(parts, "cancelled") == 1))
        reader.cancel()
        await until(lambda: parts.turns.jobs[0].cancelled)
        gate.let_go(1)
        await job_ended
        assert (await client.policy_info()).decode_steps == 4
        assert parts.metrics.queue_tokens._value.get() == 0


async def test_a_deadline_stops_the_engine_within_one_step(renderer):
    gate = Gate()
    async with serving(renderer, gate) as (target, parts), AsyncPolicyClient(target) as client:
        call = client.generate(["a"], sampling=LONG, timeout=0.3)
        with pytest.raises(DeadlineExceeded):
            await anext(call)
        await gate.reached()
        await until(lambda: parts.turns.jobs[0].gone)
        gate.let_go(1)
        await until(lambda: dropped(parts, "expired") + dropped(parts, "cancelled") == 1)
        assert parts.drawing.steps == 1


async def test_a_client_that_does_not_read_delays_nobody(renderer):
    gate = Gate()
    gate.let_go(10_000)
    async with serving(renderer, gate) as (target, _), AsyncPolicyClient(target) as client:
        slow = client.generate(["a"] * 40, sampling=LONG)
        first = await anext(slow)
        begin = time.monotonic()
        other = [c async for c in client.generate(["b"], sampling=SamplingParams(max_new_tokens=4, ignore_eos=True))]
        assert len(other[0].token_ids) == 4
        rest = [completion async for completion in slow]
        assert len({c.prompt_index for c in [first, *rest]}) == 40
        assert time.monotonic() - begin < PATIENCE


async def test_a_commit_waits_for_no_slice_and_no_slice_changes_its_weights(renderer):
    gate = Gate()
    async with serving(renderer, gate, max_rows=1) as (target, parts), AsyncPolicyClient(target) as client:
        sampling = SamplingParams(max_new_tokens=3, ignore_eos=True)
        stream = client.generate(["a"], sampling=sampling, completions_per_prompt=2)
        reader = asyncio.create_task(_all(stream))
        await gate.reached()  # the first slice is in its first step
        before = parts.publication.current
        table = parts.publication.current.weights.flip(0)
        entries = parts.engine.describe(table)
        token = parts.publication.acquire("run", 1)
        version = PolicyVersion("run", 1, 1, weights_digest(entries))
        staged = parts.publication.keep(parts.publication.open(token, version, entries), table)
        parts.publication.commit(token, staged.staging_id, before.version)  # done while the step still runs
        gate.let_go(10_000)
        completions = sorted(await reader, key=lambda completion: completion.completion_index)
        spans = [completion.policy_versions for completion in completions]
        assert [len(span) for span in spans] == [1, 1]
        assert [(span[0].first_token, span[0].version) for span in spans] == [(0, before.version), (0, version)]
        for completion, weights in zip(completions, (before.weights, table), strict=True):
            expected = weights.log_softmax(0)[list(completion.token_ids)].tolist()
            assert list(completion.logprobs) == pytest.approx(expected, abs=1e-6)


async def test_a_pinned_call_keeps_to_its_version_over_all_slices(renderer):
    gate = Gate()
    async with serving(renderer, gate, max_rows=1) as (target, parts), AsyncPolicyClient(target) as client:
        before = parts.publication.current
        sampling = SamplingParams(max_new_tokens=2, ignore_eos=True)
        stream = client.generate(
            ["a"], sampling=sampling, completions_per_prompt=3, required_policy_version=before.version
        )
        reader = asyncio.create_task(_all(stream))
        await gate.reached()
        parts.publication.current = Served(PolicyVersion("run", 1, 1, "d"), before.weights)
        gate.let_go(10_000)
        assert {c.policy_versions[0].version for c in await reader} == {before.version}


@pytest.mark.parametrize("strict", [False, True])
async def test_a_call_gets_all_completions_but_the_one_that_the_engine_fails_on(renderer, caplog, strict):
    gate = Gate()
    gate.let_go(10_000)
    sampling = SamplingParams(max_new_tokens=6, ignore_eos=True)
    prompts, seeds = ["a", "b and more", "c"], [5, 6, 7]
    async with serving(renderer, gate) as (target, _), AsyncPolicyClient(target) as client:
        right = {
            c.prompt_index: c.token_ids for c in await _all(client.generate(prompts, sampling=sampling, seeds=seeds))
        }
    async with serving(renderer, gate, kind=PoisonedEngine) as (target, parts), AsyncPolicyClient(target) as client:
        parts.engine.amid = True
        parts.engine.poisoned = lambda row: len(row.prompt_ids) > 2 and len(row.token_ids) == 2
        beside = asyncio.create_task(_all(client.generate(["a"], sampling=sampling, seeds=[5])))
        drawn, told = {}, "on completion 0 of prompt 0 and on 2 more;" if strict else "on completion 0 of prompt 1;"
        stream = client.generate(prompts, sampling=sampling, seeds=seeds, strict=strict)
        with pytest.raises(InternalError, match=told) as failure:
            await _into(drawn, stream)
        assert drawn == ({} if strict else {0: right[0], 2: right[2]})
        assert ("other bits" in str(failure.value)) is strict
        assert [c.token_ids for c in await beside] == [right[0]]
        assert parts.metrics.completions.labels("failed")._value.get() == 3 - len(drawn)
        assert parts.metrics.queue_tokens._value.get() == 0
        assert WORDS not in caplog.text + str(failure.value)


async def _into(drawn, stream):
    async for completion in stream:
        drawn[completion.prompt_index] = completion.token_ids


async def _all(stream):
    return [completion async for completion in stream]


def published(parts, version, weights, interrupt):
    """Publishes `weights` while a call runs, as the publishing calls do."""
    entries = parts.engine.describe(weights)
    token = parts.publication.acquire(version.run_id, version.incarnation)
    version = PolicyVersion(version.run_id, version.incarnation, version.step, weights_digest(entries))
    staged = parts.publication.keep(parts.publication.open(token, version, entries), weights)
    parts.publication.commit(token, staged.staging_id, None, interrupt=interrupt)
    return parts.publication.current


async def steps_of(gate, count):
    """Lets the engine finish the step it is in, `count` times, each time up to the beginning of the next."""
    for _ in range(count):
        gate.let_go()
        await gate.reached()


async def test_a_pinned_call_is_not_interrupted(renderer):
    gate = Gate()
    async with serving(renderer, gate) as (target, parts), AsyncPolicyClient(target) as client:
        sampling = SamplingParams(max_new_tokens=8, ignore_eos=True)
        first = parts.publication.current
        pinned = asyncio.create_task(
            _all(client.generate(["a"], sampling=sampling, required_policy_version=first.version))
        )
        await gate.reached()
        await steps_of(gate, 2)
        published(parts, PolicyVersion("run", 1, 1), first.weights.flip(0), interrupt=True)
        gate.let_go(10_000)
        (kept,) = await pinned
        assert [(span.first_token, span.version) for span in kept.policy_versions] == [(0, first.version)]


async def test_an_interrupting_commit_holds_from_the_next_step_on(renderer):
    gate = Gate()
    async with serving(renderer, gate) as (target, parts), AsyncPolicyClient(target) as client:
        first = parts.publication.current
        sampling = SamplingParams(max_new_tokens=8, ignore_eos=True)
        reader = asyncio.create_task(_all(client.generate(["a", "b"], sampling=sampling)))
        await gate.reached()
        await steps_of(gate, 2)
        quiet = published(parts, PolicyVersion("run", 1, 1), first.weights.roll(1), interrupt=False)
        await steps_of(gate, 1)
        second = published(parts, PolicyVersion("run", 1, 2), first.weights.flip(0), interrupt=True)
        await steps_of(gate, 2)
        parts.publication.revert(parts.publication.acquire("run", 1), None)  # reverting interrupts nobody
        assert parts.publication.current is quiet
        gate.let_go(10_000)
        for completion in await reader:
            spans = [(span.first_token, span.version) for span in completion.policy_versions]
            assert spans == [(0, first.version), (4, second.version)]  # the fourth step was under way
            of_first, of_second = first.weights.log_softmax(0), second.weights.log_softmax(0)
            expected = [
                (of_first if place < 4 else of_second)[token].item() for place, token in enumerate(completion.token_ids)
            ]
            assert list(completion.logprobs) == pytest.approx(expected, abs=1e-6)


async def test_tokens_are_sent_with_every_step(renderer):
    gate = Gate()
    async with serving(renderer, gate) as (target, _), AsyncPolicyClient(target) as client:
        stream = client.generate_tokens(["a"], sampling=SamplingParams(max_new_tokens=3, ignore_eos=True), seeds=[1])
        chunks = []
        for place in range(3):
            gate.let_go()
            chunks.append(await asyncio.wait_for(anext(stream), PATIENCE))  # before the next step is allowed
            assert (chunks[-1].first_token, len(chunks[-1].token_ids)) == (place, 1)
        (completion,) = [event async for event in stream]
        assert isinstance(completion, GeneratedCompletion)
        assert_joined(chunks, completion)


async def test_a_slow_reader_of_tokens_gets_them_joined(renderer):
    gate = Gate()
    gate.let_go(100_000)
    async with serving(renderer, gate, max_rows=20) as (target, parts), AsyncPolicyClient(target) as client:
        stream = client.generate_tokens(["a"] * 20, sampling=LONG, completions_per_prompt=2)
        first = await anext(stream)
        other = [c async for c in client.generate(["b"], sampling=SamplingParams(max_new_tokens=4, ignore_eos=True))]
        assert len(other[0].token_ids) == 4
        await until(lambda: parts.metrics.queue_tokens._value.get() == 0)  # the engine waited for nobody
        rest = [event async for event in stream]
        completions = [event for event in rest if isinstance(event, GeneratedCompletion)]
        assert len(completions) == 40
        for completion in completions:
            place = (completion.prompt_index, completion.completion_index)
            chunks = [c for c in (first, *rest) if isinstance(c, TokenChunk)]
            assert_joined([c for c in chunks if (c.prompt_index, c.completion_index) == place], completion)


async def test_a_cancelled_stream_of_tokens_stops_the_engine_within_one_step(renderer):
    gate = Gate()
    async with serving(renderer, gate) as (target, parts), AsyncPolicyClient(target) as client:
        stream = client.generate_tokens(["a"] * 9, sampling=LONG)
        for _ in range(3):
            gate.let_go()
            await anext(stream)
        for _ in range(4):
            await gate.reached()  # the fourth step is under way
        await stream.aclose()
        await until(lambda: parts.turns.jobs[0].cancelled)
        gate.let_go()
        await until(lambda: dropped(parts, "cancelled") == 1)
        assert (await client.policy_info()).decode_steps == 4


def assert_joined(chunks, completion):
    """The chunks of a completion, one after the other, are the completion."""
    begin = 0
    for chunk in chunks:
        assert chunk.first_token == begin
        assert len(chunk.token_ids) == len(chunk.logprobs) > 0
        begin += len(chunk.token_ids)
    assert tuple(token for chunk in chunks for token in chunk.token_ids) == completion.token_ids
    assert tuple(logprob for chunk in chunks for logprob in chunk.logprobs) == completion.logprobs
    assert "".join(chunk.text for chunk in chunks) == completion.text
