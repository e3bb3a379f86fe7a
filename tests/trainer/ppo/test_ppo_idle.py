"""Which share of a step a service had nothing to do."""

from types import SimpleNamespace

import pytest

from trainer.ppo import idle
from trainer.ppo.idle import BusyMeter, Workload, idle_metrics


@pytest.fixture
def clock(monkeypatch):
    """Stands still until it is set."""
    now = [0.0]
    monkeypatch.setattr(idle, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_calls_at_a_time_count_once(clock):
    meter = BusyMeter()
    with meter.busy():
        clock[0] = 1.0
        with meter.busy():
            clock[0] = 3.0
        clock[0] = 4.0
        assert meter.seconds() == 4.0  # one that has not ended counts as far as it is
    clock[0] = 9.0
    assert meter.seconds() == 4.0
    with meter.busy():
        clock[0] = 10.0
    assert meter.seconds() == 5.0


def test_a_call_that_fails_has_ended(clock):
    meter = BusyMeter()

    def call():
        with meter.busy():
            clock[0] = 2.0
            raise OSError

    with pytest.raises(OSError):
        call()
    clock[0] = 7.0
    assert meter.seconds() == 2.0


def test_a_step_counts_what_happened_in_it_alone(clock):
    workload = Workload()
    with workload.meter("policy").busy():
        clock[0] = 100.0
        before = workload.seconds()
        clock[0] = 103.0
    workload.meter("reward")
    assert workload.meter("policy") is workload.meter("policy")
    clock[0] = 104.0
    shares = idle_metrics(before, workload.seconds(), 4.0)
    assert shares == {"idle/policy_share": 0.25}
    shares = idle_metrics(workload.seconds(), workload.seconds(), 4.0)
    assert shares == {"idle/policy_share": 1.0, "idle/reward_share": 1.0}
