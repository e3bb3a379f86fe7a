"""The plan of a run against a simulation that draws, scores, learns and publishes event by event."""

import heapq
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from trainer.plan import Rates, Sizes, Workload, best_replicas, enough_ranks, plan, rank_bytes
from trainer.plan_command import app

WORK = Workload(
    steps=7,
    batch_size=24,
    prompt_tokens=100,
    completion_tokens=200,
    longest_tokens=200,
    epochs=2,
    publish_bytes=4e9,
    staleness=0,
)
RATES = Rates(generate=1000, sequence=1e6, score=5000, evaluate=6000, train=2000, bandwidth=1e9)
SIZES = Sizes(policy_replicas=3, reward_replicas=2, ranks=4)


def served(jobs, servers, begin):
    """When the last of equal jobs is done; each goes to the server that is free first."""
    free = [begin] * servers
    for seconds in jobs:
        heapq.heappush(free, heapq.heappop(free) + seconds)
    return max(free)


def simulated(work, rates, sizes):
    """Seconds of a run: batches are made in order, each when weights are new enough, and learnt in that order."""
    rollout = work.prompt_tokens + work.completion_tokens
    uplink = work.publish_bytes * sizes.policy_replicas / rates.bandwidth
    published, made, learnt = [uplink], 0.0, uplink
    for step in range(work.steps):
        begin = max(made, published[max(0, step - work.staleness)])
        drawn = served([work.completion_tokens / rates.generate] * work.batch_size, sizes.policy_replicas, begin)
        made = served([rollout / rates.score] * work.batch_size, sizes.reward_replicas, drawn)
        looked = served([rollout / rates.evaluate] * work.batch_size, sizes.ranks, max(made, learnt))
        for _ in range(work.epochs):
            looked = served([rollout / rates.train] * work.batch_size, sizes.ranks, looked)
        learnt = looked + uplink
        published.append(learnt)
    return learnt


@given(
    staleness=st.integers(0, 3),
    steps=st.integers(1, 12),
    generate=st.floats(100, 10_000),
    train=st.floats(100, 10_000),
    score=st.floats(100, 10_000),
    bandwidth=st.floats(1e8, 1e11),
    epochs=st.integers(1, 4),
    sizes=st.builds(Sizes, *[st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24])] * 3),  # that divide the batch
)
def test_the_plan_is_what_a_simulated_run_takes(staleness, steps, generate, train, score, bandwidth, epochs, sizes):
    work = replace(WORK, staleness=staleness, steps=steps, epochs=epochs)
    rates = replace(RATES, generate=generate, train=train, score=score, bandwidth=bandwidth)
    assert plan(work, rates, sizes).total == pytest.approx(simulated(work, rates, sizes), rel=1e-9)


def test_stages_by_hand():
    found = plan(WORK, RATES, SIZES)
    assert (found.rollouts, found.scoring) == pytest.approx((1.6, 0.72))
    assert (found.evaluate, found.update, found.publish) == pytest.approx((0.3, 1.8, 12.0))
    assert found.step == pytest.approx(16.42)
    assert found.bottleneck == "publish"
    overlapped = plan(replace(WORK, staleness=1), RATES, SIZES)
    assert overlapped.step == pytest.approx(14.1)


def test_the_longest_completion_bounds_what_replicas_can_do():
    slow = replace(RATES, sequence=20)
    assert plan(WORK, slow, replace(SIZES, policy_replicas=24)).rollouts == pytest.approx(10.0)


def test_the_best_number_of_replicas_is_the_fewest_with_the_shortest_step():
    """The longest completion takes 10 s, so 24 · 200 / (1000 · n) seconds of drawing stop to matter at n = 1."""
    slow, wide = replace(RATES, sequence=20, bandwidth=1e30), replace(RATES, bandwidth=1e10)
    assert best_replicas(WORK, slow, SIZES) == 1
    count = best_replicas(WORK, wide, SIZES)
    steps = [plan(WORK, wide, replace(SIZES, policy_replicas=n)).step for n in range(1, 100)]
    assert 1 < count < 100
    assert steps[count - 1] == min(steps) < min(steps[: count - 1])


def test_memory_of_a_rank():
    assert rank_bytes(7e9, 0, "ddp", 8) == 7e9 * 20
    assert rank_bytes(7e9, 7e9, "fsdp2", 8, local_ref=False) == 7e9 * 32 / 8
    ranks = enough_ranks(70e9, 0, 60 * 2**30)
    assert rank_bytes(70e9, 0, "fsdp2", ranks) <= 60 * 2**30 < rank_bytes(70e9, 0, "fsdp2", ranks - 1)


FLAGS = {
    "--generate-rate": 1000,
    "--sequence-rate": 1e6,
    "--score-rate": 5000,
    "--evaluate-rate": 6000,
    "--train-rate": 2000,
    "--bandwidth": 1e9,
    "--publish-bytes": 4e9,
    "--completion-tokens": 200,
    "--longest-tokens": 200,
    "--prompt-tokens": 100,
    "--parameters": 2e9,
    "--batch-size": 24,
    "--epochs": 2,
    "--steps": 7,
    "--policy-replicas": 3,
    "--reward-replicas": 2,
    "--ranks": 4,
}


def command(**changes):
    flags = FLAGS | {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    return CliRunner().invoke(app, [str(part) for pair in flags.items() for part in pair])


def test_the_command_tells_times_bottleneck_overlap_and_memory():
    done = command()
    assert done.exit_code == 0, done.output
    told = " ".join(done.output.split())
    assert "a step takes 16.42 s" in told
    assert "bottleneck is publish" in told
    assert "with a staleness bound of 1 14.10 s (1.16 times as fast)" in told
    assert "with 1 policy replica(s) it is shortest, 11.62 s" in told
    assert "each rank holds 9.3 GiB" in told
    assert "fits in 60.0 GiB" in told


def test_a_rate_of_nothing_is_refused():
    assert command(train_rate=0).exit_code == 2
