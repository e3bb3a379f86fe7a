"""What a round of overload and a change of number format are judged to be; and all of it on a tiny model, for real."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.bench import Bench
from benchmarks.command import order_from
from benchmarks.load import Answer, Sent, closed_loop, load_generator
from benchmarks.models import make_encoder
from benchmarks.paired import Run
from benchmarks.protected import make_protection
from benchmarks.serving.__main__ import PARTS
from benchmarks.serving.overload import arrivals, judged
from benchmarks.serving.precision import fidelity
from benchmarks.serving.security import _doors, _latency, _target, _throughput
from benchmarks.texts import simulated
from benchmarks.wire import score_requests, scores
from palate.models.export import export
from palate.v1 import reward_service_pb2 as reward
from tests.benchmarks.quick import check_measured, quick_run


def scored(tokens, seconds):
    result = reward.ScoreResult(scored=reward.Scored(score=1.0, token_count=tokens))
    return Answer("OK", seconds, reward.ScoreResponse(results=[result]).SerializeToString())


def expired(seconds):
    result = reward.ScoreResult(error=reward.ItemError(code=reward.ITEM_ERROR_CODE_EXPIRED))
    return Answer("OK", seconds, reward.ScoreResponse(results=[result]).SerializeToString())


REFUSED, LATE = Answer("RESOURCE_EXHAUSTED", 0.001, b""), Answer("DEADLINE_EXCEEDED", 1.0, b"")


def test_an_overload_is_judged_by_what_came_in_time():
    answers = (scored(30, 0.25), scored(50, 0.5), REFUSED, REFUSED)
    found = judged(Sent(2.0, 0.5, answers, 0.01), computed_tokens=100, rate=2.0, moments=[0.25, 0.5, 0.6, 0.7])
    assert found.late_share == pytest.approx(0.2)
    assert found.goodput == 1.0
    assert found.p99 == 0.5
    assert found.refused_share == 0.5
    assert found.client_cpu == 0.25


@pytest.mark.parametrize("miss", [LATE, expired(0.1)])
def test_an_admitted_item_without_an_answer_in_time_has_the_deadline_for_its_latency(miss):
    found = judged(Sent(1.0, 0.1, (scored(10, 0.1), miss)), computed_tokens=10, rate=1.0, moments=[0.9, 1.0])
    assert found.p99 >= 1.0
    assert found.goodput == 1.0
    assert found.late_share == 0.0


def test_arrivals_have_the_rate_and_differ_by_seed():
    moments = arrivals(100.0, 20.0, 1)
    assert len(moments) == 2000
    assert moments == sorted(moments) == arrivals(100.0, 20.0, 1) != arrivals(100.0, 20.0, 2)
    assert moments[-1] == pytest.approx(20.0, rel=0.1)


def test_fidelity_counts_flips_among_close_pairs_only():
    right = [0.0, 0.01, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    same = fidelity(right, right)
    assert (same.spearman.value, same.flips.value, same.shift.value) == (pytest.approx(1.0), 0.0, 0.0)
    near = fidelity(right, [0.01, 0.0, *right[2:]])
    assert near.flips.value == 1.0  # the one close pair
    assert near.spearman.value < 1.0
    far = fidelity(right, [0.0, 0.01, 2.0, 1.0, *right[4:]])
    assert far.flips.value == 0.0
    assert far.shift.value == pytest.approx(1.0 / np.std(right))


def test_fidelity_has_an_interval_over_the_texts():
    right = np.random.default_rng(0).normal(size=200)
    found = fidelity(list(right), list(right + 0.05 * np.random.default_rng(1).normal(size=200)))
    for each in (found.spearman, found.flips):
        assert each.low <= each.value <= each.high
        assert each.low < each.high
        assert each.n == 200
    assert found.spearman.high < 1.0


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    corpus = [text for pair in simulated()[:400] for text in pair]
    return export(make_encoder(folder / "encoder", corpus=corpus, tiny=True), folder / "served").path


@pytest.fixture
def without_data(monkeypatch):
    monkeypatch.delenv("PALATE_DATA", raising=False)


def test_a_quick_run_measures_what_it_is_asked_for(served, tmp_path, without_data):
    only = ("efficiency", "idle-latency", "overload")
    found = quick_run(PARTS, tmp_path, *only, model=served)
    assert {name.split("/")[0] for name in found} == set(only)
    assert [one for one in found.values() if "unmeasured" in one] == []
    for name in ("one-pair-requests", "16-item-requests", "stream"):
        figure = found[f"efficiency/{name}"]
        assert 0 < figure["low"] <= figure["value"] <= figure["high"]
        assert figure["n"] == 2
        assert figure["beside"]["client CPU share"] > 0
    assert 0 <= found["overload/late-compute"]["value"] <= 1
    assert found["overload/goodput"]["value"] > 0


def test_what_texts_that_repeat_save_and_what_an_item_costs_is_measured(served, tmp_path, without_data):
    found = quick_run(PARTS, tmp_path, "reuse", "cost", model=served)
    reused = [f"reuse/{name}" for name in ("dedup", "cache", "both")]
    sizes = {"length": (16, 32, 64, 128, 256, 448), "batch": (1, 2, 4, 8, 16, 32, 64), "queue": (4, 8, 16)}
    check_measured(found, *reused, *(f"cost/{name}-{size}" for name in sizes for size in sizes[name]))


def test_one_call_against_many_is_measured_of_both_services(tmp_path, without_data):
    found = quick_run(PARTS, tmp_path, "batching", "generating")
    check_measured(found, "batching/over-calls", "batching/over-transformers", "generating/one-call")


def test_behind_a_door_that_asks_for_a_token_only_a_caller_with_one_is_measured(served, tmp_path):
    door = _doors(make_protection(tmp_path))["token"]
    with load_generator() as load:
        bench = Bench(quick=True, data=None, model=served, work=tmp_path, stays=tmp_path, load=load)
        with bench.server("token", "--engine=fake", *door.flags, probe_tls=door.tls) as server:
            target, requests = _target(server, door), score_requests([("a", "b"), ("c", "d")], 1)
            assert len(scores(load(closed_loop, target, requests, 2).answers)) == 2
            refused = load(closed_loop, replace(target, metadata=()), requests, 2)
    assert {answer.status for answer in refused.answers} == {"UNAUTHENTICATED"}


def test_security_is_a_ratio_to_the_server_without():
    secure, insecure = [Run(0.003, [0.5, 0.6])] * 3, [Run(0.002, [0.5, 0.6])] * 3
    slower, fewer = _latency("x", "tls", secure, insecure), _throughput("x", "tls", secure, insecure)
    assert (slower.name, slower.found.value, slower.found.n) == ("x-latency-tls", pytest.approx(1.5), 3)
    assert slower.beside == pytest.approx({"ms": 3.0, "insecure, ms": 2.0})
    assert (fewer.name, fewer.found.value) == ("x-throughput-tls", pytest.approx(2 / 3))
    assert fewer.beside["insecure, items/s"] == pytest.approx(1000.0)


def test_what_cannot_be_measured_is_named_with_its_reason_and_takes_nothing_with_it(tmp_path, without_data):
    only = ("cost", "overload")
    found = quick_run(PARTS, tmp_path, *only, model=tmp_path / "nothing")
    assert set(found) == set(only)
    assert all("nothing" in one["unmeasured"] for one in found.values())


@pytest.mark.parametrize("arguments", [["--quick"], ["--json", "x", "--only", "speed"]])
def test_a_wrong_command_line_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        order_from(arguments, "bench", PARTS)
    assert ended.value.code == 2
    assert "bench: error" in capsys.readouterr().err
