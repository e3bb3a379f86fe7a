from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from palate.client import PolicyVersion
from palate.models.adapters import AddedTo, factor_names, merged
from palate.models.weights import (
    Chunk,
    changed_positions,
    describe_tensors,
    encode_changes,
    iter_chunks,
    weights_digest,
)
from services.policy.adapters import AdapterBase
from services.policy.staging import Publication, Served
from services.policy.upload import Changes
from services.runtime.errors import InvalidRequest, NotFound, ServiceError, WrongPin


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def state(value):
    return {"a.weight": torch.full((3, 2), float(value)), "b.weight": torch.arange(5.0) + value}


def version(step, weights, run="run", incarnation=1):
    return PolicyVersion(run, incarnation, step, weights_digest(describe_tensors(weights)))


def publication(clock=None, **options):
    initial = state(0)
    served = Served(PolicyVersion(digest=weights_digest(describe_tensors(initial))), initial)
    layout = describe_tensors(initial)
    adapters = AdapterBase(layout, lambda: state(0))
    return Publication(served, layout, dict, adapters=adapters, lease_seconds=60.0, clock=clock or Clock(), **options)


def stage(target, token, step, value, **identity):
    """Sends everything; weights are their own engine-side form here."""
    weights = state(value)
    entries = describe_tensors(weights)
    upload = target.open(token, version(step, weights, **identity), entries)
    for chunk in iter_chunks(weights, entries, 8):
        upload.add(chunk)
    return target.keep(upload, upload.finish())


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_stage_commit_revert():
    target = publication()
    initial = target.current
    token = target.acquire("run", 1)
    staged = stage(target, token, 1, 7)
    assert target.current is initial
    done = target.commit(token, staged.staging_id, initial.version)
    assert (done.current, done.previous) == (staged.served.version, initial.version)
    assert same(target.current.weights, state(7))
    assert target.revert(token, done.current) == initial.version
    assert target.current is initial
    with pytest.raises(WrongPin, match="nothing to return to"):
        target.revert(token, None)


def test_a_repeated_commit_answers_the_same_and_changes_nothing():
    target = publication()
    token = target.acquire("run", 1)
    staged = stage(target, token, 1, 7)
    before = target.current.version
    done = target.commit(token, staged.staging_id, before)
    assert target.commit(token, staged.staging_id, before) == done
    assert target.revert(token, None) == before
    with pytest.raises(NotFound):
        target.commit(token, staged.staging_id, None)


def test_a_commit_expects_what_is_served():
    target = publication()
    token = target.acquire("run", 1)
    staged = stage(target, token, 1, 7)
    with pytest.raises(WrongPin, match="is expected"):
        target.commit(token, staged.staging_id, PolicyVersion("run", 1, 9))
    target.commit(token, staged.staging_id, PolicyVersion())


def test_a_later_publisher_fences_the_earlier_one_out():
    target = publication()
    stale = target.acquire("run", 1)
    staged = stage(target, stale, 1, 7)
    weights = state(8)
    upload = target.open(stale, version(2, weights), describe_tensors(weights))
    token = target.acquire("run", 2)
    for refused in (
        lambda: target.check_open(upload),
        lambda: target.keep(upload, weights),
        lambda: target.commit(stale, staged.staging_id, None),
        lambda: target.revert(stale, None),
        lambda: target.abort(stale, staged.staging_id),
        lambda: target.open(stale, version(2, weights), describe_tensors(weights)),
    ):
        with pytest.raises(WrongPin):
            refused()
    with pytest.raises(NotFound):
        target.commit(token, staged.staging_id, None)


def test_a_resumed_run_may_publish_an_older_step():
    target = publication()
    token = target.acquire("run", 1)
    target.commit(token, stage(target, token, 9, 7).staging_id, None)
    with pytest.raises(WrongPin, match="is older than run/1/9"):
        stage(target, token, 8, 6)
    token = target.acquire("run", 2)
    target.commit(token, stage(target, token, 4, 6, incarnation=2).staging_id, None)
    assert target.current.version.step == 4
    with pytest.raises(WrongPin):
        target.acquire("run", 1)


def test_staged_weights_are_forgotten_after_their_lease():
    clock = Clock()
    target = publication(clock)
    token = target.acquire("run", 1)
    staged = stage(target, token, 1, 7)
    clock.now += 59.9
    assert not target.expire()
    clock.now += 0.2
    with pytest.raises(NotFound, match="lease of 60 s"):
        target.commit(token, staged.staging_id, None)
    assert target._staged is None


def test_abort_forgets():
    target = publication()
    token = target.acquire("run", 1)
    staged = stage(target, token, 1, 7)
    target.abort(token, staged.staging_id)
    with pytest.raises(NotFound):
        target.commit(token, staged.staging_id, None)
    with pytest.raises(NotFound):
        target.abort(token, "unknown")


