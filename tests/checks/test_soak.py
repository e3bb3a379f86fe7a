"""Whether the soak sees what it looks for."""

from tests.checks.faults.accounting import Fate
from tests.checks.soak.accounts import broken_promises, errors
from tests.checks.soak.course import Course, Record, growths, slowing
from tests.checks.soak.traffic import Sight

SECONDS = 200


def course(resident=lambda now: 2**27, descriptors=lambda now: 26, threads=lambda now: 11, work=lambda now: now / 2):
    """A server that answers ten calls a second."""
    times = range(SECONDS)
    record = Record(*([value(now) for now in times] for value in (resident, descriptors, threads, work)))
    return Course([float(now) for now in times], [(0.01, 0.1)] * SECONDS, [10 * now for now in times], {"one": record})


def sight(made, **more):
    """Whose calls were answered, all but those that nobody heard of."""
    return Sight("mixed", {"mixed-1": Fate.ANSWERED}, made, latest=-1.0, **more)


def test_what_stays_as_it_is_is_not_wrong():
    assert growths(course())[1] == slowing(course())[1] == []


def test_growth_after_the_warm_part_is_seen():
    grown = course(
        resident=lambda now: 2**27 + now * 2**16, descriptors=lambda now: 26 + now // 20, threads=lambda now: 11 + now
    )
    assert [wrong.split(" grow")[0] for wrong in growths(grown)[1]] == [
        "memory of one may",
        "descriptors of one",
        "threads of one",
    ]


def test_growth_in_the_warm_part_is_not():
    assert growths(course(resident=lambda now: 2**27 + min(now, SECONDS // 4) * 2**20))[1] == []


def test_calls_that_cost_more_and_more_are_seen():
    found, wrong = slowing(course(work=lambda now: now**2 / 1000))
    assert len(wrong) == 1
    assert found["median latency of quarters, ms"] == [10.0] * 4


def test_a_call_without_an_end_is_seen():
    assert broken_promises(sight(1)) == []
    assert broken_promises(sight(2)) == ["mixed: 2 calls were made, 1 ended"]


def test_half_an_answer_and_a_late_end_are_seen():
    wrong = sight(1)
    wrong.wrong["_score"] += 1
    wrong.latest = 60.0
    assert len(broken_promises(wrong)) == 2


def test_an_error_in_a_log_is_seen(tmp_path):
    log = tmp_path / "reward.log"
    log.write_text(
        "now DEBUG services.runtime.interceptors palate.v1.RewardService/Score Internal 0.1 s, request mixed-7\n"
        "now ERROR grpc._cython.cygrpc ExecuteBatchError raised in core by servicer method [Score]\n"
        "now ERROR services.runtime.interceptors a bug in palate.v1.RewardService/Score, request mixed-7\n"
    )
    assert [error.rpartition(" ")[2] for error in errors(log)] == ["mixed-7"]
