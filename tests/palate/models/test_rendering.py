import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.models.folder import FolderError
from palate.models.manifest import load_manifest
from palate.models.rendering import Renderer, RenderingError, TooLong
from tests.rendering import render_pair
from tests.reward_folders import change_json, make_llama, texts


def renderer_of(folder: Path, **changes) -> Renderer:
    return Renderer.from_folder(folder, replace(load_manifest(folder).manifest, **changes))


@pytest.fixture(scope="module")
def pair(bert: Path) -> Renderer:
    return renderer_of(bert)


@pytest.fixture(scope="module")
def chat(llama: Path) -> Renderer:
    return renderer_of(llama)


@pytest.fixture(scope="module")
def join(llama: Path) -> Renderer:
    return renderer_of(llama, template_kind="join", add_bos=True, add_eos=True)


def test_pair_encoding_equals_transformers(bert: Path, pair: Renderer):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bert)
    for (prompt, completion), rendered in zip(texts(40), pair.render_pairs(texts(40)), strict=True):
        expected = tokenizer(prompt, completion, padding=False, truncation=False)
        assert list(rendered.token_ids) == expected["input_ids"]
        assert list(rendered.segment_ids) == expected["token_type_ids"]


def test_pair_with_empty_prompt_is_one_sequence(bert: Path, pair: Renderer):
    from transformers import AutoTokenizer

    expected = AutoTokenizer.from_pretrained(bert)("good idea", padding=False, truncation=False)
    rendered = render_pair(pair, "", "good idea")
    assert list(rendered.token_ids) == expected["input_ids"]
    assert set(rendered.segment_ids) == {0}
    assert rendered.text == "[CLS]good idea[SEP]"


def test_chat_equals_transformers(llama: Path, chat: Renderer):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(llama)
    for prompt, completion in texts(20):
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
        expected = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
        rendered = render_pair(chat, prompt, completion)
        assert list(rendered.token_ids) == expected
        assert rendered.text == tokenizer.apply_chat_template(messages, tokenize=False)
        assert render_pair(chat, messages[:1], messages[1:]).token_ids == rendered.token_ids
        opening = tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, return_dict=True)
        assert chat.render_prompt(prompt) == opening["input_ids"]


