"""Servicer and engine thread behind a real socket, with an engine that stops where the test wants it."""

import asyncio
import threading
import time
from contextlib import asynccontextmanager

import grpc
import pytest
from prometheus_client import CollectorRegistry

from palate.client import AsyncPolicyClient, DeadlineExceeded, PolicyVersion, SamplingParams
from palate.models.manifest import load_manifest
from palate.models.rendering import Renderer
from palate.models.weights import weights_digest
from palate.v1 import policy_service_pb2_grpc
from services.policy.engine_fake import FakeEngine
from services.policy.generation import Planner
from services.policy.metrics import PolicyMetrics
from services.policy.requests import Limits
from services.policy.service import Parts, PolicyServicer
from services.policy.staging import Publication, Served
from services.policy.turns import Turns
from tests.tiny_models import make_tiny_policy

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

    def __init__(self, max_tokens, metrics):
        self.jobs = []
        super().__init__(max_tokens, metrics)

    def submit(self, job):
        self.jobs.append(job)
        super().submit(job)


@pytest.fixture(scope="module")
def renderer(tmp_path_factory):
    folder = make_tiny_policy(tmp_path_factory.mktemp("policy"), seed=0)
    return Renderer.from_folder(folder, load_manifest(folder).manifest)


@asynccontextmanager
async def serving(renderer, gate, max_rows=4):
    metrics = PolicyMetrics(CollectorRegistry())
    engine = FakeEngine(renderer.vocab_size, (renderer.eos_id,), gate)
    weights = engine.initial_weights()
    layout = engine.describe(weights)
    parts = Parts(
        model="fake",
        engine=engine,
        renderer=renderer,
        publication=Publication(Served(PolicyVersion(digest=weights_digest(layout)), weights), layout),
        planner=Planner(engine, renderer, max_rows, 10_000, metrics),
        turns=WatchedTurns(10_000, metrics),
        limits=Limits(256, 100, 100, 4 << 20, renderer.vocab_size),
        metrics=metrics,
        max_seconds=60.0,
    )
    server = grpc.aio.server()
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
        assert parts.planner.decode_steps == 1


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


async def _all(stream):
    return [completion async for completion in stream]
