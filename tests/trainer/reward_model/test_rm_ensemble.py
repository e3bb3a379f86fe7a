"""Ensembles from training: several models or several heads, what is told of them, and how a reward service has them."""

import json
import shutil
from collections import Counter
from random import Random

import pytest
import torch
from safetensors.torch import load_file

from palate.client import Aggregate, MeanMinusVariance, RewardClient
from palate.models.ensemble import read_ensemble, write_ensemble
from palate.models.folder import FolderError
from palate.models.manifest import load_manifest
from tests.servers import start_server
from tests.tiny_models import make_tiny_policy, make_tiny_reward
from tests.tiny_tokenizers import word_tokenizer
from tests.trainer.reward_model.test_rm_train import config, panel_rows, toy_rows
from trainer.data.comparisons import Comparison
from trainer.data.votes import pairs_of
from trainer.reward_model.annotators import Reliability, together
from trainer.reward_model.bootstrap import draw_groups
from trainer.reward_model.config import ENSEMBLE_CENTRING, RewardTrainConfig
from trainer.reward_model.held_out import HeldOut
from trainer.reward_model.members import compare_members
from trainer.reward_model.train import run_reward
from trainer.run_folder import RunFolderError

PROMPTS = ["What of idea 1?", "What of idea 2?"]
COMPLETIONS = ["the plan is honest", "the costs is little a park"]


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Three models, each from its own draw of the groups."""
    settings = config(tmp_path_factory.mktemp("several"), members=3, bootstrap=True, epochs=3)
    return settings, run_reward(settings)


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Three heads on one backbone, each with its own weights of the groups."""
    settings = config(tmp_path_factory.mktemp("heads"), members=3, shared_backbone=True, bootstrap=True, epochs=3)
    return settings, run_reward(settings)


@pytest.mark.parametrize("kind", ["several", "heads"])
def test_a_trained_ensemble_is_served_as_one_name(kind, request):
    _, result = request.getfixturevalue(kind)
    assert result.evaluation.reward_model.value >= 0.9
    with (
        start_server("services.reward", result.model_folder, "--name", "judge") as server,
        RewardClient(server.target) as client,
    ):
        reply = client.score(PROMPTS, COMPLETIONS, members=True)
        low = client.score(PROMPTS, COMPLETIONS, aggregate=Aggregate.MIN).scores()
        careful = client.score(PROMPTS, COMPLETIONS, aggregate=MeanMinusVariance(2.0)).scores()
        probability = client.compare(PROMPTS[0], *COMPLETIONS).probability
    assert reply.provenance.model == "judge"
    scores = torch.tensor([one.members for one in reply.results], dtype=torch.float64)
    assert scores.shape == (2, 3)
    assert scores.std(1).min() > 0
    assert reply.scores() == pytest.approx(scores.mean(1).tolist())
    assert low == pytest.approx(scores.amin(1).tolist())
    assert careful == pytest.approx((scores.mean(1) - 2.0 * scores.var(1, correction=0)).tolist())
    calibrated = [(score - result.calibration.mean) / result.calibration.std for score in reply.scores()]
    assert [one.calibrated for one in reply.results] == pytest.approx(calibrated)
    assert probability > 0.5


def test_members_are_runs_of_their_own_and_the_folder_names_them(several):
    settings, result = several
    ensemble = read_ensemble(result.model_folder)
    assert [member.path for member in ensemble.members] == [f"../member-{number}/model" for number in (1, 2, 3)]
    assert (ensemble.logit_scale, ensemble.calibration) == (result.logit_scale, result.calibration)
    assert len({member.revision for member in ensemble.members}) == 3
    seeds = [json.loads((settings.out / f"member-{n}" / "settings.json").read_text())["seed"] for n in (1, 2, 3)]
    assert seeds == [0, 1000, 2000]
    assert (settings.out / "member-2" / "metrics.jsonl").stat().st_size > 0


def test_heads_are_labels_of_one_folder(heads):
    _, result = heads
    assert load_manifest(result.model_folder).manifest.member_labels == (0, 1, 2)
    assert result.fitted.steps * 3 == 3 * 18 * 3


