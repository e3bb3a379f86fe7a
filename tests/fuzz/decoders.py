"""Every decoder that is fuzzed, by name; only the module of one that is asked for is loaded."""

from __future__ import annotations

from importlib import import_module

from tests.fuzz.harness import Harness

_MODULES = {
    "reward": ("reward.Score", "reward.Compare", "reward.Rank", "reward.Explain", "reward.ScoreStream", "reward.models",
               "admin", "oip.ModelInfer"),
    "policy": ("policy.Generate", "policy.ComputeLogprobs", "policy.StageWeights", "policy.publishing"),
    "chat": ("chat.messages", "chat.template"),
    "files": ("config.reward", "config.policy", "config.ppo", "config.identities", "audit.policy",
              "collect.principles", "folder.manifest", "folder.config", "folder.safetensors", "data.comparisons",
              "data.gzip", "data.parquet", "data.demonstrations", "data.prompts", "bulk.jsonl", "bulk.parquet"),
}  # fmt: skip

NAMES = tuple(name for names in _MODULES.values() for name in names)


def harness_of(name: str) -> Harness:
    """The harness of one decoder."""
    module = next(module for module, names in _MODULES.items() if name in names)
    harnesses: dict[str, Harness] = {
        harness.name: harness for harness in import_module(f"tests.fuzz.{module}").harnesses()
    }
    return harnesses[name]
