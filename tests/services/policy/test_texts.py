import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from palate.models.manifest import load_manifest
from palate.models.rendering import Renderer
from services.policy.texts import GrowingText, completion_text, stop_rule
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
    assert stop_rule(renderer, [1], ()) is None


def test_stops_where_a_stop_text_is_complete_even_across_tokens(renderer):
    prompt = renderer.render_prompt("Say it:")
    ids = renderer.render_prompt(" no. THE END, really")[1:]
    ends = stop_rule(renderer, prompt, ("THE END", "absent"))
    first = next(count for count in range(1, len(ids) + 1) if ends(ids[:count]))
    assert completion_text(renderer, prompt, ids[:first]).endswith("THE END")


@pytest.fixture(scope="module")
def fallback_renderer(tmp_path_factory):
    """A tokenizer that writes unknown characters as byte tokens and reads a run of them as a whole."""
    folder = make_tiny_policy(tmp_path_factory.mktemp("fallback"), seed=0)
    words = ["<unk>", "<s>", "</s>", "<pad>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁once", "▁upon", "a", "▁"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(words[:4])
    tokenizer.save(str(folder / "tokenizer.json"))
    return Renderer.from_folder(folder, load_manifest(folder).manifest)


def grown(renderer, prompt, ids, sizes):
    """The parts that a completion's text comes in, for pieces of these sizes."""
    text, parts, begin = GrowingText(renderer, prompt), [], 0
    for size in sizes:
        end = min(begin + size, len(ids))
        parts.append(text.add(ids[begin:end], last=end == len(ids)))
        if end == len(ids):
            return parts
        begin = end
    raise AssertionError("the pieces do not cover the ids")


def test_a_special_token_does_not_end_a_run_of_bytes(fallback_renderer):
    ids = [4, 0, 132]  # a byte, <unk>, a byte
    assert grown(fallback_renderer, [0], ids, [1, 1, 1]) == ["", "", completion_text(fallback_renderer, [0], ids)]


BYTES_OF_CHARACTERS = [byte for character in ("é", "€", "😀", "A", "\ufffd") for byte in character.encode()]


@pytest.mark.parametrize("kind", ["renderer", "metaspace_renderer", "fallback_renderer"])
@settings(max_examples=150)
@given(data=st.data())
def test_the_parts_of_a_text_are_the_text(request, kind, data):
    renderer = request.getfixturevalue(kind)
    any_id = st.integers(0, renderer.vocab_size - 1)
    # Ids of single bytes are the interesting ones: any of them may be the middle of a character.
    single = {"renderer": byte_level_id, "fallback_renderer": lambda _, byte: 4 + byte}.get(kind)
    if single is not None:
        any_id = st.one_of(any_id, st.sampled_from([single(renderer, byte) for byte in BYTES_OF_CHARACTERS]))
    prompt = data.draw(st.lists(any_id, min_size=1, max_size=12))
    ids = data.draw(st.lists(any_id, min_size=1, max_size=30))
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=30, max_size=30))
    parts = grown(renderer, prompt, ids, sizes)
    assert "".join(parts) == completion_text(renderer, prompt, ids)
    for part in parts:
        part.encode()  # no lone surrogates


def byte_level_id(renderer, byte):
    stands_for = dict(zip(bytes_of_byte_level(), sorted(pre_tokenizers.ByteLevel.alphabet()), strict=True))
    (found,) = [token for token in range(renderer.vocab_size) if renderer.tokens([token]) == [stands_for[byte]]]
    return found


def bytes_of_byte_level():
    """The bytes that the signs of the byte-level alphabet, sorted, stand for: printable ones are themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [*printable, *(byte for byte in range(256) if byte not in printable)]


def test_a_character_waits_for_its_last_byte(renderer):
    ids = renderer.render_prompt("é€😀!")[1:]
    assert len(ids) == 2 + 3 + 4 + 1
    parts = grown(renderer, [renderer.bos_id], ids, [1] * 10)
    assert parts == ["", "é", "", "", "€", "", "", "", "😀", "!"]


def test_what_never_becomes_a_character_comes_with_the_last_token(renderer):
    ids = renderer.render_prompt("aé")[1:-1]
    assert grown(renderer, [renderer.bos_id], ids, [1, 1]) == ["a", "\N{REPLACEMENT CHARACTER}"]


def test_a_long_text_is_not_decoded_from_the_beginning_with_every_token(renderer, monkeypatch):
    ids = renderer.render_prompt("Once upon a time there was. " * 40)[1:]
    decoded = []
    decode = Renderer.decode
    monkeypatch.setattr(Renderer, "decode", lambda self, ids: decoded.append(len(ids)) or decode(self, ids))
    text = GrowingText(renderer, [renderer.bos_id])
    for place, token in enumerate(ids):
        text.add([token], last=place == len(ids) - 1)
    assert max(decoded) <= 4
