"""The TRL adapter: its function, and a GRPOTrainer that is trained with it."""

import logging
import math

import pytest

from palate.client import FailedPrecondition, ItemsFailed, Message
from palate.client.adapters.endpoint import AdapterError
from palate.client.adapters.trl import reward_function
from tests.palate.client.adapters.conftest import MAX_TOKENS
from tests.tiny_models import make_tiny_policy

# What TRL and the libraries under it warn of is theirs.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_texts(target, client):
    scores = reward_function(target)(prompts=["Why?", "How?"], completions=["No.", "So."], completion_ids=[[1], [2]])
    assert scores == client.score(["Why?", "How?"], ["No.", "So."]).scores()


def test_conversations(target, client):
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    answer = [{"role": "assistant", "content": "No."}]
    scores = reward_function(target)(prompts=[talk], completions=[answer])
    asked, answered = ([Message(**message) for message in part] for part in (talk, answer))
    assert scores == client.score([asked], [answered]).scores() == client.score([asked], ["No."]).scores()


def test_a_completion_without_a_score_has_none(target, client, caplog):
    logged = {}
    with caplog.at_level(logging.WARNING, "palate"):
        scores = reward_function(target)(
            prompts=["Why?"] * 3, completions=["No.", "", "secret " * MAX_TOKENS], log_metric=logged.__setitem__
        )
    assert scores == [*client.score(["Why?"], ["No."]).scores(), None, None]
    assert logged == {"palate/missing": 2 / 3}
    assert caplog.messages == ["2 of 3 completions have no score: INVALID 1, TOO_LONG 1"]


def test_a_strict_one_raises(target):
    with pytest.raises(ItemsFailed, match="item 1: INVALID"):
        reward_function(target, strict=True)(prompts=["Why?"] * 2, completions=["No.", ""])


def test_a_call_that_fails_raises(target):
    with pytest.raises(FailedPrecondition):
        reward_function(target, revision="0" * 64)(prompts=["Why?"], completions=["No."])


def test_what_cannot_be_scored_raises(target):
    with pytest.raises(AdapterError, match="tool_calls"):
        reward_function(target)(
            prompts=["Why?"], completions=[[{"role": "assistant", "content": "", "tool_calls": [{}]}]]
        )


@pytest.mark.parametrize("conversational", [False, True])
def test_a_grpo_trainer_trains_with_it(target, client, tmp_path, conversational):
    """Completions of the long prompt are too long for the reward model: they have no reward, and move nothing."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    policy = make_tiny_policy(tmp_path / "policy", 0, chat=True)
    texts = ["Say something.", "Say something " + "long " * MAX_TOKENS]
    prompts = [[{"role": "user", "content": text}] if conversational else text for text in texts]
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(policy),
        reward_funcs=reward_function(target),
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        args=GRPOConfig(
            output_dir=str(tmp_path / "out"),
            max_steps=2,
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=8,
            logging_steps=1,
            use_cpu=True,
            bf16=False,
            report_to="none",
            seed=0,
        ),
        processing_class=_tokenizer(policy),
    )
    asked = []
    calculate = trainer._calculate_rewards

    def recorded(inputs, prompts, completions, completion_ids):
        rewards = calculate(inputs, prompts, completions, completion_ids)
        asked.append((prompts, completions, rewards[:, 0].tolist()))
        return rewards

    trainer._calculate_rewards = recorded
    before = {name: weights.clone() for name, weights in trainer.model.named_parameters()}
    trainer.train()

    for prompts_asked, completions, rewards in asked:
        for prompt, completion, reward in zip(prompts_asked, completions, rewards, strict=True):
            result = client.score([_content(prompt)], [_content(completion)]).results[0]
            assert reward == getattr(result, "score", None) or (math.isnan(reward) and not hasattr(result, "score"))
    steps = [step for step in trainer.state.log_history if "rewards/palate/mean" in step]
    assert len(steps) == len(asked) == 2
    assert all(math.isfinite(step["reward"]) and step["palate/missing"] >= 0.5 for step in steps)
    after = dict(trainer.model.named_parameters())
    assert all(torch.isfinite(weights).all() for weights in after.values())
    assert any(not torch.equal(before[name], after[name]) for name in before)


def _content(value):
    return value if isinstance(value, str) else [Message(**message) for message in value]


def _tokenizer(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, padding_side="left")
