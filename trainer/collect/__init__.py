"""`palate collect`: prompt → two completions of a policy → a labeller's choice → JSONL."""

from trainer.collect.config import CollectConfig
from trainer.collect.run import CollectResult, run_collect

__all__ = ["CollectConfig", "CollectResult", "run_collect"]
