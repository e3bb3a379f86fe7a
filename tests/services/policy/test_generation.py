import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from palate.client import PolicyVersion, VersionSpan
from palate.models.manifest import load_manifest
from palate.models.rendering import Renderer
from services.policy.engine_fake import FakeEngine
from services.policy.generation import Planner, _groups
from services.policy.metrics import PolicyMetrics
from services.policy.requests import GenerateCall, LogprobsCall, Prompt
from services.policy.sampling import Sampling
from services.policy.staging import Served
from tests.tiny_models import make_tiny_policy


@pytest.fixture(scope="module")
def renderer(tmp_path_factory):
    folder = make_tiny_policy(tmp_path_factory.mktemp("policy"), seed=0)
    return Renderer.from_folder(folder, load_manifest(folder).manifest)


@pytest.fixture
def planner(renderer):
    engine = FakeEngine(renderer.vocab_size, (renderer.eos_id,))
    return Planner(engine, renderer, 4, 100, PolicyMetrics(CollectorRegistry()))


@pytest.fixture
def served(renderer):
    return Served(PolicyVersion("run", 1, 2, "d"), FakeEngine(renderer.vocab_size, ()).initial_weights())


def call_of(lengths, completions, new=10):
    prompts = tuple(Prompt(tuple([1] * length), seed) for seed, length in enumerate(lengths))
    return GenerateCall(prompts, completions, Sampling(1.0, 0, 1.0, new, True), (), None)


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40).map(sorted),
    max_rows=st.integers(1, 8),
    max_tokens=st.integers(1, 200),
)
def test_groups_hold_every_place_once_and_keep_to_their_bounds(lengths, max_rows, max_tokens):
    groups = _groups(lengths, max_rows, max_tokens)
    assert [place for group in groups for place in group] == list(range(len(lengths)))
    for group in groups:
        padded = len(group) * max(lengths[place] for place in group)
        assert len(group) == 1 or (len(group) <= max_rows and padded <= max_tokens)
    for group, following in itertools.pairwise(groups):
        grown = (len(group) + 1) * lengths[following[0]]
        assert len(group) == max_rows or grown > max_tokens  # nothing is cut smaller than it must be


def test_every_completion_is_drawn_once_with_its_version(planner, served):
    slices = planner.generate(call_of([9, 2, 5], 3), lambda: lambda: served)
    assert sum(part.tokens for part in slices) == 3 * 3 * 10
    drawn = [event for part in slices for events in part.steps() for event in events]
    assert sorted((d.prompt_index, d.completion_index) for d in drawn) == [(p, c) for p in range(3) for c in range(3)]
    assert {d.versions for d in drawn} == {(VersionSpan(0, served.version),)}
    assert len({d.token_ids for d in drawn}) == 9
    assert planner.decode_steps == 10 * len(slices)


def test_what_is_drawn_does_not_depend_on_how_it_is_cut(renderer, served):
    def tokens(max_rows):
        engine = FakeEngine(renderer.vocab_size, (renderer.eos_id,))
        planner = Planner(engine, renderer, max_rows, 10_000, PolicyMetrics(CollectorRegistry()))
        slices = planner.generate(call_of([9, 2, 5], 3), lambda: lambda: served)
        drawn = [event for part in slices for events in part.steps() for event in events]
        return {(d.prompt_index, d.completion_index): d.token_ids for d in drawn}

    assert tokens(1) == tokens(4) == tokens(64)


def test_weights_are_asked_for_when_a_slice_starts(planner, served):
    asked = []
    slices = planner.generate(call_of([5] * 8, 1), lambda: asked.append(1) or (lambda: served))
    assert (len(slices), asked) == (2, [])
    steps = slices[0].steps()
    next(steps), next(steps)
    assert asked == [1]


def test_logprobs_come_back_under_their_index(planner, served):
    sequences = tuple(
        ((1,) * prompt, tuple(range(4, 4 + count))) for prompt, count in ((30, 2), (2, 9), (50, 40), (2, 1))
    )
    slices = planner.logprobs(LogprobsCall(sequences, 0.5, None), served)
    assert sum(part.tokens for part in slices) == sum(len(p) + len(c) for p, c in sequences)
    measured = {m.index: m.logprobs for part in slices for events in part.steps() for m in events}
    expected = (served.weights / 0.5).log_softmax(-1)
    for index, (_, completion) in enumerate(sequences):
        assert torch.allclose(torch.tensor(measured[index]), expected[list(completion)])
