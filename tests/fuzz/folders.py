"""What the decoders read with: tokenizers and templates of tiny folders without weights, and a model that computes
nothing."""

from __future__ import annotations

import asyncio
import atexit
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from palate.models.manifest import Digests, Manifest, digest_of, write_manifest
from palate.models.rendering import Renderer
from services.reward.engine import EngineOptions
from services.reward.engine_fake import FakeEngine
from services.reward.model import RewardModel
from tests.tiny_tokenizers import BOS, CHAT_TEMPLATE, EOS, PAD, byte_tokenizer, word_tokenizer

MAX_TOKENS = 64

TEMPLATES = {
    "plain": CHAT_TEMPLATE,
    "strict": "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate, got ' + m['role'] + m['content']) }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] | trim + ' [/INST]' }}{% else %}"
    "{% generation %}{{ m['content'] + eos_token }}{% endgeneration %}{% endif %}{% endfor %}",
    "tools": "{% set ns = namespace(system='', rest=[]) %}{% for m in messages if m.role == 'system' %}"
    "{% set ns.system = ns.system + m.content %}{% endfor %}{{ ns.system | tojson(indent=2) }}"
    "{% for m in messages | rejectattr('role', 'equalto', 'system') %}{{ m | tojson }}"
    "{{ m.content.split('</think>')[-1] | replace('a', 'bb') | upper | indent(2) }}{% endfor %}"
    "{% if add_generation_prompt %}{{ strftime_now('%d %b') }}{% endif %}",
}
"""Chat templates that do what published ones do."""


@cache
def renderer(template: str | None = "plain") -> Renderer:
    """Of a decoder with one of the chat templates; of an encoder that reads pairs for None."""
    folder = _made()
    return write_decoder(folder, TEMPLATES[template]) if template is not None else _write_encoder(folder)


@cache
def model() -> RewardModel:
    """A decoder named "judge" whose engine computes nothing."""
    read = renderer()
    digests = Digests("w" * 64, read.tokenizer_digest, read.template_digest, digest_of({"model": "judge"}))
    engine = FakeEngine(EngineOptions())
    return RewardModel("judge", read.manifest, digests, read, engine, None, ())


def write_decoder(folder: Path, template: str) -> Renderer:
    """A decoder's files, without weights."""
    _write_config(folder, "LlamaForSequenceClassification", {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD})
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(template)
    return _written(folder, Manifest("reward", "decoder", "chat", True, False, MAX_TOKENS))


def _write_encoder(folder: Path) -> Renderer:
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    _write_config(folder, "BertForSequenceClassification", {**names, "model_input_names": ["token_type_ids"]})
    word_tokenizer().save(str(folder / "tokenizer.json"))
    return _written(folder, Manifest("reward", "encoder", "pair", False, False, MAX_TOKENS, truncation="left"))


def _write_config(folder: Path, architecture: str, tokenizer_config: dict[str, object]) -> None:
    config = {"architectures": [architecture], "type_vocab_size": 2, "vocab_size": 1000}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))


def _written(folder: Path, manifest: Manifest) -> Renderer:
    write_manifest(folder, manifest)
    return Renderer.from_folder(folder, manifest)


class InlineLoop(asyncio.SelectorEventLoop):
    """An event loop that does at once what others hand to a thread: a busy machine would make each such step wait."""

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        """Calls the function here and now."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done


def scratch(name: str) -> Path:
    """A file to put an input into."""
    return _made() / name


def memory() -> str | None:
    """A folder that is in memory, where the system has one: every input is written to a file."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _made() -> Path:
    """A folder that goes when Python ends; libFuzzer does not let it, so a run has a `TMPDIR` that goes with it."""
    folder = tempfile.mkdtemp(prefix="palate-fuzz-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
