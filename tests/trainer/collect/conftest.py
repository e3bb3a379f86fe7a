from random import Random

import pytest

from tests.servers import start_server
from tests.tiny_models import make_tiny_policy
from trainer.collect import CollectConfig
from trainer.data.lines import write_rows
from trainer.simulation.prompts import train_prompts


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(address of a real policy service, file of prompts)."""
    folder = tmp_path_factory.mktemp("collect")
    prompts = {prompt.text: prompt.family for prompt in train_prompts(40, Random(0))}
    write_rows(folder / "prompts.jsonl", [{"prompt": text, "group": family} for text, family in prompts.items()])
    with start_server("services.policy", make_tiny_policy(folder / "policy", 0, chat=True, max_tokens=1024)) as server:
        yield server.target, folder / "prompts.jsonl"


@pytest.fixture
def config(served):
    """Makes a configuration."""

    def make(out, **changes):
        fixed = {"policy": served[0], "prompts": served[1], "max_new_tokens": 8, "progress": False, "pairs": 40}
        return CollectConfig(**{**fixed, "out": out, **changes})

    return make
