"""What Prometheus sees of a run beside its rows: that it goes on, how publishing goes, and what it failed of."""

import queue
import threading
import time
from contextlib import suppress

from tests.boards import scraped
from trainer.errors import Failure, failure_of
from trainer.exposure import Exposure, Vitals
from trainer.fit import FitError
from trainer.metrics import MetricsWriter
from trainer.ppo.errors import BehaviourMismatch, NotFinite, PublishFailed, RatioMismatch, TooFewDrawn, TooManyDropped

FAILED = "palate_training_failed"


def test_a_failure_has_a_cause_of_a_closed_set():
    assert failure_of(NotFinite("")) is failure_of(FitError("")) is Failure.NOT_FINITE
    assert failure_of(PublishFailed("")) is Failure.PUBLISH
    assert failure_of(TooManyDropped("")) is Failure.SCORES
    assert failure_of(TooFewDrawn("")) is Failure.ROLLOUTS
    assert failure_of(BehaviourMismatch("", ())) is failure_of(RatioMismatch("", ())) is Failure.INVARIANT
    assert failure_of(KeyError("")) is failure_of(KeyboardInterrupt()) is Failure.OTHER


def test_publications_and_steps_are_shown(tmp_path):
    vitals = Vitals()
    with MetricsWriter(tmp_path, Exposure(0), vitals=vitals) as writer:
        begun = scraped(writer.prometheus_port)
        assert time.time() - begun["palate_training_step_timestamp_seconds", ()] < 60
        assert not any(value for (name, _), value in begun.items() if name == FAILED)
        for ok in (True, False, True):
            vitals.publication(ok=ok)
        writer.log(1, {"objective/kl": 1.0})
        later = scraped(writer.prometheus_port)
    assert later["palate_training_publications_total", ("ok",)] == 2
    assert later["palate_training_publications_total", ("failed",)] == 1
    step_time = "palate_training_step_timestamp_seconds", ()
    assert later[step_time] > begun[step_time]


def test_a_run_that_failed_waits_until_its_cause_was_read(tmp_path):
    ports: queue.Queue[int] = queue.Queue()
    run = threading.Thread(target=_fail, args=(tmp_path, ports))
    run.start()
    port, found = ports.get(timeout=60), {}
    with suppress(OSError):  # it has ended, and its port with it
        while run.is_alive():
            found = scraped(port)
    run.join(60)
    assert not run.is_alive()
    assert {labels for (name, labels), value in found.items() if name == FAILED and value} == {("not_finite",)}


def _fail(out, ports):
    with suppress(NotFinite), MetricsWriter(out, Exposure(0, last_scrape_seconds=120)) as writer:
        ports.put(writer.prometheus_port)
        raise NotFinite("the policy gradient has norm nan")
