import json
from random import Random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BertModel

from palate.models.classifier import load_classifier
from palate.models.folder import FolderError
from palate.models.manifest import load_manifest
from palate.models.rendering import Renderer
from tests.rendering import render_pair
from tests.reward_folders import change_json
from tests.tiny_models import make_tiny_policy, make_tiny_reward
from trainer.data.comparisons import read_comparisons
from trainer.data.lines import DataError, write_rows
from trainer.metrics import rounded
from trainer.reward_model.config import RewardTrainConfig
from trainer.reward_model.rows import scores_of
from trainer.reward_model.splits import LeftOut, split_data
from trainer.reward_model.start import initialise_head, load_start
from trainer.reward_model.train import run_reward
from trainer.run_folder import newest_checkpoint

FILLERS = ("the plan", "the model", "a number", "the costs", "a policy", "the prompt", "one answer", "a park")


def toy_rows(count, seed=0, ties=0):
    """Honest beats little, whatever it says beside and however long it is."""
    rng, rows = Random(seed), []
    for number in range(count):
        good, bad = (
            " ".join([rng.choice(FILLERS), word, *rng.sample(FILLERS, rng.randint(0, 2))])
            for word in ("is honest", "is little")
        )
        a, b, label = (good, bad, "a") if rng.random() < 0.5 else (bad, good, "b")
        rows.append({"prompt": f"What of idea {number % 40}?", "a": a, "b": b, "label": label})
    return rows + [{**rows[index], "label": "tie"} for index in range(ties)]


def config(folder, architecture="decoder", rows=None, **changes):
    write_rows(folder / "comparisons.jsonl", toy_rows(320) if rows is None else rows)
    start = folder / "start"
    if not start.exists():
        if architecture == "encoder":
            make_headless_encoder(start)
        else:
            make_tiny_policy(start, 0, chat=True)
    fixed = {"threads": 1, "progress": False, "batch_size": 16, "learning_rate": 5e-3, "epochs": 4, "samples": 2}
    return RewardTrainConfig(
        **{"out": folder / "rm", "model": start, "data": folder / "comparisons.jsonl", **fixed, **changes}
    )


def make_headless_encoder(folder):
    """A BERT as encoders are published: without a classifier."""
    make_tiny_reward(folder, "encoder", 0)
    model = BertModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["decoder", "encoder"])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    settings = config(folder, request.param)
    return settings, run_reward(settings)


def test_it_learns_the_preference_and_says_what_length_alone_would_give(trained):
    _, result = trained
    assert result.evaluation.reward_model.value >= 0.9
    assert result.evaluation.shorter_won.value >= 0.9
    assert result.evaluation.length_only.value < 0.7
    assert result.evaluation.bag_of_words.value >= 0.9
    assert result.new_head
    assert f"n = {result.data.held_out}" in result.summary()


def test_the_folder_serves_with_the_right_reading(trained):
    settings, result = trained
    loaded = load_manifest(result.model_folder)
    manifest = loaded.manifest
    expected = ("decoder", "chat") if (settings.model / "chat_template.jinja").exists() else ("encoder", "pair")
    assert (manifest.kind, manifest.architecture, manifest.template_kind) == ("reward", *expected)
    assert loaded.inferred == ()
    config_file = json.loads((result.model_folder / "config.json").read_text())
    assert config_file["architectures"][0].endswith("ForSequenceClassification")
    assert config_file["pad_token_id"] is not None


def test_calibration_and_logit_scale_are_those_of_the_held_out_scores(trained):
    settings, result = trained
    manifest = load_manifest(result.model_folder).manifest
    renderer = Renderer.from_folder(result.model_folder, manifest)
    held_out = split_data(settings).held_out
    texts = renderer.render_pairs([(row.prompt, text) for row in held_out for text in (row.a, row.b)])
    scores = scores_of(load_classifier(result.model_folder, manifest), texts, renderer.pad_id)
    standard = (scores.double() - manifest.calibration.mean) / manifest.calibration.std
    assert abs(standard.mean().item()) < 1e-3
    assert standard.std(correction=0).item() == pytest.approx(1.0, abs=1e-3)
    assert manifest.logit_scale == result.logit_scale != 1.0


