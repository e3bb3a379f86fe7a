"""Publishing and sampling with several real replicas, some of which fail."""

import copy
import signal
import socket
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from palate.client import PolicyClient, PolicyVersion, SamplingParams
from palate.client.address import Address
from palate.client.types import FinishReason, GeneratedCompletion, VersionSpan
from palate.local_server import LocalServer, local_server
from tests.servers import start_server
from trainer.exposure import Vitals
from trainer.ppo import fleet as fleet_module
from trainer.ppo.errors import NoReplica, OtherWeights, PromptMismatch, PublishFailed, RolloutsFailed
from trainer.ppo.fleet import Fleet, resolve
from trainer.ppo.patience import Patience
from trainer.ppo.payload import weights_payload
from trainer.ppo.publish import PublishSettings, WeightPublisher
from trainer.ppo.replica import Deadlines, Replica
from trainer.ppo.rollouts import RolloutCollector, RolloutSettings, Wanted, rollout_of
from trainer.types import PromptDraw

PUBLISHING = PublishSettings(Patience(2), Deadlines(stage=60, commit=60))
SETTINGS = RolloutSettings(
    SamplingParams(temperature=1.0, max_new_tokens=6), shard_prompts=2, patience=Patience(2), timeout=60
)


@dataclass(frozen=True)
class Restartable:
    """A policy server that comes back at its address."""

    folder: str
    stack: ExitStack
    server: LocalServer

    @property
    def target(self):
        return self.server.target

    def restarted(self):
        self.server.process.kill()
        self.server.process.wait()
        self.stack.close()
        return restartable(self.folder, int(self.target.rpartition(":")[2]))


def restartable(folder, port=0):
    stack = ExitStack()
    command = ["-m", "services.policy", "--model", str(folder), "--threads", "1", "--drain-delay-seconds", "0"]
    return Restartable(folder, stack, stack.enter_context(local_server(command, port=port)))


@pytest.fixture
def clients(replicas):
    opened = [PolicyClient(server.target) for server in replicas]
    yield opened
    for client in opened:
        client.close()


@pytest.fixture
def model(policy_folder):
    return AutoModelForCausalLM.from_pretrained(policy_folder)


def served(clients):
    return [client.policy_info().policy_version for client in clients]


def changed(model, amount):
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.model.norm.weight.add_(amount)
    return other


def fleet_of(clients):
    by_target = {client.target: client for client in clients}
    return Fleet(list(by_target), lambda address: by_target[address.target])


def publisher_of(clients, run_id, incarnation=1):
    return WeightPublisher(fleet_of(clients), run_id, incarnation, PUBLISHING)


def collector_of(publisher):
    return RolloutCollector(publisher.replicas, publisher.catch_up, SETTINGS)


def draws_of(clients, count):
    texts = [f"prompt {i}" for i in range(count)]
    found = {}
    for one in clients[0].generate(texts, sampling=SamplingParams(max_new_tokens=1)):
        found[one.prompt_index] = one.prompt_token_ids
    return [PromptDraw(text, found[i], seed=i) for i, text in enumerate(texts)]


def test_every_replica_serves_what_is_published(clients, model):
    publisher = publisher_of(clients, "everywhere")
    first = publisher.publish(model, 0)
    second = publisher.publish(changed(model, 0.1), 1)
    assert served(clients) == [second, second]
    assert first.digest != second.digest
    assert (second.run_id, second.incarnation, second.step) == ("everywhere", 1, 1)
    assert publisher.publish(changed(model, 0.1), 1) == second  # the same again is no conflict


def test_shards_do_not_depend_on_the_number_of_replicas(clients, model):
    publisher = publisher_of(clients, "shards")
    version = publisher.publish(model, 0)
    draws = draws_of(clients, 5)
    found = [
        RolloutCollector(lambda some=some: some, publisher.catch_up, SETTINGS).collect(draws, version)
        for some in (publisher.replicas(), publisher.replicas()[:1])
    ]
    assert [rollout.completion_ids for rollout in found[0]] == [rollout.completion_ids for rollout in found[1]]
    assert [rollout.prompt for rollout in found[0]] == [draw.text for draw in draws]


