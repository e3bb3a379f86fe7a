"""A run whose publications interrupt what is being drawn, over real processes: rollouts of several weights."""

import threading

import pytest

from palate.client import PolicyClient
from palate.rollout_files import read_rollouts
from tests.servers import start_server
from trainer.metrics import read_metrics
from trainer.ppo.publish import WeightPublisher
from trainer.ppo.rollouts import RolloutCollector
from trainer.ppo.run import run_ppo

SECONDS = 120.0
TOKENS, STEPS, BATCH = 32, 3, 6


@pytest.fixture(scope="module")
def paced(policy_folder):
    """A policy server that takes its time, so that a publication finds it drawing."""
    flags = ("--threads", "1", "--min-step-seconds", "0.04", "--drain-delay-seconds", "0")
    with start_server("services.policy", policy_folder, *flags) as server:
        yield server


@pytest.fixture
def met(monkeypatch, paced):
    """Makes every publication but the first and the last wait until the next batch is being drawn."""
    collect, publish, meeting = RolloutCollector.collect, WeightPublisher.publish, threading.Barrier(2)

    def collecting(collector, draws, version, oldest=None):
        if len(draws) == BATCH:
            batches.append(version.step)
            if len(batches) > 1:
                meeting.wait(SECONDS)
        return collect(collector, draws, version, oldest)

    def publishing(publisher, model, step):
        if 0 < step < STEPS:
            with PolicyClient(paced.target) as client:
                before = client.policy_info().decode_steps
                meeting.wait(SECONDS)
                while client.policy_info().decode_steps < before + 2:
                    pass
        return publish(publisher, model, step)

    batches = []
    monkeypatch.setattr(RolloutCollector, "collect", collecting)
    monkeypatch.setattr(WeightPublisher, "publish", publishing)
    return batches


FLAGS = ("--overlap.max-staleness", 1, "--ppo.tis-cap", 2, "--sampling.ignore-eos", "--total-steps", STEPS)


@pytest.mark.parametrize("interrupt", [True, False])
def test_publications_interrupt_what_is_being_drawn_where_they_are_to(configure, paced, met, interrupt):
    flags = (*FLAGS, "--sampling.max-new-tokens", TOKENS, "--services.policy", paced.target)
    config = configure(*flags, *(["--overlap.interrupt"] if interrupt else []))
    result = run_ppo(config)
    assert result.steps == STEPS
    metrics, rollouts = read_metrics(config.out), list(read_rollouts(config.out))
    assert [row["step"] for row in rollouts] == [step for step in range(1, STEPS + 1) for _ in range(BATCH)]
    for number, row in enumerate(metrics):
        drawn = rollouts[number * BATCH : (number + 1) * BATCH]
        spans = [[(span["first_token"], span["version"]["step"]) for span in one["policy_versions"]] for one in drawn]
        assert row["rollout/interrupted_share"] == sum(len(each) > 1 for each in spans) / BATCH
        assert [one["policy_version"]["step"] for one in drawn] == [each[0][1] for each in spans]
        assert row["rollout/staleness_max"] == number - min(each[0][1] for each in spans)
        told = [each for each in spans if len(each) > 1]
        assert bool(told) == (interrupt and number > 0)
        for (first, old), (then, new) in told:
            assert (first, old, new) == (0, number - 1, number)
            assert 0 < then < TOKENS
        fresh = any(each[-1][1] == number for each in spans)
        assert ("policy/behaviour_deviation" in row) == fresh
        assert row.get("policy/behaviour_deviation", 0) <= 1e-5  # tokens of the newest weights are the trainer's
        assert not told or row["policy/importance_ess"] < 1  # those of older ones have weights
    assert {row["policy_version"]["run_id"] for row in rollouts} == {result.version.run_id}