TEMPLATES = [
    "{{ bos_token }}{% for m in messages %}\n  [{{ m.role }}]\n    {{- m.content | trim }}\n"
    "  {%- if loop.last %}!{% endif %}{% endfor %}",
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
    "{% else %}{{ m | tojson }}{% endif %}{% endfor %}",
    "{%- set ns = namespace(n=0) -%}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{% if ns.n > 9 %}{% break %}{% endif %}{{ ns.n }}{{ m['content'] }}{% endfor %}",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_template_language_is_that_of_transformers(tmp_path: Path, template: str):
    from transformers import AutoTokenizer

    folder = make_llama(tmp_path, chat_template=template)
    messages = [{"role": "user", "content": ' <a> "é"\n'}, {"role": "assistant", "content": " fine "}]
    expected = AutoTokenizer.from_pretrained(folder).apply_chat_template(messages, tokenize=False)
    assert render_pair(renderer_of(folder), messages[:1], messages[1:]).text == expected


def test_join_has_exactly_one_bos_and_one_eos(join: Renderer):
    bos, eos = join.bos_id, join.eos_id
    for prompt, completion in [("the dog", " sat"), ("<s>the dog", " sat</s>"), ("<s><s>the dog", " sat</s></s>")]:
        ids = render_pair(join, prompt, completion).token_ids
        assert (ids[0], ids[-1], ids.count(bos), ids.count(eos)) == (bos, eos, 1, 1)
    assert join.render_prompt("<s>the dog") == join.render_prompt("the dog")


def test_template_that_writes_bos_gets_no_second_one(llama: Path):
    both = renderer_of(llama, add_bos=True)
    ids = render_pair(both, "the dog", "sat").token_ids
    assert ids.count(both.bos_id) == 1
    assert ids == render_pair(renderer_of(llama, add_bos=False), "the dog", "sat").token_ids


LONG = " ".join(["girl"] * 400)


@pytest.mark.parametrize("kind", ["pair", "join", "chat"])
def test_too_long_is_refused_by_default_and_says_how_long(kind: str, request: pytest.FixtureRequest):
    renderer: Renderer = request.getfixturevalue(kind)
    with pytest.raises(TooLong, match="REJECT") as caught:
        render_pair(renderer, "park", LONG)
    assert caught.value.token_count > renderer.manifest.max_tokens


def test_pair_truncation_spares_special_tokens(pair: Renderer):
    whole = render_pair(pair, "park", "girl").token_ids
    cls, sep = whole[0], whole[-1]
    cat, dog = whole[1], whole[3]
    left = render_pair(pair, " ".join(["park"] * 400), "girl girl", "left")
    assert left.token_ids == (cls, *[cat] * (128 - 5), sep, dog, dog, sep)
    assert left.untruncated_count == 405
    assert left.truncated_tokens == 405 - 128
    right = render_pair(pair, "park park", LONG, "right")
    assert right.token_ids == (cls, cat, cat, sep, *[dog] * (128 - 5), sep)
    assert render_pair(pair, "park park", LONG, "left").token_ids == (cls, sep, *[dog] * (128 - 3), sep)


def test_join_truncation_spares_bos_and_eos(join: Renderer):
    left, right = (render_pair(join, "park", " " + LONG, side).token_ids for side in ("left", "right"))
    for ids in (left, right):
        assert (len(ids), ids[0], ids[-1]) == (256, join.bos_id, join.eos_id)
    assert join.decode(right).startswith("park girl")
    assert "park" not in join.decode(left)


def test_chat_truncation_spares_the_bos_of_the_template(chat: Renderer):
    ids = render_pair(chat, "park", LONG, "left").token_ids
    assert (len(ids), ids[0], ids[-1]) == (256, chat.bos_id, chat.eos_id)


@pytest.mark.parametrize("kind", ["pair", "join", "chat"])
def test_truncation_never_takes_all_that_is_judged(kind: str, request: pytest.FixtureRequest):
    with pytest.raises(TooLong, match="use LEFT"):
        render_pair(request.getfixturevalue(kind), LONG, " park", "right")


@settings(max_examples=60)
@given(
    prompt=st.text(max_size=300), completion=st.text(min_size=1, max_size=600), side=st.sampled_from(["left", "right"])
)
@pytest.mark.parametrize("kind", ["pair", "join", "chat"])
def test_truncated_input_fits_and_counts_add_up(kind: str, prompt: str, completion: str, side: str, request):
    renderer: Renderer = request.getfixturevalue(kind)
    result = renderer.render_pairs([(prompt, completion)], side)[0]
    if isinstance(result, RenderingError):
        return
    assert 0 < len(result.token_ids) <= renderer.manifest.max_tokens
    assert result.truncated_tokens >= 0
    assert len(result.segment_ids) in (0, len(result.token_ids))


def test_errors_stay_in_their_place(pair: Renderer):
    results = pair.render_pairs([("park", "girl"), ("park", ""), ("park", "   "), ("park", "\ud800"), ("park", "sun")])
    assert [isinstance(result, RenderingError) for result in results] == [False, True, True, True, False]
    assert results[0] == render_pair(pair, "park", "girl")


def test_conversation_without_chat_template(pair: Renderer):
    user, assistant = {"role": "user", "content": "park"}, {"role": "assistant", "content": "girl"}
    assert render_pair(pair, [user], [assistant]) == render_pair(pair, "park", "girl")
    with pytest.raises(RenderingError, match="no chat template"):
        render_pair(pair, [user, assistant, user], "girl")
    with pytest.raises(RenderingError, match="no chat template"):
        render_pair(pair, [{"role": "system", "content": "park"}], "girl")


@pytest.mark.parametrize("kind", ["pair", "join", "chat"])
def test_a_conversation_that_says_nothing_is_no_text(kind: str, request: pytest.FixtureRequest):
    renderer: Renderer = request.getfixturevalue(kind)
    silent = {"role": "assistant", "content": ""}
    with pytest.raises(RenderingError, match="a conversation without messages"):
        render_pair(renderer, [], "girl")
    with pytest.raises(RenderingError, match="a conversation without messages"):
        renderer.render_prompt([])
    for completion in ("", [], [silent]):
        with pytest.raises(RenderingError, match="the completion is empty"):
            render_pair(renderer, "park", completion)
    empty = [{"role": "user", "content": ""}]
    assert render_pair(renderer, empty, "girl") == render_pair(renderer, "", "girl")


def test_template_that_refuses_is_an_error_of_the_item(tmp_path: Path):
    strict = make_llama(
        tmp_path,
        chat_template="{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role here') }}"
        "{% endif %}{{ m.content }}{% endfor %}",
    )
    with pytest.raises(RenderingError, match="no system role here"):
        render_pair(renderer_of(strict), [{"role": "system", "content": "x"}], "y")


def test_templates_cannot_reach_python(tmp_path: Path):
    evil = make_llama(tmp_path, chat_template="{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(RenderingError):
        render_pair(renderer_of(evil), "a", "b")


def test_token_ids_are_taken_as_they_are(pair: Renderer, join: Renderer):
    whole = render_pair(join, "the dog", " sat")
    assert join.take_ids(whole.token_ids[:3], whole.token_ids[3:]).token_ids == whole.token_ids
    whole = render_pair(pair, "the dog", "sat")
    boundary = whole.segment_ids.index(1)
    again = pair.take_ids(whole.token_ids[:boundary], whole.token_ids[boundary:])
    assert (again.token_ids, again.segment_ids) == (whole.token_ids, whole.segment_ids)
    for ids, message in [((), "empty"), ((pair.vocab_size,), "vocabulary"), ((5,) * 129, "never truncated")]:
        with pytest.raises(RenderingError, match=message):
            pair.take_ids((), ids)


def test_demonstration_continues_the_prompt_and_ends_once(chat: Renderer, llama: Path):
    plain = renderer_of(llama, template_kind="join", add_bos=True)
    for renderer, space in ((chat, ""), (plain, " ")):
        for prompt, completion in texts(30):
            ids, mask = renderer.render_demonstration(prompt, space + completion)
            opening = renderer.render_prompt(prompt)
            assert ids[: len(opening)] == opening
            assert mask == [0] * len(opening) + [1] * (len(ids) - len(opening))
            assert ids[-1] == renderer.eos_id
            assert renderer.eos_id not in ids[len(opening) : -1]
            assert renderer.decode(ids[len(opening) :]).strip() == completion


def test_shared_renderer_is_safe_in_threads(pair: Renderer):
    from concurrent.futures import ThreadPoolExecutor

    batches = [texts(60, seed=seed) for seed in range(8)]
    alone = [[render_pair(pair, *item).token_ids for item in batch] for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda batch: [item.token_ids for item in pair.render_pairs(batch)], batches))
    assert together == alone


def test_folder_whose_parts_do_not_fit_is_refused(bert: Path, llama: Path, tmp_path: Path):
    with pytest.raises(FolderError, match="chat template"):
        renderer_of(bert, template_kind="chat")
    mixed = Path(shutil.copytree(bert, tmp_path / "mixed"))
    shutil.copy(llama / "tokenizer.json", mixed / "tokenizer.json")
    with pytest.raises(FolderError, match="do not belong together"):
        renderer_of(mixed)
    (mixed / "tokenizer.json").write_text("{}")
    with pytest.raises(FolderError, match="not a tokenizer"):
        renderer_of(mixed)
    (mixed / "tokenizer.json").unlink()
    with pytest.raises(FolderError, match=r"no tokenizer\.json"):
        renderer_of(mixed)


def test_add_eos_needs_an_eos_token(llama: Path, tmp_path: Path):
    folder = Path(shutil.copytree(llama, tmp_path / "model"))
    change_json(folder / "tokenizer_config.json", eos_token=None)
    change_json(folder / "config.json", eos_token_id=None)
    with pytest.raises(FolderError, match="no eos_token"):
        renderer_of(folder, template_kind="join", add_eos=True)


def test_rendering_needs_neither_torch_nor_transformers(bert: Path):
    program = (
        "import sys\nfrom palate.models.manifest import load_manifest, digest_folder\n"
        "from palate.models.rendering import Renderer\nm = load_manifest(sys.argv[1]).manifest\n"
        "Renderer.from_folder(sys.argv[1], m).render_pairs([('a', 'b')]); digest_folder(sys.argv[1], m)\n"
        "assert not {'torch', 'transformers', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(bert)], check=True, timeout=60, env=dict(os.environ))
