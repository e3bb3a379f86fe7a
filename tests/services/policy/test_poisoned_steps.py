"""A step that raises: who is to blame fails alone, all others end as if nothing had happened."""

import asyncio
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.policy.engine import Row
from services.policy.engine_transformers import TransformersEngine
from services.policy.jobs import Drawn, Failed, Group, Job, Wanted
from services.policy.mailbox import Piece
from services.policy.sampling import Sampling
from tests.services.policy.poisoned import WORDS, PoisonedEngine
from tests.services.policy.test_drawing import ACTIONS, VOCAB, Desk, alone, check, play
from tests.tiny_models import make_tiny_policy


@pytest.fixture(autouse=True)
async def in_a_loop():
    """A job's mailbox belongs to an event loop."""
    asyncio.get_running_loop()


def poisoned_desk(rows=4, poison=None, *, amid=True, **engine):
    """A desk; `poison` is by the rows' keys after how many tokens they make a step fail."""
    poison = poison or {}
    desk = Desk(rows, engine=PoisonedEngine(VOCAB, ()), amid=amid, **engine)
    desk.engine.poisoned = lambda row: row.key in poison and len(row.token_ids) >= poison[row.key]
    return desk


def failed(desk, job):
    return {event.prompt_index: event for event in desk.events[job] if isinstance(event, Failed)}


def pieces(desk, job, place):
    told = [event for event in desk.events[job] if isinstance(event, Piece) and event.prompt_index == place]
    return [token for piece in told for token in piece.token_ids]


def rows_of(job):
    return {place: one.row for place, one in enumerate(one for group in job.groups for one in group.wanted)}


@pytest.mark.parametrize("amid", [False, True])
@pytest.mark.parametrize("after", [0, 3])
async def test_one_poisoned_row_among_64_fails_alone_and_soon(amid, after):
    desk = poisoned_desk(64, {37: after}, amid=amid)
    job = desk.submit(*[9] * 64, stream=True)
    asked, begin = rows_of(job), desk.publication.current
    desk.rounds()
    assert failed(desk, job) == {37: Failed(37, 0, "ArithmeticError")}
    assert pieces(desk, job, 37) == alone(asked[37], begin.weights)[:after]
    for place, drawn in desk.drawn(job).items():
        assert list(drawn.token_ids) == alone(asked[place], begin.weights) == pieces(desk, job, place)
    assert len(desk.drawn(job)) == 63
    assert desk.engine.failures == 7  # of 64, 32, 16, 8, 4, 2 and 1 rows
    assert (job.running, job.open_tokens) == (0, 0)


async def test_where_every_row_fails_all_have_ended_after_two_steps_each(caplog):
    desk = poisoned_desk(16, dict.fromkeys(range(16), 2))
    jobs = [desk.submit(*[5] * 8, stream=True) for _ in range(2)]
    desk.rounds()
    assert [len(failed(desk, job)) for job in jobs] == [8, 8]
    assert desk.engine.failures == 2 * 16 - 1
    assert not desk.drawing._lanes
    assert "the engine failed on a step of 16 completions" in caplog.text
    assert WORDS not in caplog.text  # messages of exceptions may quote what users sent
    after = desk.submit(5)
    desk.rounds()
    assert desk.lengths(after) == [5]


async def test_a_batch_that_is_too_large_goes_on_in_parts_and_nobody_fails():
    desk = poisoned_desk(8, bears=3)
    job = desk.submit(*[6] * 20, stream=True)
    asked, begin = rows_of(job), desk.publication.current
    desk.rounds()
    check(desk, job, asked, False, begin)


async def test_rows_that_arrive_join_no_half():
    desk = poisoned_desk(8, {0: 0})
    desk.submit(9, 9)
    desk.round()
    late = desk.submit(9)
    desk.round()
    assert [(lane.closed, len(lane)) for lane in desk.drawing._lanes] == [(True, 1), (False, 1)]
    desk.rounds()
    assert desk.lengths(late) == [9]


@pytest.mark.parametrize("strict", [False, True])
async def test_a_batch_apart_is_halved_unless_its_call_is_strict(strict):
    desk = poisoned_desk(4, {1: 2})
    job, other = desk.submit(6, 6, 6, apart=True, strict=strict), desk.submit(6)
    desk.rounds()
    assert set(failed(desk, job)) == ({0, 1, 2} if strict else {1})
    assert set(desk.drawn(job)) == (set() if strict else {0, 2})
    assert (desk.lengths(other), job.open_tokens) == ([6], 0)


async def test_a_text_rule_that_raises_fails_its_completion_and_no_other():
    desk = poisoned_desk(4)
    fine, job = desk.submit(5, stream=True), desk.submit(5, 5, stream=True, ends_text=lambda ids: False)
    asked, begin = rows_of(fine), desk.publication.current
    (bad, *_) = job.groups
    rule = replace(bad.wanted[0], ends_text=lambda ids: len(ids) == 2 and 1 / 0)
    job.groups[0] = replace(bad, wanted=(rule,))
    desk.rounds()
    assert failed(desk, job) == {0: Failed(0, 0, "ZeroDivisionError")}
    assert desk.lengths(job) == [5]
    assert len(pieces(desk, job, 0)) == 1
    check(desk, fine, asked, False, begin)


