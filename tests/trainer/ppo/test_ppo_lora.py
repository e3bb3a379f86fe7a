"""Low-rank adapters: the base never changes, adapters alone travel, and what is served are the trainer's own bits."""

import contextlib
import copy
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from palate.client import PolicyClient
from palate.local_server import local_server
from palate.models.adapters import AddedTo
from palate.models.weights import describe_tensors, untied_state_dict, weights_digest
from services.policy.adapters import AdapterBase
from services.policy.engine_transformers import read_tensors
from tests.servers import start_server
from tests.tiny_models import make_tiny_policy
from trainer.config import PPOConfig
from trainer.lora import (
    NotAdaptable,
    adapter_scale,
    adapter_tensors,
    add_adapters,
    base_digest,
    merged_model,
    save_adapter_folder,
    targets_of,
    without_adapters,
)
from trainer.lora_config import LoraGroup
from trainer.metrics import read_metrics
from trainer.ppo import loop
from trainer.ppo.build import load_actor
from trainer.ppo.errors import CheckpointRefused, PublishFailed, UnusableModel
from trainer.ppo.fleet import Fleet
from trainer.ppo.lora_payload import LoraPayloads
from trainer.ppo.model import collate
from trainer.ppo.patience import Patience
from trainer.ppo.publish import PublishSettings, WeightPublisher
from trainer.ppo.replica import Deadlines
from trainer.ppo.run import run_ppo
from trainer.types import Sequences

# Loading an adapter, peft asks transformers for something under its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

LORA = ("--lora.rank", 4, "--ppo.learning-rate", 1e-2)
BATCH = collate(Sequences(((1, 20, 30), (1, 40)), ((50, 60, 70), (80, 90))), pad_id=3)


def digest_of(model):
    return weights_digest(describe_tensors(untied_state_dict(model)))


