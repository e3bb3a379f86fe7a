"""The gold reward as a function that a run can be told to look at: `--watch.gold-function`."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.simulation.gold import gold_reward


def gold(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """Gold of every completion; the prompts are of the simulated world."""
    return [gold_reward(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