async def test_halves_follow_a_commit_that_interrupts_and_are_freed_by_who_leaves():
    desk = poisoned_desk(4, {0: 1})
    job, leaving = desk.submit(6, 6, stream=True), desk.submit(6, 6)
    desk.rounds(2)  # the second fails; its halves have not begun
    assert [len(lane) for lane in desk.drawing._lanes] == [2, 2]
    desk.cancel(leaving)
    desk.publication.commit(interrupt=True)
    desk.rounds()
    assert set(failed(desk, job)) == {0}
    spans = [(span.first_token, span.version.step) for span in desk.drawn(job)[1].versions]
    assert spans == [(0, 0), (1, 1)]
    assert not desk.drawing._lanes


async def test_a_batch_that_does_not_let_its_rows_go_is_left_behind(caplog):
    desk = poisoned_desk(4)
    job = desk.submit(3, 3)
    desk.round()
    batch = desk.drawing._lanes[0]._batch
    batch.step = batch.leave = lambda *_: 1 / 0
    desk.rounds()
    assert desk.lengths(job) == [3, 3]
    assert "does not let its rows go" in caplog.text


async def test_with_a_real_model_whose_last_layer_raises_the_others_draw_their_tokens(tmp_path):
    engine, model = TransformersEngine.load(make_tiny_policy(tmp_path, seed=0), "float32")
    rows = [Row(key, (1, *range(4, 5 + key)), key, Sampling(1.0, 0, 1.0, 20, True)) for key in range(8)]
    right = {}
    for row in rows:
        batch = engine.batch(model)
        batch.join([row])
        right[row.key] = [batch.step().tokens[0].token_id for _ in range(20)]
    prompt_of_6 = torch.tensor(rows[6].prompt_ids)
    shapes = Counter()

    def poison(module, args, given):
        """Whether to raise: where row 6 is read, and once where four rows draw; earlier layers have written by then."""
        ids = given["input_ids"]
        shapes[ids.shape] += 1
        reads_6 = any(torch.equal(line[-len(prompt_of_6) :], prompt_of_6) for line in ids)
        model.raises = reads_6 or (ids.shape == (4, 1) and shapes[ids.shape] == 10)

    def last_layer(module, args):
        if model.raises:
            raise ArithmeticError

    model.register_forward_pre_hook(poison, with_kwargs=True)
    model.model.layers[-1].register_forward_pre_hook(last_layer)
    desk = Desk(8)
    desk.drawing._engine = engine
    desk.publication.current = replace(desk.publication.current, weights=model)
    job = Job(100, math.inf, groups=[Group((Wanted(row.key, 0, row),)) for row in rows], stream=True)
    desk.jobs.append(job)
    desk.events[job] = []
    desk.drawing.add(job)
    desk.rounds()
    assert set(failed(desk, job)) == {6}
    assert shapes[torch.Size([4, 1])] == 10
    assert {place: list(drawn.token_ids) for place, drawn in desk.drawn(job).items()} == {
        key: ids for key, ids in right.items() if key != 6
    }
    assert all(pieces(desk, job, place) == right[place] for place in desk.drawn(job))


@settings(max_examples=120, deadline=None)
@given(
    actions=st.lists(ACTIONS, max_size=14),
    rows=st.integers(1, 6),
    poison=st.dictionaries(st.integers(0, 30), st.integers(0, 11), max_size=4),
    bears=st.sampled_from([1, 3, 100]),
    amid=st.booleans(),
    one_batch=st.booleans(),
    joins=st.booleans(),
)
def test_other_completions_come_as_if_nothing_had_happened(actions, rows, poison, bears, amid, one_batch, joins):
    how = {"bears": bears, "amid": amid, "one_batch": one_batch and joins, "joins": joins}
    asyncio.run(_any_order(actions, rows, poison, how))


async def _any_order(actions, rows, poison, how):
    desk = poisoned_desk(rows, poison, **how)
    begin = desk.publication.current
    for job, (wanted, pinned) in play(actions, desk).items():
        bad = {place for place, row in wanted.items() if poison.get(row.key, 99) < row.sampling.max_new_tokens}
        assert set(failed(desk, job)) == bad
        told = Counter(e.prompt_index for e in desk.events[job] if isinstance(e, (Drawn, Failed)))
        assert told == Counter(range(len(wanted)))
        for place in bad:
            assert len(pieces(desk, job, place)) == poison[wanted[place].key]
        check(desk, job, {place: row for place, row in wanted.items() if place not in bad}, pinned, begin)
    assert not desk.drawing._lanes
    assert not desk.drawing._jobs
