"""Reward models that learn through adapters: what changes, what is served, and what is told of it."""

import json
import shutil
from random import Random

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, BertModel

from palate.client import RewardClient
from palate.models.classifier import load_classifier
from palate.models.manifest import load_manifest
from palate.models.rendering import Renderer
from tests.servers import start_server
from tests.tiny_models import make_tiny_reward
from tests.trainer.reward_model.test_rm_train import config, panel_rows, toy_rows
from trainer.fit import FitError
from trainer.lora import NotAdaptable, adapter_tensors, dropout_modules, has_adapters, targets_of
from trainer.metrics import read_metrics
from trainer.reward_model import learn
from trainer.reward_model.adapters import as_served
from trainer.reward_model.config import RewardTrainConfig
from trainer.reward_model.lora_config import RewardLoraGroup
from trainer.reward_model.rows import scores_of
from trainer.reward_model.start import load_start
from trainer.reward_model.train import run_reward
from trainer.run_folder import RunFolderError, newest_checkpoint

LORA = {"rank": 4}
TEXTS = [("What of idea 1?", "the plan is honest"), ("What of idea 2?", "the costs is little a park")]


def weights(folder):
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module", params=["decoder", "encoder"])
def trained(request, tmp_path_factory):
    """A run with adapters, and the model as it was before they were merged."""
    settings = config(tmp_path_factory.mktemp(request.param), request.param, lora=LORA, epochs=6, learning_rate=1e-2)
    with pytest.MonkeyPatch.context() as patch:
        starts = []
        patch.setattr(learn, "as_served", lambda start: (starts.append(start), as_served(start))[1])
        result = run_reward(settings)
    return settings, result, starts[0]


def test_it_learns(trained):
    settings, result, _ = trained
    assert result.evaluation.reward_model.low > 0.5
    assert result.evaluation.reward_model.value >= 0.9
    losses = [row["train/loss"] for row in read_metrics(settings.out) if "train/loss" in row]
    assert losses[-1] < 0.5 * losses[0]


def test_weights_without_adapters_are_those_it_began_with(trained):
    settings, result, start = trained
    before = load_start(settings.model_copy(update={"lora": RewardLoraGroup()})).model.base_model.state_dict()
    after = AutoModelForSequenceClassification.from_pretrained(result.model_folder).base_model.state_dict()
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    adapted = {name.split(".", 1)[1] for name in targets_of(start.model)}
    assert changed == adapted
    assert len(changed) == result.adapters.layers == (14 if "layers.0.mlp.up_proj.weight" in before else 13)


def test_scores_of_the_folder_are_those_of_the_adapters(trained):
    _, result, start = trained
    assert has_adapters(start.model)
    manifest = load_manifest(result.model_folder).manifest
    renderer = Renderer.from_folder(result.model_folder, manifest)
    texts = renderer.render_pairs(TEXTS)
    merged = scores_of(load_classifier(result.model_folder, manifest), texts, renderer.pad_id)
    adapters = scores_of(start.classifier, texts, renderer.pad_id)
    assert torch.allclose(merged, adapters, rtol=0, atol=1e-4 * result.calibration.std)


def test_the_folder_is_served_as_any_other(trained):
    _, result, start = trained
    if start.manifest.architecture == "encoder":
        pytest.skip("a server is slow to start, and the test before reads this folder as a server does")
    with start_server("services.reward", result.model_folder) as server, RewardClient(server.target) as client:
        good, bad = client.score(*map(list, zip(*TEXTS, strict=True))).scores()
    assert good > bad


def test_report_card_and_summary_tell_the_adapters(trained):
    settings, result, start = trained
    told = json.loads((settings.out / "report.json").read_text())["adapters"]
    learning = {name: each.numel() for name, each in start.model.named_parameters() if each.requires_grad}
    whole = sum(tensor.numel() for tensor in weights(result.model_folder).values())
    assert (told["rank"], told["trained"]) == (4, sum(learning.values()))
    assert told["share"] == pytest.approx(told["trained"] / whole)
    assert f"adapters of rank 4 on {told['layers']} linear layers" in (settings.out / "card.html").read_text()
    assert f"learnt through adapters (LoRA): rank 4 on {told['layers']} layers" in result.summary()


def learning_as_a_whole(settings):
    model = load_start(settings).model
    return {name for name, each in model.named_parameters() if each.requires_grad and ".lora_" not in name}


def test_the_head_and_what_a_checkpoint_lacks_learn_as_a_whole(tmp_path):
    head = {"classifier.weight", "classifier.bias"}
    settings = config(tmp_path, "encoder", lora=LORA)
    assert learning_as_a_whole(settings) == head
    BertModel.from_pretrained(settings.model, add_pooling_layer=False).save_pretrained(settings.model)
    assert learning_as_a_whole(settings) == head | {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    make_tiny_reward(tmp_path / "reward", "decoder", 3, chat=True)
    assert learning_as_a_whole(settings.model_copy(update={"model": tmp_path / "reward"})) == {"score.weight"}


def test_named_layers_alone_have_adapters(tmp_path):
    settings = config(tmp_path, lora=LORA | {"target_modules": ["q_proj", "v_proj"]}, max_steps=1)
    assert run_reward(settings).adapters.layers == 4


@pytest.mark.parametrize(
    ("lora", "told"),
    [
        ({"rank": 4, "target_modules": ["score"]}, "no plain linear layers called score"),
        ({"rank": 4, "target_modules": ["query"]}, "has down_proj, gate_proj"),
        ({"rank": 17, "target_modules": ["k_proj"]}, r"--lora\.rank 17 is more than .*k_proj has: give 16 or less"),
    ],
)
def test_adapters_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, lora, told):
    settings = config(tmp_path, lora=lora)
    with pytest.raises(NotAdaptable, match=told):
        run_reward(settings)
    assert not settings.out.exists()


