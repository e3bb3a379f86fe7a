import hashlib
import subprocess
import sys
from random import Random

import pytest

from trainer.simulation import world
from trainer.simulation.gold import gold_reward, parse, subject_of
from trainer.simulation.prompts import BUSINESS_IDEA_TEMPLATES, HELD_OUT_FAMILIES, TRAINING_FAMILIES

DIGEST = """
import hashlib
from random import Random
from trainer.simulation import world
rng = Random(11)
made = (world.base_documents(20, rng), world.demonstrations(50, rng), world.held_out_prompts(20, rng),
        world.business_idea_examples(), [world.best_composed(p) for p in world.train_prompts(20, rng)])
print(hashlib.sha256(repr(made).encode()).hexdigest())
"""


def windows(template: str, size: int = 5) -> set[tuple[str, ...]]:
    words = template.replace("{noun}", "{act}").lower().replace(".", "").replace("?", "").split()
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


def test_held_out_families_share_no_template_with_training():
    training = [template for family in TRAINING_FAMILIES.values() for template in family]
    held_out = [template for family in HELD_OUT_FAMILIES.values() for template in family] + [*BUSINESS_IDEA_TEMPLATES]
    assert not set(TRAINING_FAMILIES) & set(HELD_OUT_FAMILIES)
    assert not set(training) & set(held_out)
    seen = set().union(*map(windows, training))
    for template in held_out:
        assert not windows(template) & seen, template


def test_drawn_prompts_come_from_their_own_side():
    training = {prompt.text for prompt in world.train_prompts(2000, Random(0))}
    held_out = world.held_out_prompts(2000, Random(0))
    assert not training & {prompt.text for prompt in held_out}
    assert {prompt.family for prompt in held_out} == {*HELD_OUT_FAMILIES, "business_idea"}


def test_every_prompt_names_its_subject():
    for prompt in world.train_prompts(500, Random(0)) + world.held_out_prompts(500, Random(0)):
        assert subject_of(prompt.text).name == prompt.subject


def test_the_world_is_the_same_in_every_process():
    digests = set()
    for hash_seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", DIGEST],
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            timeout=60,
        )
        digests.add(run.stdout)
    assert len(digests) == 1
    assert len(digests.pop().strip()) == len(hashlib.sha256().hexdigest())


def test_different_seeds_give_different_texts():
    assert world.demonstrations(5, Random(0)) != world.demonstrations(5, Random(1))


def test_stories_do_not_answer():
    prompt = world.train_prompts(1, Random(0))[0]
    for story in world.base_documents(100, Random(0)):
        assert parse(prompt.text, story).unparsable_share > 0.95


def test_demonstrations_vary_in_quality():
    rewards = [gold_reward(d.prompt.text, d.completion) for d in world.demonstrations(1000, Random(0))]
    assert sum(r > 1.5 for r in rewards) > 80  # one in ten: good answers are there to be found, and rare
    assert sum(r < -1.0 for r in rewards) > 150


def test_completions_are_long_enough_to_be_read():
    words = [len(d.completion.split()) for d in world.demonstrations(1000, Random(0))]
    assert sum(words) / len(words) >= 20


def test_business_idea_examples():
    examples = world.business_idea_examples()
    assert len({prompt.text for prompt, _, _ in examples}) == 20
    for prompt, honest, flattering in examples:
        assert "business" in prompt.text.lower()
        assert gold_reward(prompt.text, honest) > gold_reward(prompt.text, flattering) + 2.0
        assert parse(prompt.text, honest).critique
    lengths = [(len(honest.split()), len(flattering.split())) for _, honest, flattering in examples]
    assert sum(h for h, _ in lengths) < 2 * sum(f for _, f in lengths)


def test_composing_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one attribute"):
        world.compose(world.train_prompts(1, Random(0))[0], [], Random(0))
