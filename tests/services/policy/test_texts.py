import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from palate.models.manifest import load_manifest
from palate.models.rendering import Renderer
from services.policy.texts import completion_text, stop_rule
from tests.tiny_models import make_tiny_policy


@pytest.fixture(scope="module")
def renderer(tmp_path_factory):
    folder = make_tiny_policy(tmp_path_factory.mktemp("plain"), seed=0)
    return Renderer.from_folder(folder, load_manifest(folder).manifest)


@pytest.fixture(scope="module")
def metaspace_renderer(tmp_path_factory):
    """A tokenizer like Llama's, which drops the space before the first word it decodes."""
    folder = make_tiny_policy(tmp_path_factory.mktemp("metaspace"), seed=0)
    words = ["<unk>", "<s>", "</s>", "<pad>", "▁once", "▁upon", "▁a", "▁time"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Prepend("▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(words[:4])
    tokenizer.save(str(folder / "tokenizer.json"))
    return Renderer.from_folder(folder, load_manifest(folder).manifest)


def test_prompt_and_text_are_the_text_of_both(metaspace_renderer):
    prompt = metaspace_renderer.render_prompt("once upon")
    assert metaspace_renderer.decode([6, 7]) == "a time"  # the space is lost
    assert completion_text(metaspace_renderer, prompt, [6, 7]) == " a time"


def test_special_tokens_are_no_text(renderer):
    prompt = renderer.render_prompt("Hello")
    ids = renderer.render_prompt(" you")[1:]
    assert completion_text(renderer, prompt, [*ids, renderer.eos_id]) == " you"
    assert completion_text(renderer, prompt, [renderer.eos_id]) == ""


def test_a_prompt_that_ends_inside_a_character(renderer):
    ids = renderer.render_prompt("é")[1:]
    assert len(ids) == 2
    assert completion_text(renderer, [renderer.bos_id, ids[0]], [ids[1]]) == renderer.decode([ids[1]])


def test_no_stop_texts_no_rule(renderer):
    assert stop_rule(renderer, [[1]], ()) is None


def test_stops_where_a_stop_text_is_complete_even_across_tokens(renderer):
    prompt = renderer.render_prompt("Say it:")
    ids = renderer.render_prompt(" no. THE END, really")[1:]
    ends = stop_rule(renderer, [prompt], ("THE END", "absent"))
    first = next(count for count in range(1, len(ids) + 1) if ends(0, ids[:count]))
    assert completion_text(renderer, prompt, ids[:first]).endswith("THE END")