@pytest.mark.parametrize("kind", ["several", "heads"])
def test_report_and_card_tell_the_members(kind, request):
    settings, result = request.getfixturevalue(kind)
    report = json.loads((settings.out / "report.json").read_text())
    assert len(report["members"]["accuracies"]) == 3
    assert report["loss"]["members"] == 3
    assert report["loss"]["centring"] == ENSEMBLE_CENTRING
    card = (settings.out / "card.html").read_text()
    assert f"Members disagree by {result.members.disagreement:.2f} standard" in card
    assert "members alone: " in result.summary()
    # The penalty keeps together what Bradley–Terry leaves open.
    assert max(map(abs, result.members.offsets)) < 0.5
    assert json.loads((settings.out / "metrics.jsonl").read_text().splitlines()[-1])["eval/disagreement"] > 0


def test_a_single_model_tells_no_members(tmp_path):
    settings = config(tmp_path, rows=toy_rows(60), max_steps=1)
    assert run_reward(settings).members is None
    assert settings.loss()["centring"] == 0.0
    assert "members" not in settings.loss()


def test_a_half_trained_ensemble_goes_on_where_it_was(tmp_path):
    settings = config(tmp_path, rows=toy_rows(80), members=2, epochs=2, checkpoint_every=4)
    whole = run_reward(settings)
    (settings.out / "metrics.jsonl").unlink()
    (settings.out / "model" / "palate.json").unlink()
    (settings.out / "model").rmdir()
    with pytest.raises(RunFolderError, match="member-1 holds an earlier run"):
        run_reward(settings)
    again = run_reward(settings.model_copy(update={"resume": True}))
    assert again.calibration == whole.calibration
    assert read_ensemble(again.model_folder).members == read_ensemble(whole.model_folder).members


def test_members_start_from_several_models_in_turn(tmp_path):
    others = [make_tiny_policy(tmp_path / f"base-{seed}" / "model", seed, chat=True) for seed in (1, 2)]
    settings = config(tmp_path, rows=toy_rows(60), members=4, member_models=others, max_steps=1, learning_rate=1e-9)
    run_reward(settings)
    starts = [settings.model, *others, settings.model]
    assert [_embedding(settings.out / f"member-{n}" / "model") for n in (1, 2, 3, 4)] == [
        pytest.approx(_embedding(start), abs=1e-6) for start in starts
    ]
    named = "start, base-1/model, base-2/model"
    assert json.loads((settings.out / "report.json").read_text())["loss"]["starts"] == named
    assert f"from {named} on comparisons.jsonl" in (settings.out / "card.html").read_text()


def _embedding(folder):
    return load_file(folder / "model.safetensors")["model.embed_tokens.weight"].flatten().tolist()


def _other_tokenizer(folder):
    make_tiny_policy(folder, 1, chat=True)
    word_tokenizer().save(str(folder / "tokenizer.json"))
    return "differ in their tokenizer"


def _other_template(folder):
    make_tiny_policy(folder, 1, chat=True, max_tokens=128)
    return "differ in their template"


def _trained(folder):
    make_tiny_reward(folder, "decoder", 1)
    return "a reward model already, among models that are none"


def _ensemble(folder):
    write_ensemble(folder, [make_tiny_reward(folder.with_name(f"rm-{n}"), "decoder", n) for n in (1, 2)])
    return "it is an ensemble, which only names its members: give one of them"


def _run_folder(folder):
    make_tiny_policy(folder / "model", 1, chat=True)
    return "lacks model.safetensors; give .*other/model"


@pytest.mark.parametrize("made", [_other_tokenizer, _other_template, _trained, _ensemble, _run_folder])
def test_models_that_members_cannot_start_from_are_refused_before_anything_is_learnt(made, tmp_path):
    problem = made(tmp_path / "other")
    settings = config(tmp_path, rows=toy_rows(60), members=2, member_models=[tmp_path / "other"], max_steps=1)
    with pytest.raises(FolderError, match=problem):
        run_reward(settings)
    assert not settings.out.exists()