def perturbed(model, seed=1):
    """As if the adapters had learnt."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.05, generator=generator)
    return model


@pytest.fixture
def actor(policy_folder):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        actor = load_actor(policy_folder)
        add_adapters(actor.model, LoraGroup(rank=4))
    perturbed(actor.model)
    return actor


def test_only_adapters_learn(actor):
    learning = {name for name, parameter in actor.model.named_parameters() if parameter.requires_grad}
    assert all(".lora_" in name for name in learning)
    assert len(learning) == len(adapter_tensors(actor.model)) == 2 * 7 * 2  # seven linear layers in each of two blocks
    assert not any(module.training for module in actor.modules())
    assert adapter_scale(actor.model) == 4.0


def test_the_merged_model_is_that_of_peft(actor, policy_folder, tmp_path):
    folder = save_adapter_folder(actor.model, policy_folder, tmp_path / "adapter")
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(policy_folder), folder)
    ids = torch.tensor([[1, 5, 9, 20, 33]])
    with torch.inference_mode():
        assert torch.equal(theirs(ids).logits, actor.model(ids).logits)
        expected, mine = theirs.merge_and_unload(), merged_model(actor.model)
        logits = expected(ids).logits
        assert (logits - mine(ids).logits).abs().max() <= 1e-6 * logits.abs().max()
    found, wanted = untied_state_dict(mine), untied_state_dict(expected)
    assert found.keys() == wanted.keys()
    assert all(torch.allclose(found[name], wanted[name], rtol=0, atol=1e-6) for name in wanted)


def test_the_policy_without_adapters_is_its_start_and_takes_no_memory(actor, policy_folder):
    start, plain = load_actor(policy_folder), without_adapters(actor)
    with torch.inference_mode():
        assert torch.equal(plain.logprobs(BATCH, 0.7), start.logprobs(BATCH, 0.7))
        assert not torch.equal(plain.logprobs(BATCH, 0.7), actor.logprobs(BATCH, 0.7))
    mine = {parameter.data_ptr() for parameter in actor.parameters()}
    assert {parameter.data_ptr() for parameter in plain.parameters()} < mine
    assert base_digest(actor.model) == digest_of(start.model) == digest_of(plain.model)
    assert base_digest(start.model) == ""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_trainer_and_service_make_the_same_bits(actor, policy_folder, dtype):
    served = getattr(torch, dtype)
    payload = LoraPayloads(actor.model, None if served is torch.float32 else served)(actor.model, "run", 1, 3)
    tensors = read_tensors(policy_folder, dtype)
    base = AdapterBase(describe_tensors(tensors), lambda: tensors)
    targets = base.check(payload.entries, AddedTo(payload.added.base, payload.added.scale))
    merged = base.merged(payload.state, targets, payload.added.scale, payload.version.digest)
    assert weights_digest(describe_tensors(merged)) == payload.version.digest
    assert {tensor.dtype for tensor in merged.values()} == {served}
    if served is torch.float32:
        assert payload.version.digest == digest_of(merged_model(actor.model))


def test_a_payload_holds_while_the_adapters_learn_on(actor):
    payload = LoraPayloads(actor.model, None)(actor.model, "run", 1, 3)
    kept, before = payload.copied(), copy.deepcopy(payload.state)
    perturbed(actor.model, seed=2)
    assert all(torch.equal(kept.state[name], before[name]) for name in before)
    assert kept.size_bytes == sum(tensor.nbytes for tensor in before.values())


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("q_proj,nose", "no plain linear layers called nose"),
        ("lm_head", "lm_head"),
        ("embed_tokens", "has down_proj"),
    ],
)
def test_layers_that_cannot_be_adapted_are_named(policy_folder, target, told):
    with pytest.raises(NotAdaptable, match=told):
        add_adapters(load_actor(policy_folder).model, LoraGroup(rank=4, target_modules=target.split(",")))


def test_a_rank_beyond_the_matrix_is_refused(policy_folder):
    with pytest.raises(NotAdaptable, match=r"--lora\.rank 17 is more than .*k_proj has: give 16 or less"):
        add_adapters(load_actor(policy_folder).model, LoraGroup(rank=17, target_modules=["k_proj"]))


def test_named_layers_alone_have_adapters(policy_folder):
    model = load_actor(policy_folder).model
    add_adapters(model, LoraGroup(rank=2, alpha=3, target_modules=["self_attn.q_proj", "down_proj"]))
    assert {name.split(".", 3)[3] for name in targets_of(model)} == {"self_attn.q_proj.weight", "mlp.down_proj.weight"}
    assert adapter_scale(model) == 1.5


def test_a_model_of_other_layers_is_refused():
    gpt2 = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=16, n_positions=8))
    with pytest.raises(NotAdaptable, match="no plain linear layers"):
        add_adapters(gpt2, LoraGroup(rank=2))


@pytest.mark.parametrize(
    ("lora", "told"),
    [
        ({"alpha": 8}, "alpha has no effect with rank 0"),
        ({"target_modules": ["q_proj"]}, "target_modules has no effect with rank 0"),
        ({"rank": -1}, "greater than or equal to 0"),
        ({"rank": 4, "alpha": 0}, "greater than or equal to 1"),
        ({"rank": 4, "target_modules": []}, "at least 1"),
        ({"rank": 4, "target_modules": ["all-linear", "q_proj"]}, "alone, or names"),
        ({"rank": 4, "target_modules": [" "]}, "empty name"),
    ],
)
def test_what_makes_no_sense_is_refused(lora, told):
    with pytest.raises(ValueError, match=told):
        PPOConfig(out="o", policy="p", prompts="q", lora=lora)


def test_deltas_and_adapters_exclude_each_other():
    with pytest.raises(ValueError, match="adapters always go whole"):
        PPOConfig(out="o", policy="p", prompts="q", lora={"rank": 4}, services={"full_every": 2})


def test_a_run_learns_adapters_publishes_them_alone_and_leaves_both_folders(configure, replicas, policy_folder):
    config = configure(*LORA, "--total-steps", 3, replica_count=2, without=("--ppo.learning-rate",))
    result = run_ppo(config)
    for server in replicas:
        with PolicyClient(server.target) as client:
            assert client.policy_info().policy_version == result.version
    model = AutoModelForCausalLM.from_pretrained(result.model_folder)
    assert result.version.digest == digest_of(model)

    start = AutoModelForCausalLM.from_pretrained(policy_folder)
    before, after = untied_state_dict(start), untied_state_dict(model)
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if "proj" not in name}

    rows = read_metrics(config.out)
    assert rows[0]["objective/kl"] == pytest.approx(0, abs=1e-4)
    assert rows[-1]["objective/kl"] > 0
    for row in rows:
        assert row["policy/behaviour_deviation"] <= 1e-5
        assert row["policy/importance_max"] == pytest.approx(1, abs=1e-4)  # first-epoch ratios are checked by the run
        assert row["publish/bytes"] == 16384 < sum(tensor.nbytes for tensor in before.values()) / 5

    theirs = PeftModel.from_pretrained(start, config.out / "adapter").merge_and_unload()
    ids = torch.tensor([[1, 5, 9, 20, 33]])
    with torch.inference_mode():
        assert torch.allclose(theirs(ids).logits, model(ids).logits, rtol=0, atol=1e-4)
    kept = load_file(max((config.out / "checkpoints").glob("step-*")) / "model.safetensors")
    assert all(".lora_" in name for name in kept if name.startswith("actor."))
    assert any(name.startswith("critic.") for name in kept)


class Killed(BaseException):
    """Ends a run as a signal would."""


def test_a_strict_run_that_is_killed_resumes_to_the_same_bits(configure, reward_folder, monkeypatch, tmp_path):
    with start_server("services.reward", reward_folder, "--strict", "--drain-delay-seconds", "0") as reward:
        flags = (*LORA, "--strict", "--services.reward", reward.target, "--total-steps", 3)
        flags = (*flags, "--record.checkpoint-every", 1, "--ppo.num-mini-batches", 2)
        whole = run_ppo(configure(*flags, out="whole"))
        steps, train_step = iter(range(2)), loop.train_step

        def killed_in_the_third(*args):
            if next(steps, None) is None:
                raise Killed
            return train_step(*args)

        monkeypatch.setattr(loop, "train_step", killed_in_the_third)
        with pytest.raises(Killed):
            run_ppo(configure(*flags, out="cut"))
        monkeypatch.undo()
        resumed = run_ppo(configure(*flags, "--resume", out="cut"))
        assert (resumed.version.incarnation, resumed.version.digest) == (2, whole.version.digest)
        checkpoints = (tmp_path / run / "checkpoints" / "step-000003" for run in ("whole", "cut"))
        kept = [load_file(checkpoint / "model.safetensors") for checkpoint in checkpoints]
        assert kept[0].keys() == kept[1].keys()
        assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


def test_adapters_go_on_only_on_the_weights_that_they_were_trained_on(configure, policy_folder, tmp_path, replicas):
    policy = shutil.copytree(policy_folder, tmp_path / "policy")
    flags = (*LORA, "--ppo.estimator", "reinforce_pp")
    run_ppo(configure(*flags, policy=policy))
    shutil.copy(make_tiny_policy(tmp_path / "other", seed=1, chat=True) / "model.safetensors", policy)
    with pytest.raises(CheckpointRefused, match="adapters were trained on weights"):
        run_ppo(configure(*flags, "--resume", "--total-steps", 3, policy=policy))
    with pytest.raises(PublishFailed, match="this server started with"):
        run_ppo(configure(*flags, policy=policy, out="another"))


@contextlib.contextmanager
def policy_server(folder, port=0):
    command = ["-m", "services.policy", "--model", str(folder), "--threads", "1", "--drain-delay-seconds", "0"]
    with local_server(command, port=port) as server:
        yield server
        server.process.kill()
        server.process.wait()


def test_a_replica_that_restarts_gets_the_adapters_again(actor, replicas, policy_folder):
    def connected(addresses):
        return Fleet(addresses, lambda address: PolicyClient(address.target))

    settings = PublishSettings(Patience(2), Deadlines(60, 60), payload=LoraPayloads(actor.model, None))
    with policy_server(policy_folder) as late, connected([replicas[0].target, late.target]) as fleet:
        publisher = WeightPublisher(fleet, "late adapters", 1, settings)
        publisher.publish(actor.model, 1)
        late.process.kill()
        late.process.wait()
        with policy_server(policy_folder, int(late.target.rpartition(":")[2])):
            replica = publisher.replicas()[1]
            version = publisher._last.version
            assert replica.info().policy_version != version
            publisher.catch_up(replica)
            assert [one.info().policy_version for one in publisher.replicas()] == [version] * 2
            after = publisher.publish(perturbed(actor.model, seed=5), 2)
            assert [one.info().policy_version for one in publisher.replicas()] == [after] * 2


def test_a_service_without_adapters_is_refused(configure, policy_folder):
    with (
        start_server("services.policy", policy_folder, "--engine", "fake", "--drain-delay-seconds", "0") as fake,
        pytest.raises(UnusableModel, match="takes no adapters"),
    ):
        run_ppo(configure(*LORA, "--services.policy", fake.target))