def test_the_report_holds_what_was_measured(trained):
    settings, result = trained
    report = json.loads((settings.out / "report.json").read_text())
    assert report["evaluation"]["reward_model"]["value"] == result.evaluation.reward_model.value
    assert report["data"]["held_out"] == result.data.held_out > 0
    last = json.loads((settings.out / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["eval/accuracy_length_only"] == rounded(result.evaluation.length_only.value)
    assert len((settings.out / "samples.jsonl").read_text().splitlines()) == 2


def test_training_never_sees_a_held_out_group(tmp_path):
    split = split_data(config(tmp_path, patience=1))
    parts = [{row.prompt for row in part} for part in (split.learnt, split.validation, split.held_out)]
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts)) == 40


def test_a_held_out_file_must_not_share_prompts_with_the_data(tmp_path):
    write_rows(tmp_path / "other.jsonl", [{**row, "prompt": "Another?"} for row in toy_rows(10, seed=1)])
    split = split_data(config(tmp_path, held_out=tmp_path / "other.jsonl"))
    assert (len(split.learnt), len(split.held_out)) == (320, 10)
    write_rows(tmp_path / "group.jsonl", [row | {"prompt": "New?", "group": "What of idea 7?"} for row in toy_rows(2)])
    with pytest.raises(DataError, match=r"1 groups, prompts or texts of .*group\.jsonl are also"):
        split_data(config(tmp_path, held_out=tmp_path / "group.jsonl"))
    write_rows(tmp_path / "same.jsonl", toy_rows(3))
    with pytest.raises(DataError, match=r"3 groups, prompts or texts of .*same\.jsonl are also in the training data"):
        split_data(config(tmp_path, held_out=tmp_path / "same.jsonl"))


def test_ties_are_learnt_or_left_out(tmp_path):
    rows = toy_rows(60, ties=8)
    assert len(read_comparisons(config(tmp_path, rows=rows).data).rows) == 68
    assert split_data(config(tmp_path, rows=rows)).votes.ties == 8
    dropped = split_data(config(tmp_path, rows=rows, ties="drop"))
    assert (dropped.of_data.left_out.dropped_ties, dropped.votes.ties, dropped.votes.votes) == (8, 0, 60)
    only = [{**row, "label": "tie"} for row in toy_rows(4)]
    for ties in ("soft", "drop"):
        with pytest.raises(DataError, match="only ties, from which nothing can be learnt"):
            split_data(config(tmp_path, rows=only, ties=ties))


def test_the_backbone_is_the_policys_and_the_head_is_new(tmp_path):
    start = load_start(config(tmp_path))
    policy = AutoModelForCausalLM.from_pretrained(tmp_path / "start").model.state_dict()
    backbone = start.model.base_model.state_dict()
    assert policy.keys() == backbone.keys()
    assert all(torch.equal(policy[name], backbone[name]) for name in policy)
    assert start.new_head


def test_a_new_head_gives_scores_of_about_unit_variance():
    torch.manual_seed(0)
    layer = torch.nn.Linear(400, 500)
    initialise_head(layer)
    assert layer.weight.std().item() == pytest.approx(1 / 401**0.5, rel=0.02)
    assert not layer.bias.any()


def test_a_reward_model_is_trained_further_with_its_head(tmp_path):
    make_tiny_reward(tmp_path / "start", "decoder", 3, chat=True)
    start = load_start(config(tmp_path))
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "start")
    assert not start.new_head
    assert torch.equal(start.model.score.weight, saved.score.weight)


def test_joined_text_ends_with_the_end_token_where_the_score_is_read(tmp_path):
    make_tiny_policy(tmp_path / "start", 0)
    manifest = load_start(config(tmp_path)).manifest
    renderer = Renderer.from_folder(tmp_path / "start", manifest)
    assert manifest.template_kind == "join"
    ids = render_pair(renderer, "What of it?", " the plan").token_ids
    assert (ids[0], ids[-1], ids.count(renderer.eos_id)) == (renderer.bos_id, renderer.eos_id, 1)


