"""The order of prompts, their seeds, and prompts that cannot be used."""

from collections import Counter

import pytest

from tests.tiny_models import make_tiny_policy
from trainer.command import run_or_explain
from trainer.ppo.build import load_policy
from trainer.ppo.errors import PromptsUnusable
from trainer.ppo.prompts import PromptSource, derive_seed
from trainer.ppo.run import run_ppo

TEXTS = [f"Prompt number {number}." for number in range(10)]


@pytest.fixture(scope="module")
def renderer(tmp_path_factory):
    return load_policy(make_tiny_policy(tmp_path_factory.mktemp("policy"), seed=0))[1]


def test_every_pass_holds_every_prompt_in_an_order_of_its_own(renderer):
    source = PromptSource(TEXTS, renderer, 100, seed=0)
    passes = [[draw.text for draw in source.draw("s", start, range(10))] for start in (0, 10, 20)]
    assert all(sorted(texts) == sorted(TEXTS) for texts in passes)
    assert len({tuple(texts) for texts in passes}) == 3


def test_a_draw_depends_on_its_place_alone(renderer):
    first, second = (PromptSource(TEXTS, renderer, 100, seed=7) for _ in range(2))
    first.draw("step 0", 3, range(9))  # what was drawn before does not matter
    whole = first.draw("step 1", 25, range(8))
    parts = [*second.draw("step 1", 25, range(5)), *second.draw("step 1", 25, range(5, 8), first_place=5)]
    assert whole == parts
    assert whole[0].prompt_ids == tuple(renderer.render_prompt(whole[0].text))


def test_seeds_are_all_different(renderer):
    source = PromptSource(TEXTS, renderer, 100, seed=0)
    seeds = [draw.seed for step in range(20) for draw in source.draw(f"step {step}", 0, range(50))]
    assert max(Counter(seeds).values()) == 1
    assert PromptSource(TEXTS, renderer, 100, seed=1).draw("step 0", 0, [0])[0].seed not in seeds
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_completions_of_one_prompt_have_seeds_of_their_own(renderer):
    source = PromptSource(TEXTS, renderer, 100, seed=0)
    draws = source.draw("step 0", 4, [0, 0, 0, 1, 1, 1])
    assert [draw.text for draw in draws] == [draws[0].text] * 3 + [draws[3].text] * 3
    assert draws[0].text != draws[3].text
    assert len({draw.seed for draw in draws}) == 6


def test_derived_seeds_stay_what_they_are():
    assert derive_seed(0, "step 0", 0) == derive_seed(0, "step 0", 0) != derive_seed(0, "step 0", 1)


def test_prompts_without_room_are_refused(renderer):
    with pytest.raises(PromptsUnusable, match="1 of 2 prompts have more than 12 tokens"):
        PromptSource(["short", "a very long prompt " * 10], renderer, 12, seed=0)


def test_a_file_that_cannot_be_used_ends_the_command_with_its_line(configure, capsys):
    config = configure()
    config.prompts.write_text('{"prompt": "a"}\n{"text": "b"}\n')
    with pytest.raises(SystemExit) as ended:
        run_or_explain("palate train ppo", lambda: run_ppo(config))
    assert ended.value.code == 2
    told = f"palate train ppo: {config.prompts}:2: 'prompt' must be a text; it is missing"
    assert told in capsys.readouterr().err
    assert not (config.out / "checkpoints").exists()