def test_what_one_replica_refuses_none_keeps(clients, model, monkeypatch):
    publisher = publisher_of(clients, "all or none")
    before = publisher.publish(model, 0)
    commit = Replica.commit

    def overtaken(replica, *args):
        if replica.client is clients[1]:
            with PolicyClient(clients[1].target) as intruder:
                intruder.acquire_publisher("intruder", 1)
        return commit(replica, *args)

    monkeypatch.setattr(Replica, "commit", overtaken)
    with pytest.raises(PublishFailed, match=clients[1].target):
        publisher.publish(changed(model, 0.2), 1)
    assert served(clients) == [before, before]
    monkeypatch.undo()
    # The right is gone for good: another run has it, and takes no argument.
    with pytest.raises(PublishFailed, match="fencing token"):
        publisher.publish(changed(model, 0.2), 2)
    assert served(clients) == [before, before]


def test_a_stale_incarnation_cannot_publish(clients, model):
    old, new = publisher_of(clients, "twice", 1), publisher_of(clients, "twice", 2)
    old.publish(model, 5)
    version = new.publish(changed(model, 0.3), 3)  # a resumed run may go back
    with pytest.raises(PublishFailed):
        old.publish(model, 6)
    with pytest.raises(PublishFailed, match="incarnation"):
        publisher_of(clients, "twice", 1).publish(model, 7)
    assert served(clients) == [version, version]


def test_a_replica_that_dies_takes_nothing_with_it(clients, model, policy_folder):
    with start_server("services.policy", policy_folder) as third:
        with PolicyClient(third.target) as dying:
            everyone = [dying, *clients]
            vitals = Vitals()
            publisher = WeightPublisher(fleet_of(everyone), "dying", 1, PUBLISHING, vitals=vitals)
            before = publisher.publish(model, 0)
            assert served(everyone) == [before] * 3
            third.process.kill()
            third.process.wait()

            collector = collector_of(publisher)  # the first shard is asked of the dead one first
            draws = draws_of(clients, 3)
            assert len(collector.collect(draws, before)) == 3

            with pytest.raises(PublishFailed, match=third.target):
                publisher.publish(changed(model, 0.4), 1)
            assert served(clients) == [before, before]
        tries = "palate_training_publications_total"
        assert vitals.registry.get_sample_value(tries, {"outcome": "ok"}) == 1
        assert vitals.registry.get_sample_value(tries, {"outcome": "failed"}) == PUBLISHING.patience.tries
        alone = publisher_of(clients, "dying", 2)
        after = alone.publish(changed(model, 0.4), 1)
        assert served(clients) == [after, after]


def test_a_restarted_replica_is_brought_up_to_date_before_its_rollouts_count(clients, model, policy_folder):
    third = restartable(policy_folder)
    with PolicyClient(third.target) as back:
        publisher = publisher_of([back, *clients], "back")
        version = publisher.publish(changed(model, 0.5), 1)
        third = third.restarted()
        assert served([back]) != [version]
        rollouts = collector_of(publisher).collect(draws_of(clients, 3), version)  # the first shard is asked of it
        assert {rollout.oldest_version for rollout in rollouts} == {version}
        assert served([back, *clients]) == [version] * 3

        third = third.restarted()  # it has forgotten who may publish, too
        after = publisher.publish(changed(model, 0.6), 2)
        assert served([back, *clients]) == [after] * 3
    third.stack.close()


def test_a_replica_that_restarts_between_staging_and_commit(clients, model, policy_folder, monkeypatch):
    third = restartable(policy_folder)
    with PolicyClient(third.target) as back:
        publisher = publisher_of([*clients, back], "between")
        publisher.publish(model, 0)
        commit = Replica.commit

        def restarting(replica, *args):
            nonlocal third
            if replica.client is back:
                monkeypatch.undo()
                third = third.restarted()
            return commit(replica, *args)

        monkeypatch.setattr(Replica, "commit", restarting)
        after = publisher.publish(changed(model, 0.7), 1)
        assert served([back, *clients]) == [after] * 3
    third.stack.close()


