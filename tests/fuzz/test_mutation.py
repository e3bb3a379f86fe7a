"""Changed messages are still messages, and different ones."""

from random import Random

import pytest

from palate.v1 import common_pb2 as common
from palate.v1 import reward_service_pb2 as reward
from tests.fuzz import mutation
from tests.fuzz.harness import frame, frames_of

ITEM = reward.ScoreItem(prompt=common.Content(text="why?"), completion=common.Content(text="because 🙂"))
REQUEST = reward.ScoreRequest(items=[ITEM, ITEM], options=reward.ScoreOptions(priority=2, model="judge"))


def parses(data):
    try:
        reward.ScoreRequest.FromString(data)
    except Exception:  # of protobuf, whose own type differs between its implementations
        return False
    return True


def test_most_changes_leave_a_message_that_is_another_one():
    data = REQUEST.SerializeToString()
    changed = [mutation.message(data, Random(seed)) for seed in range(500)]
    assert sum(map(parses, changed)) > 400
    assert len(set(changed)) > 150


def test_what_stands_before_a_message_stays_and_frames_stay_frames():
    data = REQUEST.SerializeToString()
    stream = b"".join(frame(b"\x01" + data) for _ in range(3))
    for seed in range(100):
        assert mutation.message(b"\x02" + data, Random(seed), head=1)[:1] == b"\x02"
        parts = frames_of(mutation.messages(stream, Random(seed), head=1))
        assert 2 <= len(parts) <= 4
        assert {part[:1] for part in parts} == {b"\x01"}


@pytest.mark.parametrize("data", [b"", b"\xff" * 12, b"\x08", b"\x0a\x05a", b"\x07\x00", b"\x00\x00", bytes(40)])
def test_what_is_no_message_is_changed_as_well(data):
    for seed in range(50):
        assert isinstance(mutation.message(data, Random(seed)), bytes)
        assert isinstance(mutation.messages(data, Random(seed)), bytes)
