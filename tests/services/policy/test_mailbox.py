import asyncio
import threading

import pytest

from services.policy.mailbox import Mailbox, Piece

PATIENCE = 20.0


def piece(place, token, completion=0, last=False):
    return Piece(0, completion, place, [token], [-float(token)], last)


async def everything(box):
    return [event async for event in box.events()]


def from_another_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()


async def test_events_come_in_order_from_another_thread():
    box = Mailbox(10)
    reader = asyncio.create_task(everything(box))
    await asyncio.sleep(0)  # the reader waits already
    for events in (["a"], [], ["b", "c"]):
        await asyncio.to_thread(box.put, events)
    await asyncio.to_thread(box.end)
    assert await asyncio.wait_for(reader, PATIENCE) == ["a", "b", "c"]


async def test_an_error_comes_after_what_was_put_before_it():
    box = Mailbox(10)
    box.put(["a"])
    box.end(ValueError("why"))
    events = box.events()
    assert await anext(events) == "a"
    with pytest.raises(ValueError, match="why"):
        await anext(events)


async def test_pieces_that_wait_become_one_and_stay_before_what_follows():
    box = Mailbox(4)

    def engine():
        for place in range(1000):
            box.put([piece(place, place, 0), piece(place, place + 5, 1)])
        box.put([piece(1000, 7, 0, last=True), "completion 0"])
        box.end()

    from_another_thread(engine)  # ends although nobody reads
    first, second, completion = await everything(box)
    assert (first.completion, first.first_token, first.last) == ((0, 0), 0, True)
    assert first.token_ids == [*range(1000), 7]
    assert first.logprobs == [-float(token) for token in first.token_ids]
    assert (second.completion, second.last, second.token_ids) == ((0, 1), False, [*range(5, 1005)])
    assert completion == "completion 0"


async def test_a_piece_that_was_read_takes_nothing_in_any_more():
    box = Mailbox(4)
    events = box.events()
    box.put([piece(0, 3)])
    first = await anext(events)
    box.put([piece(1, 4)])
    second = await anext(events)
    assert (first.token_ids, second.token_ids, second.first_token) == ([3], [4], 1)


async def test_more_than_a_call_can_cause_is_an_error():
    box = Mailbox(2)
    box.put(["a", "b"])
    with pytest.raises(OverflowError, match="more than 2"):
        box.put(["c"])
