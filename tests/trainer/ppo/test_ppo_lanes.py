"""Two computations side by side."""

import threading

import pytest
import torch

from trainer.ppo.lanes import Lanes


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_two_jobs_run_at_the_same_time_and_answer_in_order():
    together = threading.Barrier(2, timeout=30)

    def job(name):
        together.wait()  # passes only when both are running
        return name, torch.get_num_threads()

    with Lanes(2) as lanes:
        assert lanes.run(lambda: job("a"), lambda: job("b")) == [("a", 1), ("b", 1)]


def test_one_thread_runs_everything_one_after_the_other():
    running = []

    def job(name):
        running.append(name)
        assert running == [name]
        running.remove(name)
        return threading.current_thread().name

    with Lanes(1) as lanes:
        assert len(set(lanes.run(*(lambda i=i: job(i) for i in range(5))))) == 1


def test_an_error_waits_for_the_other_job():
    done = threading.Event()

    def fails():
        raise RuntimeError("broken")

    with Lanes(2) as lanes, pytest.raises(RuntimeError, match="broken"):
        lanes.run(fails, done.set)
    assert done.is_set()
