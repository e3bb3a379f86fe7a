"""TRL's PPOTrainer, alive and waiting for orders; runs in an environment of its own, and nothing else of ours is there.

Reads lines of JSON, {"steps": 3}, and answers each with what those steps took; the end of the input ends it.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
    TrainerCallback,
)
from trl import PPOConfig, PPOTrainer

from benchmarks.ppo.passes import counted

_MOST_STEPS = 10_000


class _Orders(TrainerCallback):
    """Lets the trainer take as many steps as it is told, then waits for the next order."""

    def __init__(self, answer: Callable[[dict[str, Any]], None]) -> None:
        self._answer = answer

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Waits for the first."""
        self._wait()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Counts down, and answers."""
        self._left -= 1
        if self._left:
            return
        seconds = time.perf_counter() - self._begin
        passes = asdict(self._passes)
        self._counting.__exit__(None, None, None)
        self._answer({"seconds": seconds, "passes": passes})
        self._wait()

    def _wait(self) -> None:
        line = sys.stdin.readline()
        if not line:
            raise SystemExit
        self._left: int = json.loads(line)["steps"]
        self._counting = counted()
        self._passes = self._counting.__enter__()
        self._begin = time.perf_counter()


def main() -> NoReturn:
    """Trains until nobody asks for more."""
    parser = ArgumentParser()
    for folder in ("policy", "reward", "prompts", "out"):
        parser.add_argument(f"--{folder}", type=Path, required=True)
    for number in ("batch", "microbatch", "new-tokens", "epochs", "threads"):
        parser.add_argument(f"--{number}", type=int, required=True)
    given = parser.parse_args()
    answers, sys.stdout = sys.stdout, sys.stderr  # what TRL prints is no answer
    torch.set_num_threads(given.threads)
    _trainer(given, _Orders(lambda answer: print(json.dumps(answer), file=answers, flush=True))).train()
    raise SystemExit("there are no more steps to take")


def _trainer(given: Any, orders: TrainerCallback) -> PPOTrainer:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(given.policy, padding_side="left")
    with given.prompts.open() as lines:
        rows = [{"input_ids": tokenizer(json.loads(line)["prompt"])["input_ids"]} for line in lines]
    prompts = Dataset.from_list(rows)
    policy, ref = (AutoModelForCausalLM.from_pretrained(given.policy) for _ in range(2))
    reward, value = (AutoModelForSequenceClassification.from_pretrained(given.reward) for _ in range(2))
    return PPOTrainer(
        _config(given), tokenizer, policy, ref, reward, prompts, value, eval_dataset=prompts, callbacks=[orders]
    )


def _config(given: Any) -> PPOConfig:
    return PPOConfig(
        output_dir=str(given.out),
        per_device_train_batch_size=given.microbatch,
        gradient_accumulation_steps=given.batch // given.microbatch,
        local_rollout_forward_batch_size=given.batch,
        num_mini_batches=1,
        num_ppo_epochs=given.epochs,
        response_length=given.new_tokens,
        stop_token=None,  # every completion has all its tokens
        temperature=1.0,
        total_episodes=_MOST_STEPS * given.batch,
        num_sample_generations=0,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


if __name__ == "__main__":
    main()