def test_models_that_cannot_become_one_score_are_refused(tmp_path):
    make_tiny_reward(tmp_path / "start", "decoder", 0, num_labels=3)
    with pytest.raises(FolderError, match="with one label"):
        load_start(config(tmp_path))


def test_padding_with_the_end_token_is_refused(tmp_path):
    settings = config(tmp_path)
    change_json(tmp_path / "start" / "tokenizer_config.json", pad_token="</s>")
    with pytest.raises(FolderError, match="pads with its end-of-sequence token"):
        run_reward(settings)


def test_long_comparisons_are_left_out_counted_or_cut(tmp_path):
    rows = toy_rows(80)
    for index in range(0, 80, 10):
        rows[index]["a"] = "the plan " * 60
    left_out = run_reward(config(tmp_path, rows=rows, max_steps=1, max_tokens=96))
    assert left_out.data.left_out.too_long == 8
    cut = run_reward(config(tmp_path, rows=rows, max_steps=1, max_tokens=96, truncation="left", out=tmp_path / "cut"))
    assert cut.data.left_out.too_long == 0
    assert load_manifest(cut.model_folder).manifest.truncation == "left"
    with pytest.raises(DataError, match="are longer than 8 tokens"):
        run_reward(config(tmp_path, rows=rows, max_tokens=8, out=tmp_path / "short"))
    with pytest.raises(FolderError, match=r"max_tokens is 257; the model in .* reads at most 256 tokens"):
        run_reward(config(tmp_path, rows=rows, max_tokens=257, out=tmp_path / "long"))


