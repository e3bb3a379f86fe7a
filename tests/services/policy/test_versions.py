import pytest

from palate.client import PolicyVersion
from services.policy.versions import Publishers, check_follows, check_pin, matches
from services.runtime.errors import InvalidRequest, WrongPin


def version(run="run", incarnation=1, step=5, digest="d"):
    return PolicyVersion(run, incarnation, step, digest)


def test_an_empty_digest_expects_any():
    assert matches(version(digest=""), version())
    assert matches(version(), version())
    assert not matches(version(), version(digest=""))


@pytest.mark.parametrize("other", [version("other"), version(incarnation=2), version(step=6), version(digest="e")])
def test_every_part_of_a_version_counts(other):
    assert not matches(other, version())
    with pytest.raises(WrongPin, match="is expected and run/1/5 d is served"):
        check_pin(other, version())


def test_no_pin_takes_anything():
    check_pin(None, version())


@pytest.mark.parametrize(
    "new",
    [version(step=6), version("other", step=0), version(incarnation=2, step=0), version(incarnation=2), version()],
)
def test_may_follow(new):
    check_follows(new, version())


@pytest.mark.parametrize("new", [version(step=4), version(incarnation=0, step=9), version(digest="another")])
def test_may_not_follow(new):
    with pytest.raises(WrongPin):
        check_follows(new, version())


def test_tokens_grow_and_only_the_last_one_holds():
    publishers = Publishers(100)
    with pytest.raises(WrongPin):
        publishers.check(100)
    first, second = publishers.acquire("a", 1), publishers.acquire("b", 1)
    assert 100 <= first < second
    publishers.check(second)
    with pytest.raises(WrongPin, match="another publisher came later"):
        publishers.check(first)


def test_a_lower_incarnation_is_refused_for_ever():
    publishers = Publishers(1)
    publishers.acquire("a", 3)
    token = publishers.acquire("b", 1)
    for _ in range(2):
        with pytest.raises(WrongPin, match="incarnation 3 of run a was here"):
            publishers.acquire("a", 2)
    publishers.check(token)
    publishers.acquire("a", 3)
    publishers.acquire("a", 4)


def test_publishes_only_as_itself():
    publishers = Publishers(1)
    publishers.acquire("run", 2)
    publishers.check_identity(version(incarnation=2))
    for other in (version(), version("other", 2)):
        with pytest.raises(WrongPin, match="the publisher is run/2"):
            publishers.check_identity(other)


@pytest.mark.parametrize(("run_id", "incarnation"), [("", 1), ("x" * 129, 1), ("run", 0)])
def test_needs_a_name_and_an_incarnation(run_id, incarnation):
    with pytest.raises(InvalidRequest):
        Publishers(1).acquire(run_id, incarnation)


def test_remembers_a_bounded_number_of_runs():
    publishers = Publishers(1)
    publishers.acquire("kept", 5)
    for number in range(1500):
        publishers.acquire(f"run-{number}", 1)
        publishers.acquire("kept", 5)
    assert len(publishers._incarnations) <= 1000
    with pytest.raises(WrongPin):
        publishers.acquire("kept", 4)
