import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from palate.client import PolicyVersion
from palate.models.manifest import load_manifest
from palate.models.rendering import Renderer
from services.policy.drawing import BatchLimits
from services.policy.engine_fake import FakeEngine
from services.policy.generation import Planner, _groups
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
    return Planner(engine, renderer, BatchLimits(4, 100))


@pytest.fixture
def served(renderer):
    return Served(PolicyVersion("run", 1, 2, "d"), FakeEngine(renderer.vocab_size, ()).initial_weights())


def call_of(lengths, completions, new=10, strict=False):
    prompts = tuple(Prompt(tuple([1] * length), seed) for seed, length in enumerate(lengths))
    return GenerateCall(prompts, completions, Sampling(1.0, 0, 1.0, new, True), (), None, False, strict)


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40).map(sorted),
    max_rows=st.integers(1, 8),
    max_tokens=st.integers(1, 200),
)
def test_groups_hold_every_place_once_and_keep_to_their_bounds(lengths, max_rows, max_tokens):
    groups = _groups(lengths, BatchLimits(max_rows, max_tokens))
    assert [place for group in groups for place in group] == list(range(len(lengths)))
    for group in groups:
        padded = len(group) * max(lengths[place] for place in group)
        assert len(group) == 1 or (len(group) <= max_rows and padded <= max_tokens)
    for group, following in itertools.pairwise(groups):
        grown = (len(group) + 1) * lengths[following[0]]
        assert len(group) == max_rows or grown > max_tokens  # nothing is cut smaller than it must be


def places(groups):
    return [[(one.prompt_index, one.completion_index) for one in group.wanted] for group in groups]


def test_every_completion_is_wanted_once_short_prompts_first(planner, served):
    groups = planner.generate(call_of([9, 2, 5], 2), served)
    assert places(groups) == [[(1, 0)], [(1, 1)], [(2, 0)], [(2, 1)], [(0, 0)], [(0, 1)]]
    assert {(group.apart, group.pinned) for group in groups} == {(False, served)}
    rows = [one.row for group in groups for one in group.wanted]
    assert len({row.key for row in rows}) == len({row.seed for row in rows}) == 6
    more = planner.generate(call_of([9], 1), None)
    assert more[0].wanted[0].row.key not in {row.key for row in rows}


def test_a_strict_call_is_cut_into_batches_of_its_own_by_the_limits_alone(planner):
    groups = planner.generate(call_of([9, 2, 5], 3, strict=True), None)
    assert [len(group.wanted) for group in groups] == [4, 4, 1]
    assert all(group.apart and group.strict for group in groups)
    alone = planner.generate(call_of([9, 2, 5], 3), None)
    assert list(itertools.chain(*places(groups))) == list(itertools.chain(*places(alone)))


def test_where_rows_cannot_join_every_call_is_drawn_apart(planner):
    planner._engine.joins = False
    groups = planner.generate(call_of([9] * 5, 1), None)
    assert [(group.apart, group.strict) for group in groups] == [(True, False)] * 2


def test_logprobs_come_back_under_their_index(planner, served):
    sequences = tuple(
        ((1,) * prompt, tuple(range(4, 4 + count))) for prompt, count in ((30, 2), (2, 9), (50, 40), (2, 1))
    )
    slices = planner.logprobs(LogprobsCall(sequences, 0.5, None), served)
    assert sum(part.tokens for part in slices) == sum(len(p) + len(c) for p, c in sequences)
    measured = {m.index: m.logprobs for part in slices for m in part.run()}
    expected = (served.weights / 0.5).log_softmax(-1)
    for index, (_, completion) in enumerate(sequences):
        assert torch.allclose(torch.tensor(measured[index]), expected[list(completion)])