def test_early_stopping_ends_when_the_validation_loss_no_longer_falls(tmp_path):
    """Random labels: whatever is learnt of them makes unseen comparisons worse."""
    rng = Random(0)
    rows = [{**row, "label": rng.choice("ab")} for row in toy_rows(200)]
    result = run_reward(config(tmp_path, rows=rows, patience=1, epochs=30, learning_rate=1e-2, schedule="constant"))
    steps_per_epoch = -(-result.data.learnt // 16)
    assert result.fitted.steps < 30 * steps_per_epoch
    assert result.data.validation > 0


def test_losses_can_be_smoothed_centred_and_have_margins(tmp_path):
    def calibration(name, **changes):
        return run_reward(config(tmp_path, rows=toy_rows(120), out=tmp_path / name, **changes)).calibration

    plain, centred = calibration("plain"), calibration("centred", centring=0.5)
    smooth, wide = calibration("smooth", label_smoothing=0.3), calibration("wide", margin=4.0)
    assert abs(centred.mean) < 0.2 * centred.std
    assert smooth.std < plain.std < wide.std


PANEL = {"ann": 0.95, "bob": 0.9, "dan": 0.85, "eve": 0.1}


def panel_rows(count, seed=0):
    """The toy pairs with a vote of each of four annotators, one of whom says the contrary."""
    rng = Random(seed)
    return [
        {key: row[key] for key in ("prompt", "a", "b")}
        | {
            "votes": [
                {"annotator": name, "vote": row["label"] if rng.random() < right else "ba"["ab".index(row["label"])]}
                for name, right in PANEL.items()
            ]
        }
        for row in toy_rows(count, seed)
    ]


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    settings = config(tmp_path_factory.mktemp("crowd"), rows=panel_rows(240), annotators="reliability", epochs=6)
    return settings, run_reward(settings)


def test_reliabilities_are_learnt_with_the_model_and_the_adversary_is_found(crowd):
    settings, result = crowd
    assert result.evaluation.reward_model.value >= 0.9
    found = {row.name: row for row in result.annotators}
    assert set(found) == set(PANEL)
    assert all(found[name].reliability.value > 0.7 for name in ("ann", "bob", "dan"))
    assert found["eve"].reliability.suspicion == "adversary"
    assert found["eve"].agreement.high < 0.5
    assert "suspected: 1 of 4 annotators" in result.summary()
    report = json.loads((settings.out / "report.json").read_text())
    assert report["loss"]["annotators"] == "reliability"
    assert [row["name"] for row in report["annotators"]] == sorted(PANEL)


def test_the_card_says_what_the_report_says(crowd):
    settings, result = crowd
    card = (settings.out / "card.html").read_text()
    shares = (result.evaluation.reward_model, result.evaluation.length_only)
    assert all(f"{share.value:.3f}" in card for share in shares)
    assert f"calibration error {result.sureness.error:.3f}" in card
    assert "adversary" in card
    # Every part of the data is enough for these words, so there is no number to give.
    assert f"a bag of words would need fewer than {result.learning_curve.pairs[0]} pairs" in card


def test_the_served_folder_holds_the_model_alone(crowd):
    _, result = crowd
    names = load_classifier(result.model_folder, load_manifest(result.model_folder).manifest).state_dict()
    assert not [name for name in names if "chances" in name or "rates" in name]


def test_a_crowd_run_that_is_resumed_goes_on_with_its_reliabilities(tmp_path):
    settings = config(tmp_path, rows=panel_rows(60), annotators="reliability", checkpoint_every=4, epochs=2)
    whole = run_reward(settings)
    newest, step = newest_checkpoint(settings.out)
    (newest / "trainer_state.json").unlink()  # as a kill leaves it that comes while it is written
    assert newest_checkpoint(settings.out)[1] < step
    resumed = run_reward(settings.model_copy(update={"resume": True}))
    assert resumed.fitted.steps == whole.fitted.steps == 8
    assert [row.reliability for row in resumed.annotators] == [row.reliability for row in whole.annotators]


@pytest.mark.parametrize("labels", ["soft", "majority", "dawid-skene"])
def test_labels_are_made_as_asked(tmp_path, labels):
    result = run_reward(config(tmp_path, rows=panel_rows(120), labels=labels, patience=1))
    report = json.loads((tmp_path / "rm" / "report.json").read_text())
    assert report["loss"]["labels"] == labels
    assert result.data.votes.votes == 4 * (result.data.learnt + result.data.validation + result.data.held_out)
    assert {row.reliability for row in result.annotators} == {None}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"annotators": "reliability", "labels": "majority"}, "annotators reliability excludes labels"),
        ({"annotators": "reliability", "margin": 1.0, "label_smoothing": 0.1}, "excludes margin, label_smoothing"),
        ({"held_out": "other.jsonl", "held_out_share": 0.1}, "held_out_share has no effect with held_out"),
        ({"prior_right": 9.0}, "have no effect without annotators reliability"),
        ({"annotators": "reliability", "prior_wrong": 4.0}, "prior_right 4.0 must be above prior_wrong 4.0"),
    ],
)
def test_options_that_would_be_ignored_are_refused(tmp_path, changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        RewardTrainConfig(out=tmp_path, model=tmp_path, data=tmp_path, **changes)


def test_votes_that_cannot_teach_reliabilities_are_refused_before_anything_is_loaded(tmp_path):
    settings = config(tmp_path, annotators="reliability")
    with pytest.raises(DataError, match="votes do not say whose they are"):
        run_reward(settings)
    with pytest.raises(DataError, match="one annotator cast all votes"):
        run_reward(
            config(tmp_path, rows=[row | {"annotator": "ann"} for row in toy_rows(40)], annotators="reliability")
        )
    alone = [row | {"annotator": f"ann {number}"} for number, row in enumerate(toy_rows(40))]
    with pytest.raises(DataError, match="no pair was judged by two annotators"):
        run_reward(config(tmp_path, rows=alone, labels="dawid-skene", out=tmp_path / "alone"))


def test_parts_in_which_nothing_is_decided_are_refused(tmp_path):
    even = [row | {"label": label} for row in toy_rows(40) for label in ("a", "b")]
    with pytest.raises(DataError, match="pairs to learn from has more votes for one side"):
        split_data(config(tmp_path, rows=even))
    write_rows(tmp_path / "ties.jsonl", [{"prompt": "other", "a": "x", "b": "y", "label": "tie"}])
    with pytest.raises(DataError, match="1 held-out pairs has more votes for one side"):
        split_data(config(tmp_path, held_out=tmp_path / "ties.jsonl"))
    votes = [{"annotator": name, "vote": vote} for name, vote in (("ann", "a"), ("bob", "b"), ("eve", "tie"))]
    voted = [{key: row[key] for key in ("prompt", "a", "b")} | {"votes": votes} for row in toy_rows(10)]
    with pytest.raises(DataError, match="held-out pairs"):  # single votes could teach, but nothing could be measured
        split_data(config(tmp_path, rows=voted, annotators="reliability"))


def test_bad_rows_are_counted_and_told(tmp_path):
    good = toy_rows(80)
    bad = [good[0], good[1] | {"a": " "}, good[2] | {"b": good[2]["a"]}, good[3] | {"seconds": 1, "annotator": "ann"}]
    twice = [*bad, good[3] | {"seconds": 2, "annotator": "ann"}]
    result = run_reward(config(tmp_path, rows=good + twice, max_steps=1))
    left_out = result.data.left_out
    assert (left_out.copies, left_out.empty, left_out.identical, result.data.duplicates) == (1, 1, 1, 1)
    assert (result.data.votes.fewest, result.data.votes.most) == (1, 3)
    assert "  left out: 1 copies, 1 identical, 1 empty\n  merged: 1 duplicates, votes" in result.summary()


def test_a_held_out_file_has_the_same_rules_and_numbers_of_its_own(tmp_path):
    other = [{**row, "prompt": f"Another {number}?"} for number, row in enumerate(toy_rows(20, seed=1))]
    named = [other[5] | {"annotator": "ann", "seconds": seconds} for seconds in (1, 2)]
    bad = [other[0], other[1] | {"a": " "}, other[2] | {"label": "tie"}, other[3] | {"a": "the plan " * 60}, *named]
    write_rows(tmp_path / "other.jsonl", other + bad)
    fixed = {"held_out": tmp_path / "other.jsonl", "max_steps": 1, "max_tokens": 96}
    result = run_reward(config(tmp_path, ties="drop", **fixed))
    found = result.data.held_out_file
    expected = LeftOut(copies=1, identical=0, empty=1, dropped_ties=1, too_long=1)
    assert (found.left_out, found.duplicates) == (expected, 1)
    assert (result.data.held_out, result.data.left_out.too_long) == (20, 0)
    told = "  left out of the held-out file: 1 copies, 1 empty, 1 dropped ties, 1 too long\n  merged of the held-out"
    assert told in result.summary()
    report = json.loads((tmp_path / "rm" / "report.json").read_text())
    assert report["data"]["held_out_file"]["left_out"]["dropped_ties"] == 1
    assert "left out of the held-out file" in (tmp_path / "rm" / "card.html").read_text()
    write_rows(tmp_path / "ties.jsonl", [row | {"label": "tie"} for row in other])
    with pytest.raises(DataError, match="only ties, on which nothing can be measured"):
        split_data(config(tmp_path, ties="drop", held_out=tmp_path / "ties.jsonl"))


def test_annotators_under_another_key_are_told(tmp_path):
    rows = [row | {"worker_id": f"worker {number % 3}"} for number, row in enumerate(toy_rows(80))]
    result = run_reward(config(tmp_path, rows=rows, max_steps=1))
    told = "votes without an 'annotator' have 'worker_id'"
    assert f"  not read: {told}" in result.summary()
    assert "Not read: votes without" in (tmp_path / "rm" / "card.html").read_text()
    with pytest.raises(DataError, match=r"'annotator' in each \(there is 'worker_id': call that so"):
        run_reward(config(tmp_path, rows=rows, annotators="reliability", out=tmp_path / "named"))


def test_groups_of_several_pairs_are_told_on_the_terminal_and_the_card(tmp_path):
    rows = [row | {"group": f"topic {number % 40 // 5}"} for number, row in enumerate(toy_rows(160))]
    result = run_reward(config(tmp_path, rows=rows, max_steps=1, held_out_share=0.2))
    assert result.evaluation.groups == 2
    told = "these are of 2 groups, and other groups may differ by more"
    assert told in result.summary()
    assert told in (tmp_path / "rm" / "card.html").read_text()
