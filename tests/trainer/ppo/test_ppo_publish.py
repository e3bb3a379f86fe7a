"""Publishing and sampling with several real replicas, some of which fail."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM

from palate.client import PolicyClient, PolicyVersion, SamplingParams
from palate.client.types import FinishReason, GeneratedCompletion, VersionSpan
from tests.servers import start_server
from trainer.ppo.errors import PromptMismatch, PublishFailed, RolloutsFailed
from trainer.ppo.patience import Patience
from trainer.ppo.payload import weights_payload
from trainer.ppo.publish import PublishSettings, WeightPublisher
from trainer.ppo.replica import Deadlines, Replica
from trainer.ppo.rollouts import RolloutCollector, RolloutSettings, rollout_of
from trainer.types import PromptDraw

PUBLISHING = PublishSettings(Patience(2), Deadlines(stage=60, commit=60))
SETTINGS = RolloutSettings(
    SamplingParams(temperature=1.0, max_new_tokens=6), shard_prompts=2, patience=Patience(2), timeout=60
)


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


def publisher_of(clients, run_id, incarnation=1):
    return WeightPublisher(clients, run_id, incarnation, PUBLISHING)


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
            publisher = publisher_of(everyone, "dying")
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
        alone = publisher_of(clients, "dying", 2)
        after = alone.publish(changed(model, 0.4), 1)
        assert served(clients) == [after, after]


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
    rollout = rollout_of(DRAW, completion(), VERSION)
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
    ],
)
def test_what_does_not_fit_the_draw_is_refused(changes, error, told):
    with pytest.raises(error, match=told):
        rollout_of(DRAW, completion(**changes), VERSION)


def test_a_payload_carries_each_tied_tensor_once(model):
    payload = weights_payload(model, "run", 1, 4)
    names = [tensor.name for tensor in payload.tensors]
    assert "lm_head.weight" not in names
    assert len(names) == len(set(names)) == len(list(model.parameters()))
    assert sum(len(chunk.data) for chunk in payload.chunks()) == sum(tensor.size_bytes for tensor in payload.tensors)
