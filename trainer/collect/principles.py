"""What an AI judge goes by, and the question that it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from palate.file_errors import cause_of
from palate.yaml_document import read_yaml
from trainer.data.lines import DataError

DEFAULT = Path(__file__).with_name("principles.yaml")
"""General ones."""

_MOST_PRINCIPLES, _LONGEST_PRINCIPLE = 50, 2000

_QUESTION = """You compare two answers to the same message. Go by these principles:

{principles}

The message:
<message>
{prompt}
</message>

Answer A:
<answer>
{first}
</answer>

Answer B:
<answer>
{second}
</answer>

Which answer is better by these principles? Reply with one letter, A or B, and nothing else.

The letter:
"""


def question(principles: Sequence[str], prompt: str, first: str, second: str) -> str:
    """What the judge reads."""
    told = "\n".join(f"{number}. {principle}" for number, principle in enumerate(principles, 1))
    return _QUESTION.format(principles=told, prompt=prompt, first=first, second=second)


def read_principles(file: Path) -> tuple[str, ...]:
    """The principles of a YAML file {"principles": [text, ...]}.

    Raises:
        DataError: It cannot be read, or holds something else.
    """
    try:
        document = read_yaml(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"the principles {file} cannot be read: {cause_of(error)}") from error
    found = document.get("principles") if isinstance(document, dict) and len(document) == 1 else None
    if not isinstance(found, list) or not 0 < len(found) <= _MOST_PRINCIPLES or not all(map(_is_principle, found)):
        raise DataError(
            f"{file} needs one key, principles: a list of 1 to {_MOST_PRINCIPLES} texts, none empty or longer than "
            f"{_LONGEST_PRINCIPLE} characters"
        )
    return tuple(text.strip() for text in found)


def _is_principle(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value.strip()) <= _LONGEST_PRINCIPLE