def test_other_weights_to_start_from_end_a_resumed_ensemble(tmp_path):
    other = make_tiny_policy(tmp_path / "other", 1, chat=True)
    settings = config(tmp_path, rows=toy_rows(60), members=2, member_models=[other], max_steps=1)
    run_reward(settings)
    shutil.rmtree(settings.out / "member-2")
    again = settings.model_copy(update={"resume": True})
    make_tiny_policy(other, 2, chat=True)
    with pytest.raises(RunFolderError, match=f"{other} had other weights when the run"):
        run_reward(again)
    make_tiny_policy(other, 1, chat=True)
    run_reward(again)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, "member_models has no effect without members"),
        ({"members": 2, "shared_backbone": True}, "exclude each other: one backbone starts from one model"),
        ({"members": 2, "member_models": ["b", "c"]}, "3 models to start from, model among them, are more than 2"),
        ({"members": 4, "member_models": ["b", "./b"]}, "name a folder twice"),
        ({"members": 2, "member_models": ["a"]}, "name a folder twice"),
    ],
)
def test_models_to_start_from_that_nobody_would_use_are_refused(changes, problem, tmp_path):
    with pytest.raises(ValueError, match=problem):
        RewardTrainConfig(**{"out": tmp_path, "model": "a", "data": "d", "member_models": ["b"], **changes})


def test_reliabilities_of_members_are_averaged(tmp_path):
    rows = panel_rows(40)
    settings = config(tmp_path, rows=rows, annotators="reliability", members=2, bootstrap=True, max_steps=2)
    assert all(row.reliability is not None for row in run_reward(settings).annotators)
    parts = [{"a": Reliability(0.9, 0.8, 1.0, "none")}, {"a": Reliability(0.7, 0.2, 0.8, "open")}]
    joined = together([*parts, {"b": Reliability(0.4, 0.3, 0.6, "open")}])
    assert joined["a"] == Reliability(pytest.approx(0.8), pytest.approx(0.5), pytest.approx(0.9), "open")
    assert joined["b"].suspicion == "spammer"


def test_whole_groups_are_drawn_as_often_as_there_are_groups():
    groups = ["a", "a", "b", "c", "c", "c"]
    drawn = Counter(draw_groups(groups, Random(4)))
    times = {group: {drawn[place] for place, one in enumerate(groups) if one == group} for group in "abc"}
    assert all(len(found) == 1 for found in times.values())
    assert sum(min(found) for found in times.values()) == 3
    means = Counter(place for seed in range(2000) for place in draw_groups(groups, Random(seed)))
    assert all(abs(count / 2000 - 1) < 0.1 for count in means.values())


def test_what_is_told_of_members_is_what_their_scores_say():
    rows = [Comparison(f"p{i}", "one", "other", "a") for i in range(4)]
    a = torch.tensor([[1.0, 3.0], [1.0, 3.0], [2.0, 0.0], [2.0, -4.0]])
    found = compare_members(HeldOut(pairs_of(rows), a, torch.zeros(4, 2)))
    assert [share.value for share in found.accuracies] == [1.0, (2 + 0.5) / 4]
    assert (found.agreed.value, found.disagreed.value) == (1.0, 0.5)  # the last pair's mean is on the wrong side
    unit = torch.tensor([2.0, 2.0, 1.0, -1.0, 0, 0, 0, 0]).std(correction=0).item()
    assert found.offsets == pytest.approx([(0.75 - 0.5) / unit, (0.25 - 0.5) / unit])
    assert found.disagreement == pytest.approx((1 + 1 + 1 + 3) / 8 / unit)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"shared_backbone": True}, "shared_backbone has no effect without members"),
        ({"bootstrap": True}, "bootstrap has no effect without members"),
        ({"members": 2, "shared_backbone": True, "annotators": "reliability"}, "exclude each other"),
    ],
)
def test_options_that_would_be_ignored_are_refused(tmp_path, changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        RewardTrainConfig(out=tmp_path, model=tmp_path, data=tmp_path, **changes)


def test_a_reward_model_with_one_head_has_none_for_members(tmp_path):
    make_tiny_reward(tmp_path / "start", "decoder", 3, chat=True)
    with pytest.raises(FolderError, match="with 2 labels"):
        run_reward(config(tmp_path, members=2, shared_backbone=True))