def test_a_newer_staging_replaces_an_older_one_and_an_upload_under_way():
    target = publication()
    token = target.acquire("run", 1)
    first = stage(target, token, 1, 7)
    weights = state(8)
    abandoned = target.open(token, version(2, weights), describe_tensors(weights))
    second = stage(target, token, 2, 8)
    with pytest.raises(WrongPin, match="replaced this one"):
        target.keep(abandoned, weights)
    target.close(abandoned)
    with pytest.raises(NotFound):
        target.commit(token, first.staging_id, None)
    target.commit(token, second.staging_id, None)


def test_a_frozen_policy_refuses_every_change():
    target = publication(frozen=True)
    weights = state(1)
    for refused in (
        lambda: target.acquire("run", 1),
        lambda: target.open(1, version(1, weights), describe_tensors(weights)),
        lambda: target.commit(1, "id", None),
        lambda: target.revert(1, None),
        lambda: target.abort(1, "id"),
    ):
        with pytest.raises(WrongPin, match="frozen"):
            refused()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entries: entries[:1], "not announced: b.weight"),
        (lambda entries: [*entries, replace(entries[0], name="c")], "not in the model: c"),
        (lambda entries: [replace(entries[0], dtype="I32"), entries[1]], "announced as I32"),
        (lambda entries: [replace(entries[0], shape=(2, 3)), entries[1]], r"shape \[2, 3\]; the model serves F32"),
        (lambda entries: [replace(entries[0], size_bytes=1), entries[1]], "announced with 1 bytes"),
        (lambda entries: [*entries, entries[0]], "3 tensors are announced; at most 2"),
    ],
)
def test_what_is_announced_must_be_the_model(change, message):
    target = publication()
    token = target.acquire("run", 1)
    entries = change(describe_tensors(state(1)))
    with pytest.raises(InvalidRequest, match=message):
        target.open(token, PolicyVersion("run", 1, 1, weights_digest(entries)), entries)


def test_the_announced_digest_must_be_that_of_the_tensors():
    target = publication()
    token = target.acquire("run", 1)
    with pytest.raises(InvalidRequest, match="digest"):
        target.open(token, replace(version(1, state(1)), digest="0" * 64), describe_tensors(state(1)))


DAMAGE = st.sampled_from(["flip", "drop", "repeat", "swap", "end", "more"])


def whole(weights):
    """What is sent of weights, and no changes."""
    entries = describe_tensors(weights)
    return entries, list(iter_chunks(weights, entries, 8)), None


def changes_of(target, weights):
    """What is sent of weights that differ from the served ones in two elements of one tensor, and the changes."""
    entries = describe_tensors(weights)
    positions = changed_positions(weights["b.weight"], target.current.weights["b.weight"])
    data = encode_changes(weights["b.weight"], positions)
    chunks = [Chunk(1, offset, data[offset : offset + 8]) for offset in range(0, len(data), 8)]
    return entries, chunks, Changes(target.current.version, (0, len(positions)))


SCALE = 0.5


def factors(rank=2):
    """An adapter of a.weight, the same for each rank."""
    generator = torch.Generator().manual_seed(rank)
    shapes = ((rank, 2), (3, rank))
    return {n: torch.randn(s, generator=generator) for n, s in zip(factor_names("a.weight"), shapes, strict=True)}


def adapted(rank=2):
    """The first weights with that adapter."""
    weights = state(0)
    weights["a.weight"] = merged(weights["a.weight"], *factors(rank).values(), SCALE)
    return weights


def adapters_of(target, rank=2):
    """What is sent of that adapter."""
    entries = describe_tensors(factors(rank))
    return entries, list(iter_chunks(factors(rank), entries, 8)), AddedTo(first_version(), SCALE)


def first_version():
    return PolicyVersion(digest=weights_digest(describe_tensors(state(0))))


def example(kind, target):
    """Weights, and what is sent of them."""
    if kind == "lora":
        return adapted(), adapters_of(target)
    weights = slightly_changed() if kind == "delta" else state(5)
    return weights, changes_of(target, weights) if kind == "delta" else whole(weights)


def slightly_changed():
    weights = state(0)
    weights["b.weight"][[1, 4]] = torch.tensor([-0.0, 9.0])
    return weights


def send(target, token, step, weights, sent):
    entries, chunks, changes = sent
    upload = target.open(token, version(step, weights), entries, changes)
    try:
        for chunk in chunks:
            upload.add(chunk)
        return target.keep(upload, upload.finish())
    finally:
        target.close(upload)