@pytest.mark.parametrize(
    ("lora", "told"),
    [({"dropout": 0.1}, "dropout has no effect with rank 0"), ({"rank": 2, "dropout": 1}, "less than 1")],
)
def test_what_makes_no_sense_is_refused(tmp_path, lora, told):
    with pytest.raises(ValueError, match=told):
        RewardTrainConfig(out=tmp_path, model=tmp_path, data=tmp_path, lora=lora)


def test_dropout_is_on_in_training_steps_and_off_elsewhere(tmp_path):
    seen = []

    def spied(start, settings):
        for module in dropout_modules(start.model):
            module.register_forward_hook(lambda module, *_: seen.append((module.training, torch.is_grad_enabled())))
        return start

    def losses(name, dropout):
        settings = config(tmp_path, rows=toy_rows(80), max_steps=6, log_every=1, out=tmp_path / name, patience=3)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(learn, "load_start", lambda settings: spied(load_start(settings), settings))
            run_reward(settings.model_copy(update={"lora": RewardLoraGroup(rank=4, dropout=dropout)}))
        return [row["train/loss"] for row in read_metrics(settings.out) if "train/loss" in row]

    with_dropout, without = losses("some", 0.5), losses("none", 0.0)
    assert set(seen) == {(True, True), (False, False)}  # steps; validation
    assert with_dropout[0] == without[0]  # B is 0 at first, so that nothing is left out
    assert with_dropout[1:] != without[1:]


def test_a_resumed_run_ends_where_it_would_have(tmp_path):
    settings = config(
        tmp_path,
        rows=panel_rows(60),
        annotators="reliability",
        lora=LORA | {"dropout": 0.1},
        checkpoint_every=4,
        epochs=2,
    )
    whole = run_reward(settings)
    first = weights(whole.model_folder)
    newest, _ = newest_checkpoint(settings.out)
    shutil.rmtree(newest)
    resumed = run_reward(settings.model_copy(update={"resume": True}))
    assert resumed.fitted.steps == whole.fitted.steps == 8
    again = weights(resumed.model_folder)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert [row.reliability for row in resumed.annotators] == [row.reliability for row in whole.annotators]
    with pytest.raises(RunFolderError, match=r"lora\.rank \(was 4, is 2\)"):
        run_reward(settings.model_copy(update={"resume": True, "lora": RewardLoraGroup(rank=2, dropout=0.1)}))


def test_early_stopping_brings_the_best_adapters_back(tmp_path):
    """Random labels: whatever is learnt of them makes unseen comparisons worse."""
    rng = Random(0)
    rows = [{**row, "label": rng.choice("ab")} for row in toy_rows(120)]
    fast = {"epochs": 30, "learning_rate": 3e-2, "schedule": "constant"}
    settings = config(tmp_path, rows=rows, patience=1, lora=LORA, **fast)
    kept = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learn, "as_served", lambda start: (kept.append(start.model), as_served(start))[1])
        result = run_reward(settings)
    assert result.fitted.steps < 30 * -(-result.data.learnt // 16)
    states = [json.loads(file.read_text()) for file in settings.out.glob("checkpoints/*/trainer_state.json")]
    best = load_file(f"{states[0]['best_model_checkpoint']}/model.safetensors")
    mine = {f"model.{name}": tensor for name, tensor in kept[0].state_dict().items()}
    assert mine.keys() == best.keys()
    assert all(torch.equal(mine[name], best[name]) for name in best)


@pytest.mark.parametrize("shared", [False, True])
def test_ensembles_learn_through_adapters(tmp_path, shared):
    settings = config(tmp_path, rows=toy_rows(160), members=2, shared_backbone=shared, lora=LORA, learning_rate=1e-2)
    result = run_reward(settings)
    assert result.evaluation.reward_model.value >= 0.8
    assert result.members.disagreement > 0
    assert result.adapters.layers == 14
    folders = [result.model_folder] if shared else [settings.member(number).out / "model" for number in range(2)]
    assert {len(weights(folder)["score.weight"]) for folder in folders} == {2 if shared else 1}
    assert not [name for folder in folders for name in weights(folder) if "lora" in name]


def test_weights_that_are_not_finite_are_never_written(tmp_path):
    start = load_start(config(tmp_path, lora=LORA))
    next(iter(adapter_tensors(start.model).values())).fill_(float("inf"))
    with pytest.raises(FitError, match=r"NaN or infinity with its adapter.*lower --learning-rate"):
        as_served(start)
