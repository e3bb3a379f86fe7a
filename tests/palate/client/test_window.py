"""Bookkeeping of a stream that is opened again, on made-up courses of events."""

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from palate.client import (
    Cancelled,
    ChannelOptions,
    FailedPrecondition,
    InternalError,
    Overloaded,
    Unavailable,
    stream_state,
)
from palate.client.stream_state import StreamOptions, StreamState
from palate.client.window import Patience, Window
from palate.v1 import reward_service_pb2 as reward

MAX_ITEMS, MAX_BYTES, MAX_BREAKS = 4, 100, 3


class Stream(RuleBasedStateMachine):
    """A caller, connections that break at will, and servers that answer in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.window: Window[str] = Window(MAX_ITEMS, MAX_BYTES, MAX_BREAKS)
        self.sizes: dict[int, int] = {}
        self.closed: list[int] = []
        self.breaks: dict[int, int] = {}

    @precondition(lambda self: self.window.has_room)
    @rule(size=st.integers(0, 2 * MAX_BYTES))
    def send(self, size):
        index = len(self.sizes)
        self.sizes[index], self.breaks[index] = size, 0
        self.window.add(index, f"item {index}", size)

    @precondition(lambda self: len(self.window) > 0)
    @rule(data=st.data())
    def answer(self, data):
        index = data.draw(st.sampled_from(self.window.indices))
        assert self.window.answer(index)
        self.closed.append(index)

    @rule(index=st.integers(0, 50))
    def answer_again(self, index):
        if index not in self.window.indices:
            assert not self.window.answer(index)

    @rule()
    def break_connection(self):
        for index in self.window.indices:
            self.breaks[index] += 1
        given_up = self.window.count_break()
        assert given_up == [i for i in self.sizes if self.breaks[i] == MAX_BREAKS and i not in self.closed]
        self.closed += given_up

    @invariant()
    def every_item_is_out_or_closed_once(self):
        assert sorted([*self.closed, *self.window.indices]) == list(self.sizes)
        assert self.window.items == [f"item {index}" for index in self.window.indices]
        assert list(self.window.indices) == sorted(self.window.indices)

    @invariant()
    def what_is_out_is_bounded(self):
        sizes = [self.sizes[index] for index in self.window.indices]
        assert len(sizes) <= MAX_ITEMS
        assert sum(sizes[:-1]) < MAX_BYTES or len(sizes) <= 1
        assert self.window.has_room == (not sizes or (len(sizes) < MAX_ITEMS and sum(sizes) < MAX_BYTES))


TestStream = Stream.TestCase


def unavailable(retry_after=None):
    return Unavailable(grpc.StatusCode.UNAVAILABLE, "gone", "", retry_after)


@given(st.lists(st.floats(0.0, 20.0), max_size=30))
def test_patience_ends_when_no_answer_came_for_its_time(gaps):
    patience, now, limit = Patience(30.0), 100.0, 130.0
    patience.answered()
    assert 0.0 < patience.delay(unavailable(), now) <= 6.0
    for gap in gaps:
        now += gap
        if now <= limit:
            assert 0.0 < patience.delay(unavailable(), now) <= 6.0
        else:
            with pytest.raises(Unavailable):
                patience.delay(unavailable(), now)
    patience.answered()
    assert patience.delay(unavailable(), now + 1000.0) < 0.2


def test_a_server_that_never_answered_is_given_up_early_unless_it_says_when():
    patience = Patience(60.0)
    patience.delay(unavailable(), 0.0)
    with pytest.raises(Unavailable):
        patience.delay(unavailable(), 6.0)
    assert Patience(60.0).delay(unavailable(retry_after=9.5), 0.0) == 9.5


def test_what_another_connection_does_not_help_is_raised_at_once():
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(FailedPrecondition):
        Patience(60.0).delay(FailedPrecondition(grpc.StatusCode.FAILED_PRECONDITION, "pin", "", None), 0.0)
    with pytest.raises(Overloaded):  # a message over the server's limit has this status too, and no advice
        Patience(60.0).delay(Overloaded(code, "too large", "", None), 0.0)
    assert Patience(60.0).delay(Overloaded(code, "full", "", 0.3), 0.0) == 0.3
    cut = Cancelled(grpc.StatusCode.CANCELLED, "the server's time to drain was over", "", None)
    assert Patience(60.0).delay(cut, 0.0) > 0.0


def state(**options):
    given = {"timeout": None, "window": 4, "patience": 60.0} | options
    return StreamState("server:1", reward.ScoreOptions(), StreamOptions(**given), ChannelOptions())


def reply(index, revision="r1"):
    scored = reward.ScoreResult(scored={"score": float(index)})
    return reward.ScoreStreamResponse(id=index, result=scored, provenance={"revision": revision})


def test_a_new_connection_gets_the_options_and_what_is_out():
    stream = state(timeout=1.5)
    requests = [stream.take(("p", f"c{n}")) for n in range(3)]
    assert requests[0].item.timeout.ToNanoseconds() == 1_500_000_000
    stream.answered(reply(1))
    first, *rest = stream.opening()
    assert first.options.revision == "r1"  # no other revision from now on
    assert rest == [requests[0], requests[2]]
    assert stream.unanswered == (0, 2)


def test_an_answer_nobody_waits_for_is_an_error():
    stream = state()
    stream.take(("p", "c"))
    stream.answered(reply(0))
    with pytest.raises(InternalError, match="does not wait"):
        stream.answered(reply(0))


def test_an_item_that_ends_every_server_is_given_up():
    stream = state()
    stream.take(("p", "kills the server"))
    for number in range(1, stream_state._MAX_BREAKS + 1):
        stream.opening()
        stream.take(("p", "harmless"))
        stream.answered(reply(number))
        _, given_up = stream.broken(unavailable(), float(number))
        assert bool(given_up) == (number == stream_state._MAX_BREAKS)
    ((index, failed),) = given_up
    assert (index, failed.code, failed.retryable) == (0, "FAILED", True)
    assert stream.unanswered == ()


def test_a_server_that_is_away_costs_no_item():
    stream = state(patience=1e9)
    stream.take(("p", "c"))
    stream.answered(reply(0))
    stream.take(("p", "d"))
    for attempt in range(50):
        stream.opening()
        assert stream.broken(unavailable(), float(attempt))[1] == []
    assert stream.unanswered == (1,)


@pytest.mark.parametrize("wrong", [{"window": 0}, {"timeout": 0.0}, {"timeout": float("nan")}])
def test_options_that_make_no_sense(wrong):
    with pytest.raises(ValueError):
        state(**wrong)
