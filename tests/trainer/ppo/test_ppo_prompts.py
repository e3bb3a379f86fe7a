"""The order of prompts, their seeds, and files that cannot be used."""

import json
from collections import Counter

import pytest

from tests.tiny_models import make_tiny_policy
from trainer.ppo.build import load_policy
from trainer.ppo.errors import PromptsUnusable
from trainer.ppo.prompts import PromptSource, derive_seed, read_prompts

TEXTS = [f"Prompt number {number}." for number in range(10)]


@pytest.fixture(scope="module")
def renderer(tmp_path_factory):
    return load_policy(make_tiny_policy(tmp_path_factory.mktemp("policy"), seed=0))[1]


def test_every_pass_holds_every_prompt_in_an_order_of_its_own(renderer):
    source = PromptSource(TEXTS, renderer, 100, seed=0)
    passes = [[draw.text for draw in source.draw("s", start, 10)] for start in (0, 10, 20)]
    assert all(sorted(texts) == sorted(TEXTS) for texts in passes)
    assert len({tuple(texts) for texts in passes}) == 3


def test_a_draw_depends_on_its_place_alone(renderer):
    first, second = (PromptSource(TEXTS, renderer, 100, seed=7) for _ in range(2))
    first.draw("step 0", 3, 9)  # what was drawn before does not matter
    whole = first.draw("step 1", 25, 8)
    parts = [*second.draw("step 1", 25, 5), *second.draw("step 1", 30, 3, first_place=5)]
    assert whole == parts
    assert whole[0].prompt_ids == tuple(renderer.render_prompt(whole[0].text))


def test_seeds_are_all_different(renderer):
    source = PromptSource(TEXTS, renderer, 100, seed=0)
    seeds = [draw.seed for step in range(20) for draw in source.draw(f"step {step}", 0, 50)]
    assert max(Counter(seeds).values()) == 1
    assert PromptSource(TEXTS, renderer, 100, seed=1).draw("step 0", 0, 1)[0].seed not in seeds
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_derived_seeds_stay_what_they_are():
    assert derive_seed(0, "step 0", 0) == derive_seed(0, "step 0", 0) != derive_seed(0, "step 0", 1)


def test_prompts_without_room_are_refused(renderer):
    with pytest.raises(PromptsUnusable, match="1 of 2 prompts have more than 12 tokens"):
        PromptSource(["short", "a very long prompt " * 10], renderer, 12, seed=0)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"prompt": "a"}\n{"text": "b"}\n', 'line 2 has no text "prompt"'),
        ('{"prompt": ""}\n', "line 1"),
        ('{"prompt": 3}\n', "line 1"),
        ("not json\n", "line 1 is not JSON"),
        ("\n", "holds 0 prompts"),
    ],
)
def test_bad_files_are_named_with_their_line(tmp_path, content, told):
    file = tmp_path / "prompts.jsonl"
    file.write_text(content)
    with pytest.raises(PromptsUnusable, match=told):
        read_prompts(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PromptsUnusable, match="nowhere"):
        read_prompts(tmp_path / "nowhere.jsonl")


def test_other_fields_are_left_alone(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"prompt": "a", "id": 3}) + "\n\n" + json.dumps({"prompt": "ü"}) + "\n")
    assert read_prompts(file) == ["a", "ü"]
