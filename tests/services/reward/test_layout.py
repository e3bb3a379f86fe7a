from hypothesis import given
from hypothesis import strategies as st

from services.reward.config import RewardConfig
from services.reward.hardware import usable_cores
from services.reward.layout import MOST_TOKENS, Layout, Threads, share_threads
from services.runtime.batching import BatchLimits


@given(st.integers(1, 64), st.integers(1, 64), st.booleans())
def test_lanes_share_out_the_threads_and_a_lone_pass_has_all(threads: int, lanes: int, strict: bool):
    shared = share_threads(threads, lanes, strict=strict)
    assert shared.each >= 1
    assert shared.each * lanes <= max(threads, lanes)
    assert shared.alone == (shared.each if strict else max(threads, shared.each))


def test_by_default_every_usable_core_is_a_lane(tmp_path):
    options = RewardConfig(model=tmp_path).engine_options
    assert options.lanes == usable_cores()
    assert options.threads == Threads(1, usable_cores())
    assert RewardConfig(model=tmp_path, threads=1).engine_options.lanes == 1
    wide = RewardConfig(model=tmp_path, threads=6, lanes=2).engine_options
    assert (wide.lanes, wide.threads) == (2, Threads(3, 6))
    assert RewardConfig(model=tmp_path, threads=6, lanes=2, strict=True).engine_options.threads == Threads(3, 3)


def test_what_is_said_of_batches_goes_before_what_the_engine_likes(tmp_path):
    likes = Layout(2, 384, 0.5, 7)
    assert RewardConfig(model=tmp_path).batch_limits(likes) == BatchLimits(64, 384, 0.5, 7)
    assert RewardConfig(model=tmp_path).batch_limits() == BatchLimits(64, MOST_TOKENS)
    assert RewardConfig(model=tmp_path, max_batch_tokens=900).batch_limits(likes).max_tokens == 900
