"""Planted faults fire the invariants in whole runs over real services; the first cause named is the true one."""

import copy
import json
import shutil
from dataclasses import replace

import pytest
import torch

from palate.client.types import FinishReason, PolicyVersion, VersionSpan
from palate.models.manifest import load_manifest, write_manifest
from tests.servers import start_server
from tests.tiny_models import make_tiny_policy
from trainer.ppo import evaluate, setup
from trainer.ppo.errors import (
    BehaviourMismatch,
    MaskMismatch,
    PadIsEos,
    PromptMismatch,
    PromptsUnusable,
    UnusableModel,
)
from trainer.ppo.invariants import Suspects, check_behaviour, check_mask, check_pad_token
from trainer.ppo.publish import WeightPublisher
from trainer.ppo.run import run_ppo
from trainer.types import Rollout, length_mask


def test_without_a_fault_nothing_fires(configure):
    assert run_ppo(configure()).steps == 2


def test_another_temperature_on_one_side(configure, monkeypatch):
    honest = setup._rollout_settings

    def hotter(*args):
        settings = honest(*args)
        return replace(settings, sampling=replace(settings.sampling, temperature=1.0))

    monkeypatch.setattr(setup, "_rollout_settings", hotter)
    with pytest.raises(BehaviourMismatch) as raised:
        run_ppo(configure())
    assert "temperature" in raised.value.causes[0]
    assert "0.7" in raised.value.causes[0]


def test_dropout_is_on(configure, monkeypatch):
    honest = setup.build_actor_critic

    def training(*args):
        model = honest(*args)
        for module in model.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.1
        return model.train()

    monkeypatch.setattr(setup, "build_actor_critic", training)
    with pytest.raises(BehaviourMismatch) as raised:
        run_ppo(configure())
    assert "dropout" in raised.value.causes[0]


def test_stale_weights(configure, monkeypatch):
    honest = WeightPublisher.publish
    kept = []

    def never_newer(self, model, step):
        kept[:] = kept or [copy.deepcopy(model)]
        return honest(self, kept[0], step)

    monkeypatch.setattr(WeightPublisher, "publish", never_newer)
    with pytest.raises(BehaviourMismatch) as raised:
        run_ppo(configure("--ppo.learning-rate", 1e-2))
    assert "stale weights" in raised.value.causes[0]


def test_another_template_on_one_side(configure, policy_folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(policy_folder, other)
    template = other / "chat_template.jinja"
    template.write_text(template.read_text().replace("[assistant] ", "[assistant]: "))
    with (
        start_server("services.policy", other, "--drain-delay-seconds", "0") as server,
        pytest.raises(PromptMismatch, match="template"),
    ):
        run_ppo(configure("--services.policy", server.target))


def test_another_tokenizer_on_one_side(configure, policy_folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(policy_folder, other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Lowercase"}
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(PromptMismatch, match="another tokenizer"):
        run_ppo(configure(policy=other))


def shortened(policy_folder, folder, max_tokens):
    """The same model, which says of itself that it reads less."""
    shutil.copytree(policy_folder, folder)
    write_manifest(folder, replace(load_manifest(folder).manifest, max_tokens=max_tokens))
    return folder


def test_lengths_beyond_the_policys_own_are_refused(configure, policy_folder, tmp_path):
    short = shortened(policy_folder, tmp_path / "short", 40)
    with pytest.raises(PromptsUnusable, match="max-new-tokens 40 leaves no room for a prompt: the policy reads 40"):
        run_ppo(configure("--sampling.max-new-tokens", 40, policy=short))
    with pytest.raises(PromptsUnusable, match="more than 12 tokens"):
        run_ppo(configure("--sampling.max-new-tokens", 28, policy=short))
    assert not (tmp_path / "run").exists()


def test_a_reference_that_reads_less_than_the_policy(configure, policy_folder, tmp_path):
    short = shortened(policy_folder, tmp_path / "short", 64)
    with (
        start_server("services.policy", short, "--frozen", "--drain-delay-seconds", "0") as server,
        pytest.raises(UnusableModel, match="reads at most 64 tokens, --policy 256"),
    ):
        run_ppo(configure("--services.ref", server.target))


def test_pad_is_eos(configure, tmp_path):
    folder = make_tiny_policy(tmp_path / "policy", seed=0)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["pad_token"] = settings["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(PadIsEos) as raised:
        run_ppo(configure(policy=folder))
    assert "eos_token as pad_token" in raised.value.causes[0]


def test_a_mask_made_of_pad_ids_with_pad_as_eos(configure, monkeypatch, replicas):
    """What other trainers do with pad == eos: the end of sequence is taken for padding."""
    honest = evaluate.evaluate

    def masked_by_ids(model, ref, sequences, *rest):
        evaluated = honest(model, ref, sequences, *rest)
        common = sequences.completion_ids[0][-1]  # stands for the token that both pads and ends
        ids = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(row) for row in sequences.completion_ids], batch_first=True, padding_value=common
        )
        return replace(evaluated, mask=ids != common)

    monkeypatch.setattr("trainer.ppo.update.evaluate", masked_by_ids)
    with pytest.raises(MaskMismatch) as raised:
        run_ppo(configure())
    assert "pad == eos" in raised.value.causes[0]


def test_a_frozen_policy_takes_no_training(configure, frozen_server):
    with pytest.raises(UnusableModel, match="without --frozen"):
        run_ppo(configure("--services.policy", frozen_server.target))


@pytest.mark.parametrize(("pad", "eos"), [(3, 3), (None, 3), (3, None)])
def test_pad_and_eos_must_be_two_tokens(pad, eos):
    with pytest.raises(PadIsEos):
        check_pad_token(pad, eos)


def test_masks_are_counted_row_by_row():
    version = PolicyVersion("run", 1, 0, "d")
    rollouts = [
        Rollout("p", "c", (1,), (5,) * n, (-1.0,) * n, FinishReason.STOP, (VersionSpan(0, version),), 0)
        for n in (3, 1, 2)
    ]
    check_mask(length_mask([3, 1, 2]), rollouts)
    with pytest.raises(MaskMismatch, match="row 2 has 1 of 2"):
        check_mask(length_mask([3, 1, 1]), rollouts)


def test_only_tokens_of_the_current_weights_must_have_the_trainers_logprobs():
    now, before = PolicyVersion("run", 1, 2, "now"), PolicyVersion("run", 1, 1, "before")
    rows = [
        Rollout("p", "c", (1,), (5,) * n, (logprob,) * n, FinishReason.STOP, (VersionSpan(0, version),), 0)
        for n, logprob, version in ((3, -1.0, now), (2, -9.0, before))
    ]
    older = [replace(row, policy_versions=(VersionSpan(0, before),)) for row in rows]
    suspects = Suspects(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1), now, 1.0)
    mask, old = length_mask([3, 2]), torch.full((2, 3), -1.25)
    assert check_behaviour(old, mask, rows, 0.5, suspects) == pytest.approx(0.25)
    with pytest.raises(BehaviourMismatch, match=r"largest 2\.50e-01"):
        check_behaviour(old, mask, rows, 0.1, suspects)
    assert check_behaviour(old, mask, older, 0.1, suspects) is None
    spans, logprobs = (VersionSpan(0, before), VersionSpan(2, now)), (-9.0, -9.0, -1.0)
    went_on = replace(rows[0], policy_versions=spans, behaviour_logprobs=logprobs)
    assert check_behaviour(old, mask, [went_on, older[1]], 0.5, suspects) == pytest.approx(0.25)
