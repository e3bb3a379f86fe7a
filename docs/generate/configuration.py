"""Writes docs/configuration.md from the configuration classes: every flag with its default and what it does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from palate.settings import Settings
from services.policy.config import PolicyConfig
from services.reward.config import RewardConfig
from trainer.best_of_n import BestOfNConfig
from trainer.collect import CollectConfig
from trainer.config import PPOConfig
from trainer.demo.config import DemoConfig
from trainer.pretrain_config import PretrainConfig
from trainer.reward_model.config import RewardTrainConfig
from trainer.sft_config import SftConfig

ROOT = Path(__file__).parents[2]

COMMANDS: tuple[tuple[str, type[Settings]], ...] = (
    ("palate serve reward", RewardConfig),
    ("palate serve policy", PolicyConfig),
    ("palate train pretrain", PretrainConfig),
    ("palate train sft", SftConfig),
    ("palate train reward", RewardTrainConfig),
    ("palate train ppo", PPOConfig),
    ("palate collect", CollectConfig),
    ("palate best-of-n", BestOfNConfig),
    ("palate demo", DemoConfig),
)

_LEAD = """# Configuration

Generated from the configuration classes by `make docs`; do not edit.

Every value can come from a flag, from the environment, or from a YAML file given with `--config` (or `PALATE_CONFIG`);
flags win over the environment, the environment over the file. A flag `--max-items` is the YAML key `max_items` and the
environment variable `<prefix>MAX_ITEMS`; parts of a group have a dot in the flag (`--ppo.kl-coef`), nesting in YAML,
and two underscores in the environment. A switch is turned on by its flag and off by
the same with `no` (`--no-frozen`, `--no-record.progress`). A misspelt flag, key or variable is an error that names the
nearest right one, and so is a key given twice.
"""


def configuration() -> str:
    """The whole page."""
    parts = [_LEAD]
    for command, settings in COMMANDS:
        prefix = settings.model_config.get("env_prefix", "")
        summary = " ".join((settings.__doc__ or "").split())
        parts += [
            f"## `{command}`",
            "",
            summary,
            "",
            f"Environment prefix: `{prefix}`.",
            "",
            "| flag | default | |",
            "|---|---|---|",
        ]
        parts += [*_rows(settings, ""), ""]
    return "\n".join(parts).rstrip() + "\n"


def _rows(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        flag = prefix + name.replace("_", "-")
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _rows(field.annotation, f"{flag}.")
        else:
            yield f"| `--{flag}` | {_default(field)} | {(field.description or '').replace('|', chr(92) + '|')} |"


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined and field.default_factory is None:
        return "required"
    value = field.get_default(call_default_factory=True)
    return "" if value in (None, "", [], (), {}) else f"`{value}`"


if __name__ == "__main__":
    (ROOT / "docs/configuration.md").write_text(configuration(), encoding="utf-8")
