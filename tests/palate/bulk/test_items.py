"""Requests stay within their limits, and a row that cannot be sent says why."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.bulk.items import Columns, Limits, Pair, in_batches, pair_of
from palate.bulk.rows import Entry
from palate.client import Failed, ItemErrorCode, types
from palate.client.content import content_message
from palate.client.reward_requests import RewardRequests
from palate.v1 import reward_service_pb2 as reward

COLUMNS = Columns("prompt", "completion")
MEBIBYTE = Limits(1000, 2**20)


def pair(row, limits=MEBIBYTE):
    return pair_of(Entry("in.jsonl, line 3", row), COLUMNS, limits)


@given(st.lists(st.tuples(st.text(max_size=60), st.text(max_size=60)), max_size=40), st.integers(1, 9))
def test_batches_hold_what_a_request_may_hold_and_every_row_once(texts, items):
    limits = Limits(items, 150)
    given_rows = [(Entry(str(n)), pair({"prompt": p, "completion": c}, limits)) for n, (p, c) in enumerate(texts)]
    batches = list(in_batches(given_rows, limits))
    assert [row for batch in batches for row in batch] == given_rows
    assert all(0 < len(batch) <= items for batch in batches)
    for batch in batches:
        sent = [each for _, each in batch if isinstance(each, Pair)]
        prompts, completions = [each.prompt for each in sent], [each.completion for each in sent]
        request = RewardRequests("", "").score(prompts, completions)
        request.ClearField("options")
        assert request.ByteSize() == sum(each.size_bytes for each in sent) <= 150
    for one, following in itertools.pairwise(batches):  # no batch is smaller than it needs to be
        more = following[0][1]
        room = 150 - sum(each.size_bytes for _, each in one if isinstance(each, Pair))
        assert len(one) == items or (isinstance(more, Pair) and more.size_bytes > room)


TALK = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "p", "answer": "c"}, "field 'completion' is missing; the row has answer, prompt"),
        ({}, "field 'prompt' is missing; the row has no fields"),
        ({"prompt": None, "completion": "c"}, "field 'prompt' is null; give a text"),
        ({"prompt": 5, "completion": "c"}, "field 'prompt' is no text and no conversation"),
        ({"prompt": [], "completion": "c"}, "field 'prompt' is no text and no conversation"),
        ({"prompt": [*TALK, "hello"], "completion": "c"}, "field 'prompt' is no text and no conversation"),
        ({"prompt": [{"role": 5, "content": "hello"}], "completion": "c"}, "field 'prompt' is no text and no conv"),
        ({"prompt": [{"role": "user", "content": None}], "completion": "c"}, "field 'prompt' is no text and no conv"),
        ({"prompt": TALK, "completion": "ab\ud800"}, "field 'completion' is no Unicode text: character 2 is a lone"),
        ({"prompt": [{"role": "\udfff", "content": ""}], "completion": "c"}, "field 'prompt' is no Unicode text"),
        ({"prompt": "p" * 2**20, "completion": "c"}, "the row has 1048593 bytes, a request holds 1048576 of them"),
    ],
)
def test_a_row_that_cannot_be_sent_says_where_and_why(row, reason):
    failed = pair(row)
    assert isinstance(failed, Failed)
    assert failed.code is ItemErrorCode.INVALID
    assert not failed.retryable
    assert failed.message.startswith(f"in.jsonl, line 3: {reason}")


def test_a_line_that_is_no_row_says_so_too():
    failed = pair_of(Entry("in.jsonl, line 3", problem="not JSON (why)"), COLUMNS, MEBIBYTE)
    assert failed.message == "in.jsonl, line 3: not JSON (why)"


def test_texts_and_conversations_are_sent_with_their_size():
    sent = pair({"prompt": TALK, "completion": "grüße"})
    assert sent.prompt == [types.Message("user", "hello")]
    item = reward.ScoreItem(
        prompt=content_message(sent.prompt, "prompt"), completion=content_message("grüße", "completion")
    )
    assert sent.size_bytes == reward.ScoreRequest(items=[item]).ByteSize()
