"""Files that people and other programs write: configuration, identities, model folders, data."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy
import yaml
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from pydantic import ValidationError, create_model

from palate.audit.gate import Limits, PolicyProblem, check_names, read_policy
from palate.bulk.items import Columns, pair_of
from palate.bulk.items import Limits as BulkLimits
from palate.bulk.rows import FileProblem, read_entries
from palate.models.folder import FolderError, ModelFolder
from palate.models.manifest import load_manifest
from palate.settings import ConfigFileError, Group, read_config
from services.policy.config import PolicyConfig
from services.reward.config import RewardConfig
from services.runtime.identity import Identities, IdentityFileError
from tests.fuzz import folders
from tests.fuzz.harness import Harness, spoilt
from trainer.collect.principles import read_principles
from trainer.config import PPOConfig
from trainer.data.comparisons import read_comparisons
from trainer.data.demonstrations import read_demonstrations
from trainer.data.lines import DataError
from trainer.data.prompts import read_prompts
from trainer.data.votes import count_votes, pairs_of


def _reading(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Puts an input into a file of that name and reads it."""

    @cache
    def file() -> Path:
        return folders.scratch(name)

    def decode(data: bytes) -> object:
        file().write_bytes(data)
        return read(file())

    return decode


@cache
def _folder() -> Path:
    """A decoder with a head, so that only the file that is put there is strange."""
    folder = folders.scratch("folder")
    folder.mkdir()
    folders.write_decoder(folder, folders.TEMPLATES["plain"])
    (folder / "model.safetensors").write_bytes(_HEADED)
    return folder


_HEADED = safetensors.numpy.save({"score.weight": np.zeros((1, 8), np.float32)})