@pytest.mark.parametrize("kind", ["full", "delta", "lora"])
@given(damages=st.lists(st.tuples(DAMAGE, st.integers(0, 10_000)), min_size=1, max_size=3))
@settings(max_examples=150)
def test_no_stream_but_the_right_one_is_ever_staged(kind, damages):
    target = publication()
    initial = target.current
    token = target.acquire("run", 1)
    weights, right = example(kind, target)
    chunks = list(right[1])
    for damage, number in damages:
        damaged(chunks, damage, number)
    try:
        send(target, token, 1, weights, (right[0], chunks, right[2]))
        assert chunks == right[1]
    except InvalidRequest:
        assert chunks != right[1]
        assert target._staged is None
    assert target.current is initial
    target.commit(token, send(target, token, 1, weights, right).staging_id, initial.version)
    assert same(target.current.weights, weights)
    assert same(initial.weights, state(0))  # a delta does not write into what it changes


@pytest.mark.parametrize("kind", ["full", "delta", "lora"])
@given(data=st.data())
@settings(max_examples=50)
def test_a_publisher_that_is_fenced_off_on_the_way_changes_nothing(kind, data):
    target = publication()
    initial = target.current
    stale = target.acquire("run", 1)
    weights, (entries, chunks, relation) = example(kind, target)
    upload = target.open(stale, version(1, weights), entries, relation)
    cut = data.draw(st.integers(0, len(chunks)))
    for chunk in chunks[:cut]:
        upload.add(chunk)
    token = target.acquire("other", 1)
    for chunk in chunks[cut:]:
        upload.add(chunk)
    with pytest.raises(WrongPin):
        target.keep(upload, upload.finish())
    with pytest.raises(WrongPin):
        target.commit(stale, "any", None)
    assert target.current is initial
    with pytest.raises(NotFound):
        target.commit(token, "any", None)


def test_adapters_are_added_to_the_first_weights_whatever_was_served_since():
    target = publication()
    token = target.acquire("run", 1)

    def commit(step, weights, sent):
        target.commit(token, send(target, token, step, weights, sent).staging_id, None)
        assert same(target.current.weights, weights)
        return target.current.weights

    first = commit(1, adapted(2), adapters_of(target, 2))
    second = commit(2, adapted(1), adapters_of(target, 1))
    assert first["b.weight"] is second["b.weight"]  # what has no adapter is held once
    commit(3, state(5), whole(state(5)))
    commit(4, adapted(2), adapters_of(target, 2))
    weights = adapted(2)
    weights["b.weight"][[1, 4]] = torch.tensor([-0.0, 9.0])
    commit(5, weights, changes_of(target, weights))  # a delta of what is served
    assert target.revert(token, None).step == 4
    assert same(target.current.weights, adapted(2))


@pytest.mark.parametrize(
    ("spoil", "error", "told"),
    [
        (lambda e, r: (e, replace(r, base=PolicyVersion(digest="0" * 64))), WrongPin, "this server started with"),
        (lambda e, r: (e, replace(r, base=PolicyVersion("run", 1, 0, r.base.digest))), WrongPin, "this server started"),
        (lambda e, r: (e[::-1], r), InvalidRequest, "are no pair"),
        (lambda e, r: ([*e, *e], r), InvalidRequest, "announced twice"),
        (lambda e, r: (describe_tensors(factors(3)), r), InvalidRequest, "r up to 2"),
        (lambda e, r: ([e[0], replace(e[1], size_bytes=2**40)], r), InvalidRequest, "is announced with"),
    ],
)
def test_adapters_that_do_not_fit_are_refused_before_they_are_sent(spoil, error, told):
    target = publication()
    token = target.acquire("run", 1)
    entries, _, relation = adapters_of(target)
    with pytest.raises(error, match=told):
        target.open(token, version(1, adapted()), *spoil(entries, relation))


def test_adapters_that_make_other_weights_than_announced_are_refused():
    target = publication()
    initial, token = target.current, target.acquire("run", 1)
    entries, chunks, relation = adapters_of(target)
    with pytest.raises(InvalidRequest, match="the adapters make weights of digest"):
        send(target, token, 1, adapted(), (entries, chunks, replace(relation, scale=0.25)))
    assert target.current is initial
    assert target._staged is None


def test_adapters_are_refused_where_the_first_weights_are_gone():
    initial = state(0)
    layout = describe_tensors(initial)
    for adapters, error, told in (
        (None, InvalidRequest, "takes no adapters"),
        (AdapterBase(layout, lambda: state(1)), WrongPin, "its folder holds others now"),
    ):
        target = Publication(Served(first_version(), initial), layout, dict, adapters=adapters)
        token = target.acquire("run", 1)
        with pytest.raises(error, match=told):
            send(target, token, 1, adapted(), adapters_of(target))
        assert ("lora" in target.capabilities) == (adapters is not None)


