"""`palate best-of-n`: prompt → n completions → scores of a proxy and of gold → what choosing by the proxy gives."""

from trainer.best_of_n.config import BestOfNConfig
from trainer.best_of_n.run import run_best_of_n

__all__ = ["BestOfNConfig", "run_best_of_n"]
