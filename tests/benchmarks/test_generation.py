"""What the calls of the generation benchmark ask for, and what is made of their times."""

import pytest

from benchmarks.bench import Bench
from benchmarks.generation.mixed import Got, _sooner, _unhindered, equal, mixed, short
from benchmarks.paired import Run


@pytest.fixture
def bench(tmp_path):
    return Bench(False, None, None, tmp_path, tmp_path, None)


def test_short_calls_have_lengths_from_16_to_48_and_new_prompts_each_time():
    calls = short(1)
    assert [len(call.prompts) for call in calls] == [8] * 12
    assert (calls[0].tokens, calls[-1].tokens) == (16, 48)
    prompts = {prompt for number in (1, 2) for call in short(number) for prompt in call.prompts}
    assert len(prompts) == 2 * 12 * 8


def test_the_long_call_is_there_before_the_short_ones():
    long, *rest = mixed(3)
    assert (len(long.prompts), long.tokens) == (1, 256)
    assert rest == short(3)
    assert [(len(call.prompts), call.tokens) for call in equal(1)] == [(64, 48)]


def run(*seconds):
    return Run(max(seconds), Got((), seconds, 1.0))


def test_short_calls_are_judged_by_the_median_of_their_own_times(bench):
    slow, quick = run(100.0, *[8.0] * 11, 20.0), run(50.0, *[2.0] * 11, 30.0)
    assert _sooner(bench, "260k", {"whole": [slow], "shared": [quick]}).found.value == 4.0
    figure = _unhindered(bench, "260k", {"beside": [quick], "free": [run(*[2.0] * 12)]})
    assert figure.found.value == 1.0
    assert figure.goal.holds(figure.found)
