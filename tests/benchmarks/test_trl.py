"""What is counted of two trainers' work, when it is equal, and what both are made of."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks import environments
from benchmarks.models import STORIES_WORDS, make_stories, texts
from benchmarks.ppo.against_trl import equal_work
from benchmarks.ppo.passes import Passes, counted
from palate.models.manifest import load_manifest
from palate.models.rendering import Renderer


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return make_stories(tmp_path_factory.mktemp("stories"))


def test_passes_are_counted_by_what_they_are_for(folders):
    policy, ids = AutoModelForCausalLM.from_pretrained(folders[0]), torch.full((3, 7), 5)
    with counted() as passes:
        policy(input_ids=ids).logits.sum().backward()
        policy(input_ids=ids[:2])
        with torch.no_grad():
            policy(input_ids=ids)
        policy.generate(ids, max_new_tokens=4, min_new_tokens=4, do_sample=False, pad_token_id=0)
    policy(input_ids=ids)
    assert passes == Passes(learnt_from=5, backward=3, looked_at=6, drawn=9)
    assert passes.per(2) == Passes(learnt_from=2, backward=1, looked_at=3, drawn=4)


@pytest.mark.parametrize(
    ("ours", "equal"),
    [
        (Passes(8, 8, 3, 40), True),
        (Passes(8, 8, 4, 40), True),
        (Passes(8, 8, 2, 40), False),
        (Passes(7, 8, 3, 40), False),
        (Passes(8, 7, 3, 40), False),
        (Passes(8, 8, 3, 39), False),
    ],
)
def test_whoever_learns_draws_or_looks_less_does_not_do_the_same_work(ours, equal):
    assert equal_work(Passes(8, 8, 3, 40), ours) is equal


def test_the_models_have_stories260ks_size_and_read_the_same_tokens(folders):
    model = AutoModelForCausalLM.from_pretrained(folders[0])
    assert model.num_parameters() == 260_032
    prompts = texts(5, 8, 16, 0, STORIES_WORDS)
    policy, reward = (Renderer.from_folder(folder, load_manifest(folder).manifest) for folder in folders)
    assert policy.vocab_size == reward.vocab_size == 512
    read = [len(row.token_ids) for row in reward.render_pairs([(f"{text} ", text) for text in prompts])]
    assert read == [1 + 2 * (len(ids) - 1) for ids in policy.render_prompts(prompts)]


def test_an_environment_is_made_once_and_again_where_other_packages_are_wanted(tmp_path, monkeypatch):
    calls = []

    def python(what, *arguments, interpreter=None):
        calls.append(arguments)
        (tmp_path / "peer").mkdir(exist_ok=True)

    monkeypatch.setattr(environments, "python", python)
    for packages, made in ((("a==1",), 1), (("a==1",), 1), (("a==2",), 2)):
        assert environments.environment("peer", packages, tmp_path) == tmp_path / "peer" / "bin" / "python"
        assert json.dumps(calls).count("venv") == made
        assert calls[-1][-1] == packages[0] or made == 1
