"""What chat templates write at their ends, on real tokenizers."""

from dataclasses import replace
from pathlib import Path

import pytest

from palate.models.manifest import load_manifest
from palate.models.rendering import Renderer
from palate.models.template_truth import template_remarks
from tests.rendering import render_pair
from tests.reward_folders import make_llama

BODY = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def remarks(folder: Path, **changes: object) -> list[str]:
    manifest = replace(load_manifest(folder).manifest, **changes)
    return [f"{item.missing}; {item.assumed}" for item in template_remarks(Renderer.from_folder(folder, manifest))]


def test_one_bos_and_eos_are_as_usual(llama: Path, bert: Path):
    assert remarks(llama) == []
    assert remarks(bert) == []
    assert remarks(llama, template_kind="join") == []


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ bos_token }}" + BODY + "{{ eos_token }}", []),
        (BODY + "{{ eos_token }}", ["writes none; none is read"]),
        ("{{ bos_token * 2 }}" + BODY + "{{ eos_token }}", ["writes 2; one is read"]),
        ("{{ bos_token }}" + BODY, ["an end-of-sequence token where"]),
        ("{{ bos_token }}" + BODY + "{{ eos_token }}!", ["its last token, '!'"]),
    ],
)
def test_what_a_template_leaves_out_is_told(tmp_path: Path, template: str, said: list[str]):
    found = remarks(make_llama(tmp_path, chat_template=template))
    assert len(found) == len(said)
    assert all(part in remark for part, remark in zip(said, found, strict=True))


def test_a_manifest_that_rules_on_the_tokens_is_obeyed(tmp_path: Path):
    folder = make_llama(tmp_path, chat_template=BODY)
    assert len(remarks(folder)) == 2
    assert remarks(folder, add_bos=True, add_eos=True) == []
    renderer = Renderer.from_folder(folder, replace(load_manifest(folder).manifest, add_bos=True, add_eos=True))
    ids = render_pair(renderer, "the dog", "sat").token_ids
    assert (ids[0], ids[-1], ids.count(renderer.bos_id)) == (renderer.bos_id, renderer.eos_id, 1)
