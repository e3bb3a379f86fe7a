"""Writes docs/model-folder.md: what a model folder holds, and every field of `palate.json`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from palate.models.manifest import FORMAT_VERSION, Calibration, Manifest, OnnxExport, document_of
from palate.models.manifest_fields import FIELDS, Field

ROOT = Path(__file__).parents[2]

_NESTED = {"calibration": Calibration, "onnx": OnnxExport}
_SEVERAL_LABELS = ("score_index", "score_weights")

_LEAD = """# The model folder

Generated from `palate/models/manifest_fields.py` by `make docs`; do not edit.

Services and trainer read models from folders. A model folder is a Hugging Face folder, and `palate.json` says what
those files leave open: how texts are put together, where the score is read, how long an input may be. Training and
`palate export` write it; whoever serves a model of their own may write it by hand.

| file | |
|---|---|
| `config.json` | the architecture, as transformers writes it |
| `model.safetensors` | the weights; or several files with `model.safetensors.index.json` |
| `tokenizer.json`, `tokenizer_config.json` | the tokenizer and its special tokens |
| `chat_template.jinja` | the chat template, where there is one (or in `tokenizer_config.json`) |
| `palate.json` | what follows |
| `model.onnx` | the graph for ONNX Runtime, where `palate export` made one |

Weights are read from safetensors alone. Pickled ones (`pytorch_model.bin`) are never loaded, because a pickle can run
any code; the refusal names the command that converts them.

## A folder without `palate.json`

It is read as Hugging Face would read it: kind and architecture from `config.json` and the classifier head, the template
from the tokenizer, the length from positions and tokenizer. What had to be assumed is logged, and shown by
`palate export` and by `Explain`; options of `palate export` say otherwise and write it down.

## `palate.json`

One JSON object. What has no default is required; a field that nobody knows, a value of the wrong kind, and one that
contradicts the model are refused, with the file, the field, what was found and what is expected.
"""

_AFTER = """## What names a model

A model's *revision*, which every score carries, is one SHA-256 over the weights, the tokenizer, the template (chat
template, special tokens, and the fields from `kind` to `score_weights`), `calibration` and `logit_scale`. Whoever
changes one of these serves another revision. `onnx` is not part of it: the export has the scores of its checkpoint.
"""


def model_folder() -> str:
    """The whole page."""
    example = json.dumps(document_of(example_manifest()), indent=2)
    table = "\n".join(_rows())
    return f"{_LEAD}\nA reward model:\n\n```json\n{example}\n```\n\n{table}\n\n{_AFTER}"


def example_manifest() -> Manifest:
    """The fields' examples together: a reward model with one label."""
    values: dict[str, Any] = {
        name: field.example for name, field in FIELDS.items() if "." not in name and name not in _SEVERAL_LABELS
    }
    for name, kind in _NESTED.items():
        values[name] = kind(**{each.name: FIELDS[f"{name}.{each.name}"].example for each in dataclasses.fields(kind)})
    return Manifest(**values)


def _rows() -> Iterator[str]:
    yield "| field | meaning | unit | expected | default | example |"
    yield "|---|---|---|---|---|---|"
    yield f"| `format_version` | Version of this format. | | {FORMAT_VERSION} | required | `{FORMAT_VERSION}` |"
    for field in FIELDS.values():
        cells = (field.meaning, field.unit, field.expected, _default(field), f"`{json.dumps(field.example)}`")
        yield f"| `{field.name}` | {' | '.join(cells)} |"


def _default(field: Field) -> str:
    group = field.name.partition(".")[0]
    if group in _NESTED:
        return f"required in `{group}`, which may be left out"
    default = {each.name: each.default for each in dataclasses.fields(Manifest)}[field.name]
    if default is dataclasses.MISSING:
        return "required"
    return "none" if default in (None, ()) else f"`{json.dumps(default)}`"


if __name__ == "__main__":
    (ROOT / "docs/model-folder.md").write_text(model_folder(), encoding="utf-8")
