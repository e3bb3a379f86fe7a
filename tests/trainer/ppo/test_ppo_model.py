"""Actor and critic against transformers used directly, and the folders they are made from."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, GPT2Config, GPT2LMHeadModel

from palate.models.folder import FolderError
from tests.tiny_models import make_tiny_policy, make_tiny_reward
from trainer.ppo.build import build_actor_critic, load_actor, load_policy
from trainer.ppo.errors import UnusableModel
from trainer.ppo.evaluate import ForwardSettings, in_microbatches
from trainer.ppo.model import CausalLM, collate, microbatches
from trainer.ppo.team import Cut
from trainer.types import Sequences

PROMPTS = ((1, 50, 60), (1, 70), (1, 80, 90, 100, 110))
COMPLETIONS = ((20, 30, 2), (40,), (50, 60, 70, 80))
SEQUENCES = Sequences(PROMPTS, COMPLETIONS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_policy(tmp_path_factory.mktemp("policy"), seed=0)


@pytest.fixture(scope="module")
def direct(folder):
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@torch.no_grad()
def expected_logprobs(model, temperature):
    rows = []
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        logits = model(input_ids=torch.tensor([prompt + completion])).logits[0]
        logprobs = (logits / temperature).log_softmax(-1)
        first = len(prompt)
        rows.append([logprobs[first + t - 1, token].item() for t, token in enumerate(completion)])
    return rows


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_logprobs_equal_one_sequence_at_a_time(folder, direct, temperature, size):
    actor, settings = load_actor(folder), ForwardSettings(size, pad_id=3, temperature=temperature)
    cuts = [Cut(rows) for rows in microbatches(SEQUENCES.lengths(), size)]
    (logprobs,) = in_microbatches(SEQUENCES, cuts, settings, lambda batch: (actor.logprobs(batch, temperature),))
    for row, expected in enumerate(expected_logprobs(direct, temperature)):
        assert logprobs[row, : len(expected)].tolist() == pytest.approx(expected, abs=1e-5)
        assert (logprobs[row, len(expected) :] == 0).all()


def test_another_architecture_works_alike():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=128, n_embd=32, n_layer=2, n_head=2, n_positions=64, initializer_range=0.3)
    model = GPT2LMHeadModel(config).eval()
    logprobs = CausalLM(model).logprobs(collate(SEQUENCES, pad_id=0), 0.7)
    for row, expected in enumerate(expected_logprobs(model, 0.7)):
        assert logprobs[row, : len(expected)].tolist() == pytest.approx(expected, abs=1e-5)


def test_pad_id_changes_nothing(folder):
    actor = load_actor(folder)
    with torch.no_grad():
        for pad_id in (3, 2, 0):
            torch.testing.assert_close(
                actor.logprobs(collate(SEQUENCES, pad_id), 1.0), actor.logprobs(collate(SEQUENCES, 3), 1.0)
            )


def test_critic_starts_from_the_policy_with_values_of_zero(folder):
    _, renderer = load_policy(folder)
    model = build_actor_critic(folder, "policy", renderer)
    values, final = model.critic.values_with_final(collate(SEQUENCES, 3))
    assert values.shape == (3, 4)
    assert (values == 0).all()
    assert (final == 0).all()
    policy, critic = model.actor.model.base_model.state_dict(), model.critic.backbone.state_dict()
    assert all(torch.equal(tensor, critic[name]) for name, tensor in policy.items())
    shared = {id(p) for p in model.actor.parameters()} & {id(p) for p in model.critic.parameters()}
    assert not shared
    assert not any(module.training for module in model.modules())


def test_critic_starts_from_a_reward_model_and_ends_with_its_score(folder, tmp_path):
    reward = make_tiny_reward(tmp_path / "reward", "decoder", seed=3)
    _, renderer = load_policy(folder)
    model = build_actor_critic(folder, f"reward:{reward}", renderer)
    with torch.no_grad():
        values, final = model.critic.values_with_final(collate(SEQUENCES, 3))
        classifier = AutoModelForSequenceClassification.from_pretrained(reward).eval()
        for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
            score = classifier(input_ids=torch.tensor([prompt + completion])).logits.item()
            assert final[row].item() == pytest.approx(score, abs=1e-5)
            before_last = classifier(input_ids=torch.tensor([prompt + completion[:-1]])).logits.item()
            assert values[row, len(completion) - 1].item() == pytest.approx(before_last, abs=1e-5)


def test_a_reward_model_that_reads_otherwise_is_refused(folder, tmp_path):
    _, renderer = load_policy(folder)
    encoder = make_tiny_reward(tmp_path / "encoder", "encoder", seed=0)
    with pytest.raises(UnusableModel, match="not a decoder"):
        build_actor_critic(folder, f"reward:{encoder}", renderer)
    other = make_tiny_reward(tmp_path / "decoder", "decoder", seed=0)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Lowercase"}
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UnusableModel, match="another tokenizer"):
        build_actor_critic(folder, f"reward:{other}", renderer)


def test_a_critic_that_reads_less_than_the_policy_is_refused(folder, tmp_path):
    _, renderer = load_policy(folder)
    short = make_tiny_reward(tmp_path / "short", "decoder", seed=0, max_tokens=64)
    with pytest.raises(UnusableModel, match=r"reads at most 64 tokens, the policy 256; use --ppo\.critic-init policy"):
        build_actor_critic(folder, f"reward:{short}", renderer)


def test_pickled_or_missing_weights_are_refused(tmp_path):
    folder = make_tiny_policy(tmp_path, seed=0, tied=False)
    tensors = load_file(folder / "model.safetensors")
    head = tensors.pop("lm_head.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FolderError, match=r"made up at random: lm_head\.weight"):
        load_actor(folder)
    (folder / "model.safetensors").unlink()
    torch.save({**tensors, "lm_head.weight": head}, folder / "pytorch_model.bin")
    with pytest.raises(FolderError, match="Pickled weights are never loaded"):
        load_actor(folder)


def test_a_reward_folder_is_no_policy(tmp_path):
    with pytest.raises(UnusableModel, match="reward model"):
        load_policy(make_tiny_reward(tmp_path / "reward", "decoder", seed=0))


def test_logits_that_change_behind_the_output_layer_are_refused(folder, tmp_path, monkeypatch):
    class Capped(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner
            self.base_model = inner.base_model

        def get_output_embeddings(self):
            return self.inner.lm_head

        def forward(self, **inputs):
            output = self.inner(**inputs)
            output.logits = 2 * torch.tanh(output.logits / 2)
            return output

    inner = AutoModelForCausalLM.from_pretrained(folder)
    loaded = (Capped(inner), {"missing_keys": []})
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *args, **kwargs: loaded)
    with pytest.raises(UnusableModel, match="soft-capping"):
        load_actor(folder)


def test_microbatches_hold_every_row_once_with_neighbours_of_like_length():
    lengths = [9, 1, 5, 5, 2, 8, 1]
    groups = microbatches(lengths, 3)
    assert sorted(row for group in groups for row in group) == list(range(7))
    assert [[lengths[row] for row in group] for group in groups] == [[1, 1, 2], [5, 5, 8], [9]]