def test_a_delta_of_other_weights_than_are_served_is_refused():
    target = publication()
    token = target.acquire("run", 1)
    weights = slightly_changed()
    entries, _, changes = changes_of(target, weights)
    target.commit(token, stage(target, token, 1, 3).staging_id, None)
    with pytest.raises(WrongPin, match="is expected"):
        target.open(token, version(2, weights), entries, changes)
    with pytest.raises(InvalidRequest, match="send it whole"):
        target.open(token, version(2, weights), entries, Changes(target.current.version, (0, 5)))


@pytest.mark.parametrize("positions", [[4, 1], [1, 1], [1, 5], [0, 2**32 - 1]])
def test_positions_of_a_delta_ascend_within_the_tensor(positions):
    target = publication()
    token = target.acquire("run", 1)
    weights = slightly_changed()
    entries, _, changes = changes_of(target, weights)
    data = torch.tensor(positions).to(torch.uint32).numpy().tobytes() + torch.tensor([-0.0, 9.0]).numpy().tobytes()
    with pytest.raises(InvalidRequest, match="not ascending within its 5"):
        send(target, token, 1, weights, (entries, [Chunk(1, 0, data)], changes))


def damaged(chunks, damage, number):
    if damage == "more":
        chunks.append(Chunk(number % 3, 0, b"\0" * 8))
    if not chunks:
        return
    place = number % len(chunks)
    if damage == "flip":
        data = bytearray(chunks[place].data)
        if data:
            data[number % len(data)] ^= 1 << number % 8
        chunks[place] = replace(chunks[place], data=bytes(data))
    elif damage == "drop":
        del chunks[place]
    elif damage == "repeat":
        chunks.insert(place, chunks[place])
    elif damage == "swap":
        other = (place + 1) % len(chunks)
        chunks[place], chunks[other] = chunks[other], chunks[place]
    elif damage == "end":
        del chunks[place:]


class AnyOrder(RuleBasedStateMachine):
    """Whatever order calls come in, only a commit or a revert by the last publisher changes what is served."""

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.target = publication(self.clock)
        self.expected = self.target.current
        self.tokens = [0]
        self.ids = ["never staged"]
        self.incarnations = {}
        self.uploads = []

    @rule(run=st.sampled_from(["a", "b"]), incarnation=st.integers(1, 3))
    def acquire(self, run, incarnation):
        highest = self.incarnations.get(run, 0)
        try:
            token = self.target.acquire(run, incarnation)
        except WrongPin:
            assert incarnation < highest
            return
        assert incarnation >= highest
        assert token > max(self.tokens)
        self.tokens.append(token)
        self.incarnations[run] = incarnation

    @rule(data=st.data(), step=st.integers(0, 3), run=st.sampled_from(["a", "b"]), incarnation=st.integers(1, 3))
    def upload(self, data, step, run, incarnation):
        token = data.draw(st.sampled_from(self.tokens))
        weights = state(step)
        entries = describe_tensors(weights)
        try:
            upload = self.target.open(token, version(step, weights, run, incarnation), entries)
        except ServiceError:
            return
        assert token == self.tokens[-1]
        chunks = list(iter_chunks(weights, entries, 16))
        for chunk in chunks[: data.draw(st.integers(0, len(chunks)))]:
            upload.add(chunk)
        self.uploads.append(upload)

    @precondition(lambda self: self.uploads)
    @rule(data=st.data())
    def finish(self, data):
        upload = self.uploads.pop(data.draw(st.integers(0, len(self.uploads) - 1)))
        try:
            staged = self.target.keep(upload, upload.finish())
        except ServiceError:
            self.target.close(upload)
            return
        assert same(staged.served.weights, state(upload.version.step))
        self.ids.append(staged.staging_id)

    @rule(data=st.data())
    def commit(self, data):
        token, staging_id = data.draw(st.sampled_from(self.tokens)), data.draw(st.sampled_from(self.ids))
        try:
            done = self.target.commit(token, staging_id, None)
        except ServiceError:
            return
        assert token == self.tokens[-1]
        assert done.current == self.target.current.version
        assert same(self.target.current.weights, state(done.current.step))
        self.expected = self.target.current

    @rule(data=st.data())
    def revert(self, data):
        token = data.draw(st.sampled_from(self.tokens))
        try:
            self.target.revert(token, None)
        except ServiceError:
            return
        assert token == self.tokens[-1]
        self.expected = self.target.current

    @rule(seconds=st.sampled_from([1.0, 61.0]))
    def wait(self, seconds):
        self.clock.now += seconds

    @invariant()
    def what_is_served_is_what_was_committed(self):
        assert self.target.current is self.expected
        digest = weights_digest(describe_tensors(self.target.current.weights))
        assert digest == self.target.current.version.digest


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=25)
TestAnyOrder = AnyOrder.TestCase
