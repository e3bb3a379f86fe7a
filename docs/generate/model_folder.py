"""Writes docs/model-folder.md: what a model folder holds, and every field of `palate.json`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from palate.models.document import FORMAT_VERSION
from palate.models.ensemble import Ensemble, Member
from palate.models.manifest import Calibration, Manifest, OnnxExport, said_by
from palate.models.manifest_fields import ENSEMBLE_FIELDS, FIELDS, Field, Table

ROOT = Path(__file__).parents[2]

_PARTS = {"calibration": Calibration, "onnx": OnnxExport, "members": Member}
_SEVERAL_LABELS = ("score_index", "score_weights", "member_labels")

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

## A model on the hub

`palate serve reward` and `palate serve policy` take `--model hub:org/name@revision` as well (branch, tag or commit;
without one, `main`). The server asks which commit that is, logs it, and downloads those of the files above that the
repository has, and JSON files beside them, into the hub's own cache: nothing that is pickled, no code, nothing in
folders below, and no more than `--max-download-bytes`. Only a commit names the same model for ever; replies name its
digest either way, as `revision`. Where the hub cannot be reached, what the cache holds of that revision is served,
and the log says so; where it holds nothing, or what an interrupted download has left, the server ends and says how to
get it. `HF_HUB_CACHE`, `HF_HUB_OFFLINE`, `HF_TOKEN` and `HF_ENDPOINT` hold as ever. An ensemble has its members in
folders of their own, which are not downloaded: give such a one as a folder.

## A folder without `palate.json`

It is read as Hugging Face would read it: kind and architecture from `config.json` and the classifier head, the template
from the tokenizer, the length from positions and tokenizer. What had to be assumed is logged, and shown by
`palate export` and by `Explain`; options of `palate export` say otherwise and write it down.

## `palate.json`

One JSON object. What has no default is required; a field that nobody knows, a value of the wrong kind, and one that
contradicts the model are refused, with the file, the field, what was found and what is expected.
"""

_ENSEMBLES = """## The `palate.json` of an ensemble

A folder may name others instead of holding a model: `palate ensemble` writes such a one, and a reward server serves its
members under one name.
"""

_AFTER = """## What names a model

A model's *revision*, which every score carries, is one SHA-256 over the weights, the tokenizer, the template (chat
template, special tokens, and the fields from `kind` to `member_labels`), `calibration` and `logit_scale`; that of an
ensemble is one over its members' revisions, `calibration` and `logit_scale`. Whoever changes one of these serves
another revision. `onnx` is not part of it: an export keeps the name of its checkpoint.
"""


def model_folder() -> str:
    """The whole page."""
    single = f"A reward model:\n\n{_block(said_by(example_manifest()))}\n\n{_table(FIELDS, Manifest)}\n"
    ensemble = f"{_block(said_by(example_ensemble()))}\n\n{_table(ENSEMBLE_FIELDS, Ensemble)}\n"
    return "\n".join((_LEAD, single, _ENSEMBLES, ensemble, _AFTER))


def example_manifest() -> Manifest:
    """The fields' examples together: a reward model with one label."""
    values = {name: field.example for name, field in FIELDS.items() if "." not in name and name not in _SEVERAL_LABELS}
    calibration, onnx = _example(FIELDS, "calibration", Calibration), _example(FIELDS, "onnx", OnnxExport)
    return Manifest(**values, calibration=calibration, onnx=onnx)


def example_ensemble() -> Ensemble:
    """The same for an ensemble."""
    first = _example(ENSEMBLE_FIELDS, "members", Member)
    members = (first, dataclasses.replace(first, path="../second"))
    logit_scale = ENSEMBLE_FIELDS["logit_scale"].example
    return Ensemble(members, logit_scale, _example(ENSEMBLE_FIELDS, "calibration", Calibration))


def _example(table: Table, group: str, kind: type[Any]) -> Any:
    return kind(**{each.name: table[f"{group}.{each.name}"].example for each in dataclasses.fields(kind)})


def _block(fields: dict[str, Any]) -> str:
    return f"```json\n{json.dumps({'format_version': FORMAT_VERSION, **fields}, indent=2)}\n```"


def _table(table: Table, kind: type[Any]) -> str:
    return "\n".join(_rows(table, kind))


def _rows(table: Table, kind: type[Any]) -> Iterator[str]:
    yield "| field | meaning | unit | expected | default | example |"
    yield "|---|---|---|---|---|---|"
    yield f"| `format_version` | Version of this format. |  | {FORMAT_VERSION} | required | `{FORMAT_VERSION}` |"
    for field in table.values():
        example = f"`{json.dumps(field.example)}`" if field.name != "members" else "above"
        cells = (field.meaning, field.unit, field.expected, _default(field, kind), example)
        yield f"| `{field.name}` | {' | '.join(cells)} |"


def _default(field: Field, kind: type[Any]) -> str:
    group, _, inner = field.name.partition(".")
    owner, name = (_PARTS[group], inner) if inner else (kind, group)
    default = {each.name: each.default for each in dataclasses.fields(owner)}[name]
    if field.name == "kind":  # the reader decides by it, so it has no default in the file
        return "required"
    if default is dataclasses.MISSING:
        optional = inner and group != "members"
        return f"required in `{group}`, which may be left out" if optional else "required"
    return "none" if default in (None, ()) else f"`{json.dumps(default)}`"


if __name__ == "__main__":
    (ROOT / "docs/model-folder.md").write_text(model_folder(), encoding="utf-8")