def test_a_replica_that_stands_still_does_not_hold_a_run_for_ever(clients, model, policy_folder):
    with start_server("services.policy", policy_folder) as third, PolicyClient(third.target) as standing:
        quick = PublishSettings(Patience(1), Deadlines(stage=1, commit=1))
        publisher = WeightPublisher(fleet_of([standing, *clients]), "still", 1, quick)
        before = publisher_of(clients, "before").publish(model, 0)
        third.process.send_signal(signal.SIGSTOP)
        with pytest.raises(PublishFailed, match=third.target):
            publisher.publish(model, 0)
        third.process.kill()
        assert served(clients) == [before, before]


@pytest.mark.parametrize("oldest", [None, 0])
def test_replicas_behind_a_name_come_and_go(model, policy_folder, monkeypatch, oldest):
    addresses = ["127.0.0.1"]
    monkeypatch.setattr(fleet_module, "_FRESH_SECONDS", 0.0)
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, port, type: [(socket.AF_INET, type, 6, "", (a, port)) for a in addresses]
    )
    command = ["-m", "services.policy", "--model", str(policy_folder), "--threads", "1", "--drain-delay-seconds", "0"]
    with local_server(command) as first, ExitStack() as stack:
        port = int(first.target.rpartition(":")[2])
        fleet = stack.enter_context(Fleet([f"dns:policy:{port}"], lambda address: PolicyClient(address.target)))
        publisher = WeightPublisher(fleet, "named", 1, replace(PUBLISHING, copy=oldest is not None))
        learning = changed(model, 0.8)
        version = publisher.publish(learning, 1)
        if oldest is not None:  # an update is under way while rollouts are drawn
            torch.nn.init.ones_(learning.model.norm.weight)
        stack.enter_context(local_server(command, host="127.0.0.2", port=port))
        addresses.append("127.0.0.2")

        late = publisher.replicas()[1]
        assert late.info().policy_version != version
        rollouts = collector_of(publisher).collect(draws_of([late.client], 3), version, oldest)
        assert {rollout.oldest_version for rollout in rollouts} == {version}
        assert late.info().policy_version == version

        addresses[:] = ["127.0.0.2"]
        after = publisher.publish(changed(model, 0.9), 2)
        assert [replica.target for replica in publisher.replicas()] == [f"127.0.0.2:{port}"]
        assert late.info().policy_version == after


def test_names_are_resolved_to_every_address(monkeypatch):
    found = [(socket.AF_INET, "10.0.0.2"), (socket.AF_INET6, "fd00::1"), (socket.AF_INET, "10.0.0.2")]
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, port, type: [(f, type, 6, "", (a, port, 0, 0)) for f, a in found]
    )
    expected = [Address("10.0.0.2:50052", "policy"), Address("[fd00::1]:50052", "policy")]
    assert resolve("dns:policy:50052") == resolve("dns:///policy:50052") == expected
    assert resolve("policy:50052") == [Address("policy:50052")]
    with pytest.raises(NoReplica, match="dns:NAME:PORT"):
        resolve("dns:policy")


def test_a_name_that_was_resolved_once_may_be_unknown_for_a_while(monkeypatch):
    def unknown(*args, **more):
        raise socket.gaierror("unknown")

    monkeypatch.setattr(fleet_module, "_FRESH_SECONDS", 0.0)
    with Fleet(["dns:localhost:1"], lambda address: PolicyClient(address.target)) as fleet:
        known = fleet.clients()
        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        assert fleet.clients() == known
        with pytest.raises(NoReplica, match="localhost has no address"):
            Fleet(["dns:localhost:1"], PolicyClient).clients()