def _in_folder(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Replaces one file of a model folder by an input."""

    def decode(data: bytes) -> object:
        file = _folder() / name
        before = file.read_bytes()
        try:
            file.write_bytes(data)
            return read(_folder())
        finally:
            file.write_bytes(before)

    return decode


def _looked_up(file: Path) -> object:
    """What a server asks of the file for every call."""
    identities = Identities(file)
    found = identities.of_token("a token"), identities.of_certificate(["a.pod"])
    return [each.valid_at(datetime.now(UTC)) for each in found if each is not None]


def _gated(file: Path) -> object:
    policy = read_policy(file)
    check_names(policy, ["verbosity", "hedging"])
    return policy


def _votes(file: Path) -> object:
    found = read_comparisons(file)
    pairs = pairs_of(found.rows)
    return count_votes(pairs), [pair.judged() for pair in pairs]


def _bulk(file: Path) -> object:
    limits = BulkLimits(16, 65_536)
    return [pair_of(entry, Columns("prompt", "completion"), limits) for entry in read_entries(file)]


def _configured(kind: Any) -> Callable[[Path], object]:
    """Checks what a file says as the configuration does, without the environment, which takes milliseconds."""
    fields = {name: (field.annotation, field) for name, field in kind.model_fields.items()}

    @cache
    def model() -> Any:
        return create_model(kind.__name__, __base__=Group, **fields)

    def check(file: Path) -> object:
        try:
            return model().model_validate(read_config(file))
        except ValidationError as error:  # of which each problem is a line; the longest one is looked at
            raise ConfigFileError(max((problem["msg"] for problem in error.errors()), key=len)) from error

    return check


_TEXTS = st.one_of(st.text(max_size=12), st.sampled_from(["\ud800", "\0", "a" * 2000, "b"]))

_JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), _TEXTS, st.sampled_from([10**400, "tie", "a", 1e308])
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=6,
)

_LABELS = st.sampled_from(["a", "b", "tie"])

_VOTES = st.lists(st.fixed_dictionaries({"annotator": _TEXTS, "vote": _LABELS}) | _LABELS | _JSON, max_size=4)

_DEEP = st.sampled_from([b"[" * 4000, b'{"a":' * 1500, b'{"prompt": "a", "x": ' + b"[" * 3000, b"1" * 4000])


def _row(*keys: str) -> SearchStrategy[dict[str, Any]]:
    fields = {"label": _LABELS, "votes": _VOTES}
    present = {key: fields.get(key, _TEXTS) | _JSON for key in keys}
    return st.fixed_dictionaries({}, optional=present)


def _jsonl(*keys: str) -> SearchStrategy[bytes]:
    lines = st.lists(_row(*keys).map(lambda row: json.dumps(row).encode()) | _DEEP, max_size=4)
    return spoilt(lines.map(b"\n".join))


_COMPARISONS = ("prompt", "a", "b", "label", "votes", "chosen", "rejected", "annotator", "group", "margin")


def _parquet(*keys: str) -> SearchStrategy[bytes]:
    columns = st.dictionaries(
        st.sampled_from(keys),
        st.sampled_from([["x", "y"], ["a", None], [1, 2], [[{"annotator": "n", "vote": "a"}], []], [b"\xff", b""]]),
        min_size=1,
    )
    return spoilt(columns.map(_written))


def _written(columns: dict[str, list[Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def _yaml(known: SearchStrategy[Any]) -> SearchStrategy[bytes]:
    odd = st.sampled_from(
        [b"a: &x [1]\nb: *x", b"port: 2026-99-99", b"- " * 2000, b"a: !!python/object:os.system x", b"{" * 2000,
         b"port: 0o9\nhost: [", b"? [a]\n: b",
         b"port: " + b"9" * 5000, b"<<: 3", b"a: 190:20:30",
         b"\xff\xfe", b"%YAML 9"]
    )  # fmt: skip
    return spoilt(known.map(lambda value: yaml.safe_dump(value).encode()) | odd)


def _settings(kind: Any, deepest: int = 1) -> SearchStrategy[Any]:
    """Some of a configuration's values, those of its groups too."""
    names, value = sorted(kind.model_fields), _JSON.filter(_dumps)
    groups = (
        [field.annotation for field in kind.model_fields.values() if _is_group(field.annotation)] if deepest else []
    )
    nested = [_settings(group, deepest - 1) for group in groups]
    return st.dictionaries(st.sampled_from(names) | _PLAIN, st.one_of(value, *nested), max_size=6)


def _is_group(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Group)


_PLAIN = st.text(st.characters(codec="ascii", categories=["L"]), max_size=8)


def _dumps(value: Any) -> bool:
    return "\\ud800" not in json.dumps(value)


_DIGEST = hashlib.sha256(b"a token").hexdigest()
_IDENTITIES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "name": _PLAIN | st.integers(),
            "roles": st.lists(st.sampled_from(["scorer", "trainer", "admin", "x"])) | st.none() | _PLAIN,
            "token_sha256": st.sampled_from(["a" * 64, "\u00e9" * 64, _DIGEST]) | st.integers(),
            "certificate": st.just("a.pod") | _PLAIN,
            "expires": st.dates() | st.datetimes() | _PLAIN,
        },
    ),
    max_size=3,
)

_GATE = st.fixed_dictionaries(
    {},
    optional={
        "max_excluded": st.floats(0, 1) | _JSON.filter(_dumps),
        "min_items": st.integers(1, 9) | _JSON.filter(_dumps),
        "probes": st.dictionaries(
            st.sampled_from(["verbosity", "hedging"]) | _PLAIN,
            st.dictionaries(
                st.sampled_from(sorted(Limits.model_fields)),
                st.sampled_from(["fail", "pass"]) | st.floats(0, 1) | _JSON.filter(_dumps),
                max_size=3,
            )
            | _JSON.filter(_dumps),
            max_size=2,
        )
        | _JSON.filter(_dumps),
    },
)

_PRINCIPLES = st.fixed_dictionaries(
    {}, optional={"principles": st.lists(_PLAIN, max_size=4) | _JSON.filter(_dumps), "more": st.none()}
)

_MANIFEST = st.fixed_dictionaries(
    {"format_version": st.just(1) | _JSON},
    optional={
        "kind": st.sampled_from(["reward", "policy", "ensemble"]) | _JSON,
        "architecture": st.sampled_from(["decoder", "encoder"]) | _JSON,
        "template_kind": st.sampled_from(["chat", "join", "pair"]) | _JSON,
        "add_bos": st.booleans() | _JSON,
        "add_eos": st.booleans() | _JSON,
        "max_tokens": st.integers(1, 100) | _JSON,
        "score_weights": st.lists(st.floats(), max_size=3) | _JSON,
        "member_labels": st.lists(st.integers(-1, 3), max_size=3) | _JSON,
        "calibration": st.fixed_dictionaries({"mean": st.floats(), "std": st.floats()}) | _JSON,
        "onnx": _JSON,
    },
)

