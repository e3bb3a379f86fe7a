import pytest

from palate.client import PolicyVersion
from palate.models.weights import weights_digest
from services.policy.engine_fake import FakeEngine
from services.policy.staging import Following, Publication, Served


@pytest.fixture
def publication():
    engine = FakeEngine(8, ())
    weights = engine.initial_weights()
    return Publication(Served(PolicyVersion(digest="first"), weights), engine.describe(weights), engine.tensors)


def committed(publication, step, *, interrupt):
    """Publishes the same numbers as another step; returns what repeats the commit."""
    engine = FakeEngine(8, ())
    entries = engine.describe(publication.current.weights)
    token = publication.acquire("run", 1)
    version = PolicyVersion("run", 1, step, weights_digest(entries))
    staged = publication.keep(publication.open(token, version, entries), publication.current.weights)
    publication.commit(token, staged.staging_id, None, interrupt=interrupt)
    return lambda: publication.commit(token, staged.staging_id, None, interrupt=True)


def test_only_a_commit_that_interrupts_is_followed(publication):
    following = Following(publication)
    first = following()
    committed(publication, 1, interrupt=False)
    assert following() is first
    assert Following(publication)() is publication.current
    committed(publication, 2, interrupt=True)
    assert following() is publication.current
    assert following().version.step == 2


def test_a_revert_is_not_followed(publication):
    following = Following(publication)
    committed(publication, 1, interrupt=True)
    second = following()
    publication.revert(publication.acquire("run", 1), None)
    assert following() is second
    assert publication.current is not second


def test_repeating_a_commit_interrupts_nobody(publication):
    following = Following(publication)
    first = following()
    repeat = committed(publication, 1, interrupt=False)
    repeat()
    assert following() is first