def test_the_client_of_a_replica_that_has_gone_lingers(monkeypatch):
    addresses = ["127.0.0.1", "127.0.0.2"]
    monkeypatch.setattr(fleet_module, "_FRESH_SECONDS", 0.0)
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, port, type: [(socket.AF_INET, type, 6, "", (a, port)) for a in addresses]
    )
    for linger, closed in ((0.0, True), (1e9, False)):
        addresses[:] = ["127.0.0.1", "127.0.0.2"]
        with Fleet(["dns:policy:1"], lambda address: PolicyClient(address.target), linger) as fleet:
            gone = fleet.clients()[1]
            addresses.pop()
            assert len(fleet.clients()) == 1
            fleet.forget_gone()
            assert gone._closed == closed
        assert gone._closed


def test_what_changed_is_enough_and_a_replica_without_the_base_gets_everything(
    clients, model, policy_folder, monkeypatch
):
    stage, sent = PolicyClient.stage_weights, []

    def counting(client, token, version, tensors, chunks, **more):
        chunks = list(chunks)
        sent.append((client.target, more["base"], sum(len(chunk.data) for chunk in chunks)))
        return stage(client, token, version, tensors, chunks, **more)

    monkeypatch.setattr(PolicyClient, "stage_weights", counting)
    third = restartable(policy_folder)
    with PolicyClient(third.target) as back:
        settings = PublishSettings(Patience(2), Deadlines(60, 60), full_every=3)
        publisher = WeightPublisher(fleet_of([*clients, back]), "delta", 1, settings)
        versions = [publisher.publish(changed(model, 0.0), 0), publisher.publish(changed(model, 0.1), 1)]
        third = third.restarted()
        versions += [publisher.publish(changed(model, step / 10), step) for step in (2, 3)]
        assert served([*clients, back]) == [versions[-1]] * 3
        drawn = [
            list(client.generate(["Hello"], seeds=[1], required_policy_version=versions[-1])) for client in clients
        ]
    third.stack.close()
    whole = sum(parameter.nbytes for parameter in model.parameters())
    first = model.model.norm.weight
    changes = first.numel() * (4 + 4)
    assert [(base, size) for _, base, size in sent[:3]] == [(None, whole)] * 3
    assert [(base, size) for _, base, size in sent[3:6]] == [(versions[0], min(changes, first.nbytes))] * 3
    by_target = {target: (base, size) for target, base, size in sent[6:9]}
    assert by_target.pop(third.target) == (None, whole)
    assert set(by_target.values()) == {(versions[1], min(changes, first.nbytes))}
    assert [base for _, base, _ in sent[9:]] == [None] * 3  # every third goes whole
    assert drawn[0] == drawn[1]


def test_a_stale_replica_does_not_slip_in(clients, model):
    publisher = publisher_of(clients, "pinned")
    version = publisher.publish(model, 0)
    collector = collector_of(publisher)
    wanted = PolicyVersion("pinned", 1, 1, version.digest)
    with pytest.raises(RolloutsFailed, match="serves other weights"):
        collector.collect(draws_of(clients, 1), wanted)


VERSION = PolicyVersion("run", 1, 0, "d")
DRAW = PromptDraw("p", (1, 5, 6), seed=3)


def completion(**changes):
    values = {
        "prompt_index": 0,
        "completion_index": 0,
        "token_ids": (7, 8),
        "text": "c",
        "logprobs": (-1.0, -2.0),
        "finish_reason": FinishReason.LENGTH,
        "policy_versions": (VersionSpan(0, VERSION),),
        "seed": 3,
        "prompt_token_ids": (1, 5, 6),
    }
    return GeneratedCompletion(**values | changes)