_CONFIG = st.fixed_dictionaries(
    {},
    optional={
        "architectures": st.just(["LlamaForSequenceClassification"]) | _JSON,
        "vocab_size": st.just(1000) | _JSON,
        "num_labels": st.integers(0, 3) | _JSON,
        "id2label": _JSON,
        "text_config": _JSON,
        "max_position_embeddings": st.just(64) | _JSON,
        "pad_token_id": _JSON,
        "eos_token_id": _JSON,
        "model_type": st.sampled_from(["llama", "roberta"]) | _JSON,
        "type_vocab_size": _JSON,
    },
)


def _json(values: SearchStrategy[Any]) -> SearchStrategy[bytes]:
    return spoilt(values.map(lambda value: json.dumps(value).encode()) | _DEEP)


@st.composite
def _headers(draw: st.DrawFn) -> bytes:
    entry = {"dtype": draw(st.just("F32") | _JSON), "shape": draw(st.just([1, 8]) | _JSON),
             "data_offsets": draw(st.just([0, 32]) | st.lists(st.integers(), max_size=3) | _JSON)}  # fmt: skip
    header = json.dumps({"score.weight": entry, draw(_PLAIN): draw(_JSON)}).encode()
    return draw(st.just(len(header)) | st.integers(0, 2**64 - 1)).to_bytes(8, "little") + header + bytes(32)


def harnesses() -> list[Harness]:
    """One for each kind of file."""
    described = _CONFIG.map(lambda value: {"architectures": ["LlamaForSequenceClassification"], **value})
    return [
        *(
            Harness(
                f"config.{name}",
                _reading("config.yaml", _configured(kind)),
                (ConfigFileError,),
                _yaml(_settings(kind)),
            )
            for name, kind in (("reward", RewardConfig), ("policy", PolicyConfig), ("ppo", PPOConfig))
        ),
        Harness("config.identities", _reading("who.yaml", _looked_up), (IdentityFileError,), _yaml(_IDENTITIES)),
        Harness("audit.policy", _reading("gate.yaml", _gated), (PolicyProblem,), _yaml(_GATE)),
        Harness("collect.principles", _reading("principles.yaml", read_principles), (DataError,), _yaml(_PRINCIPLES)),
        Harness("folder.manifest", _in_folder("palate.json", load_manifest), (FolderError,), _json(_MANIFEST),
                prepare=_folder),
        Harness("folder.config", _in_folder("config.json", _guessed), (FolderError,), _json(described),
                prepare=_folder),
        Harness("folder.safetensors", _in_folder("model.safetensors", _tensors), (FolderError,), spoilt(_headers()),
                prepare=_folder),
        Harness("data.comparisons", _reading("a.jsonl", _votes), (DataError,), _jsonl(*_COMPARISONS)),
        Harness("data.gzip", _reading("a.jsonl.gz", _votes), (DataError,), _gzipped()),
        Harness("data.parquet", _reading("a.parquet", _votes), (DataError,), _parquet(*_COMPARISONS)),
        Harness("data.demonstrations", _reading("d.jsonl", read_demonstrations), (DataError,),
                _jsonl("prompt", "completion")),
        Harness("data.prompts", _reading("p.jsonl", read_prompts), (DataError,), _jsonl("prompt", "group")),
        Harness("bulk.jsonl", _reading("r.jsonl", _bulk), (FileProblem,), _jsonl("prompt", "completion", "id")),
        Harness("bulk.parquet", _reading("r.parquet", _bulk), (FileProblem,), _parquet("prompt", "completion")),
    ]  # fmt: skip


def _guessed(folder: Path) -> object:
    """What a folder without palate.json is taken for."""
    said = folder / "palate.json"
    aside = said.rename(folder / "aside.json")
    try:
        return load_manifest(folder)
    finally:
        aside.rename(said)


def _tensors(folder: Path) -> object:
    return ModelFolder(folder).tensors


def _gzipped() -> SearchStrategy[bytes]:
    import gzip

    return spoilt(_jsonl(*_COMPARISONS).map(partial(gzip.compress, mtime=0)))