def test_a_completion_becomes_a_rollout():
    rollout = rollout_of(DRAW, completion(), Wanted(VERSION))
    assert (rollout.prompt, rollout.completion, rollout.completion_ids) == ("p", "c", (7, 8))
    assert rollout.truncated


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"prompt_token_ids": (1, 5)}, PromptMismatch, "3 against 2, different from position 2"),
        ({"prompt_token_ids": (0, 5, 6)}, PromptMismatch, "position 0"),
        ({"policy_versions": (VersionSpan(0, VERSION), VersionSpan(1, PolicyVersion()))}, RolloutsFailed, "drawn from"),
        ({"logprobs": (-1.0,)}, RolloutsFailed, "2 tokens and 1 logprobs"),
        ({"token_ids": (), "logprobs": ()}, RolloutsFailed, "0 tokens"),
        ({"policy_versions": ()}, RolloutsFailed, "drawn from"),
        *(
            ({"policy_versions": tuple(VersionSpan(start, VERSION) for start in starts)}, RolloutsFailed, "spans")
            for starts in ((1,), (0, 0), (0, 2))
        ),
    ],
)
def test_what_does_not_fit_the_draw_is_refused(changes, error, told):
    with pytest.raises(error, match=told):
        rollout_of(DRAW, completion(**changes), Wanted(VERSION))


def test_weights_of_some_steps_before_will_do_where_they_are_wanted():
    newest, start = replace(VERSION, step=5), replace(VERSION, incarnation=2)
    wanted = Wanted(newest, oldest=4)
    assert (wanted.required, Wanted(newest).required) == (None, newest)
    for step, will_do in ((3, False), (4, True), (5, True), (6, True)):  # 6: published since
        drawn = completion(policy_versions=(VersionSpan(0, replace(VERSION, step=step)),))
        assert wanted.accepts(drawn.policy_versions[0].version) == will_do
        assert Wanted(newest).accepts(drawn.policy_versions[0].version) == (step == 5)
        if will_do:
            assert rollout_of(DRAW, drawn, wanted).oldest_version.step == step
    too_old = (VersionSpan(0, replace(newest, step=3)), VersionSpan(1, newest))
    for versions in ((VersionSpan(0, replace(start, step=5)),), (VersionSpan(0, PolicyVersion()),), too_old):
        with pytest.raises(OtherWeights, match="drawn from"):
            rollout_of(DRAW, completion(policy_versions=versions), wanted)


def test_a_rollout_says_which_weights_drew_which_token_and_is_as_old_as_the_oldest():
    old, newest = replace(VERSION, step=4), replace(VERSION, step=5)
    spans = (VersionSpan(0, newest), VersionSpan(1, old))  # a revert may let an older one follow
    rollout = rollout_of(DRAW, completion(policy_versions=spans), Wanted(newest, oldest=4))
    assert rollout.policy_versions == spans
    assert (rollout.interrupted, rollout.oldest_version) == (True, old)
    assert (rollout.drawn_by(old), rollout.drawn_by(newest)) == ((False, True), (True, False))
    with pytest.raises(OtherWeights):
        rollout_of(DRAW, completion(policy_versions=spans), Wanted(newest))
    whole = rollout_of(DRAW, completion(), Wanted(VERSION))
    assert (whole.interrupted, whole.drawn_by(VERSION), whole.drawn_by(old)) == (False, (True,) * 2, (False,) * 2)


@pytest.mark.parametrize("interrupt", [False, True])
def test_a_commit_interrupts_where_the_run_says_so(clients, model, monkeypatch, interrupt):
    commit, told = PolicyClient.commit_weights, []

    def noting(client, *args, **more):
        told.append(more["interrupt"])
        return commit(client, *args, **more)

    monkeypatch.setattr(PolicyClient, "commit_weights", noting)
    settings = replace(PUBLISHING, interrupt=interrupt)
    WeightPublisher(fleet_of(clients), f"interrupt {interrupt}", 1, settings).publish(model, 0)
    assert told == [interrupt] * 2


def test_a_payload_carries_each_tied_tensor_once(model):
    payload = weights_payload(model, "run", 1, 4)
    names = [tensor.name for tensor in payload.tensors()]
    assert "lm_head.weight" not in names
    assert len(names) == len(set(names)) == len(list(model.parameters()))
    assert sum(len(chunk.data) for chunk in payload.chunks()) == sum(tensor.size_bytes for tensor in payload.tensors())
