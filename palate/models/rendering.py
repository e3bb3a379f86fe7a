"""Turns a prompt and a completion into the token ids that a model reads; the same in the services and the trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from palate.models.conversation import Composer, Content, Message, plain, says_something
from palate.models.folder import FolderError, ModelFolder
from palate.models.frames import Frame, Piece, RenderingError, TooLong, cut, pair_frame, single_frame
from palate.models.manifest import Manifest, Truncation, template_digest, tokenizer_digest

__all__ = ["Content", "Message", "Rendered", "Renderer", "RenderingError", "TooLong"]


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a model reads.

    Attributes:
        text: The text before tokenising, special tokens of the frame included.
        token_ids: (T,) what is read, after truncation.
        untruncated_count: How many tokens there would be without truncation.
        segment_ids: (T,) segment of every token for models that tell two segments apart; else empty.
    """

    text: str
    token_ids: tuple[int, ...]
    untruncated_count: int
    segment_ids: tuple[int, ...] = ()

    @property
    def truncated_tokens(self) -> int:
        """Tokens cut away."""
        return self.untruncated_count - len(self.token_ids)


@dataclass(frozen=True, slots=True)
class _Draft:
    """What is to be tokenised: two texts that stay apart (`is_pair`), or one text in `second`."""

    prompt: Content
    first: str
    second: str
    is_pair: bool


class Renderer:
    """Renders for one model. Holds no state that a call changes, so threads can share it."""

    def __init__(self, folder: ModelFolder, manifest: Manifest) -> None:
        self.manifest = manifest
        self.tokenizer_digest = tokenizer_digest(folder)
        self.template_digest = template_digest(folder, manifest)
        self._tokenizer = _load_tokenizer(folder)
        self._composer = Composer(folder, manifest)
        self.bos_id = _special_id(folder, self._tokenizer, "bos_token")
        self.eos_id = _special_id(folder, self._tokenizer, "eos_token")
        self.pad_id = _special_id(folder, self._tokenizer, "pad_token")
        self.vocab_size = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        self._has_segments = folder.has_segments
        self._frame = self._single_frame()
        self._pair_frame = pair_frame(self._tokenizer) if manifest.template_kind == "pair" else Frame()
        self._check(folder)

    @classmethod
    def from_folder(cls, path: Path | str, manifest: Manifest) -> Renderer:
        """Reads tokenizer and chat template.

        Raises:
            FolderError: A file is missing or broken, or lacks a token that the manifest asks for.
        """
        return cls(ModelFolder(path), manifest)

    def render_pairs(
        self, pairs: Sequence[tuple[Content, Content]], truncation: Truncation | None = None
    ) -> list[Rendered | RenderingError]:
        """What a reward model reads for each completion as an answer to its prompt.

        In the place of an input that cannot be rendered stands why: nothing to judge, messages that the model's
        template does not take, or too long.

        Args:
            pairs: (prompt, completion); equal texts are tokenised once.
            truncation: What to do with inputs that are too long; None = the manifest's rule.
        """
        drafts = [self._draft(prompt, completion) for prompt, completion in pairs]
        texts = list(
            {text: None for draft in drafts if isinstance(draft, _Draft) for text in (draft.first, draft.second)}
        )
        ids = dict(zip(texts, self._encode(texts), strict=True))
        rule = truncation or self.manifest.truncation
        return [draft if isinstance(draft, RenderingError) else self._finish(draft, ids, rule) for draft in drafts]

    def render_prompt(self, prompt: Content) -> list[int]:
        """What a policy reads before its completion begins: chat template with generation prompt, or BOS + text."""
        return self.render_prompts([prompt])[0]

    def render_prompts(self, prompts: Sequence[Content]) -> list[list[int]]:
        """`render_prompt` for many.

        Raises:
            RenderingError: A prompt that the template does not take, or one without any token.
        """
        bodies = self._encode([self._composer.prompt_text(prompt) for prompt in prompts])
        rendered = [self._begun(body) for body in bodies]
        if not all(rendered):
            raise RenderingError("a prompt has no tokens; send some text")
        return rendered

    def render_demonstration(self, prompt: Content, completion: Content) -> tuple[list[int], list[int]]:
        """A prompt with the completion that a policy should learn to write.

        The ids begin with exactly `render_prompt(prompt)` and end with one end-of-sequence token.

        Returns:
            (T,) ids, and (T,) a mask that is 1 at the completion's tokens, the last one included.
        """
        opening, eos = self.render_prompt(prompt), _required(self.eos_id, "eos_token")
        rest = self._continuation(prompt, completion, opening)
        written = rest[: rest.index(eos)] if eos in rest else rest
        answer = [*written, eos]
        return opening + answer, [0] * len(opening) + [1] * len(answer)

    def take_ids(self, prompt_ids: Sequence[int], completion_ids: Sequence[int]) -> Rendered:
        """Token ids as they are, special tokens included: nothing is added and nothing cut.

        Raises:
            RenderingError: No completion, ids outside of the vocabulary, or longer than the model's maximum.
        """
        ids, limit = (*prompt_ids, *completion_ids), self.manifest.max_tokens
        if not completion_ids:
            raise RenderingError("the completion is empty; there is nothing to score")
        if not all(0 <= token < self.vocab_size for token in ids):
            raise RenderingError(f"a token id is outside of the vocabulary of {self.vocab_size}")
        if len(ids) > limit:
            raise TooLong(f"{len(ids)} token ids; the model reads {limit}, and ids are never truncated", len(ids))
        segments = (0,) * len(prompt_ids) + (1 if prompt_ids else 0,) * len(completion_ids)
        return Rendered("", ids, len(ids), segments if self._has_segments else ())

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of the ids without special tokens."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def tokens(self, token_ids: Sequence[int]) -> list[str]:
        """The vocabulary's piece for every id."""
        return [self._tokenizer.id_to_token(token) or "" for token in token_ids]

    def _draft(self, prompt: Content, completion: Content) -> _Draft | RenderingError:
        try:
            if not says_something(completion):
                raise RenderingError("the completion is empty; there is nothing to score")
            if self.manifest.template_kind == "pair" and (first := plain(prompt, "user")):
                return _Draft(prompt, first, plain(completion, "assistant"), True)
            return _Draft(prompt, "", self._composer.whole_text(prompt, completion), False)
        except RenderingError as error:
            return error

    def _finish(self, draft: _Draft, ids: Mapping[str, list[int]], rule: Truncation) -> Rendered | RenderingError:
        first, second = ids[draft.first], ids[draft.second]
        frame = self._pair_frame if draft.is_pair else self._frame_of(second)
        if not draft.is_pair:
            second = frame.bare(second)
        if not second:
            return RenderingError("the completion has no tokens; there is nothing to score")
        count = frame.size + len(first) + len(second)
        excess = count - self.manifest.max_tokens
        if excess > 0:
            if rule == "reject" or (rule == "right" and excess >= self._completion_size(draft, second)):
                return self._too_long(count, rule)
            first, second = cut(first, second, excess, rule)
        segments = frame.segment_ids(len(first), len(second)) if self._has_segments else ()
        return Rendered(self._framed_text(frame, draft), frame.around(first, second), count, segments)

    def _completion_size(self, draft: _Draft, second: list[int]) -> int:
        """How many of `second`'s tokens come after the prompt; needed only where truncation may take them all."""
        if draft.is_pair or not draft.prompt:
            return len(second)
        opening = self._encode([self._composer.prompt_text(draft.prompt)])[0]
        return len(second) - len(self._frame_of(opening).bare(opening))

    def _too_long(self, count: int, rule: Truncation) -> TooLong:
        limit = f"{count} tokens; the model reads {self.manifest.max_tokens}"
        if rule == "reject":
            return TooLong(f"{limit}, and truncation is REJECT: shorten the item, or ask for LEFT or RIGHT", count)
        return TooLong(f"{limit}, and truncation from the right would leave nothing of the completion: use LEFT", count)

    def _continuation(self, prompt: Content, completion: Content, opening: list[int]) -> list[int]:
        """Ids after `opening`: cut from the whole text's where those begin with it, else the remaining text's own."""
        prompt_text, whole_text = self._composer.prompt_text(prompt), self._composer.whole_text(prompt, completion)
        if not whole_text.startswith(prompt_text):
            raise RenderingError("the chat template does not continue its own generation prompt; adjust the template")
        whole, rest = self._encode([whole_text, whole_text[len(prompt_text) :]])
        ids = self._begun(whole)
        return ids[len(opening) :] if ids[: len(opening)] == opening else rest

    def _begun(self, body: list[int]) -> list[int]:
        """`body` with exactly one BOS before it where the model wants one, and nothing after it."""
        begin = Frame(before=self._frame_of(body).before)
        return list(begin.around(begin.bare(body)))

    def _frame_of(self, body: Sequence[int]) -> Frame:
        """The frame of one text; a BOS that a template wrote itself belongs to it, so that truncation spares it."""
        begins = self.manifest.architecture == "decoder" and body and body[0] == self.bos_id
        return Frame(before=Piece((body[0],)), after=self._frame.after) if begins else self._frame

    def _single_frame(self) -> Frame:
        if self.manifest.architecture == "encoder":
            return single_frame(self._tokenizer)
        before = (_required(self.bos_id, "bos_token"),) if self.manifest.add_bos else ()
        after = (_required(self.eos_id, "eos_token"),) if self.manifest.add_eos else ()
        return Frame(before=Piece(before), after=Piece(after))

    def _framed_text(self, frame: Frame, draft: _Draft) -> str:
        before, between, after = ("".join(self.tokens(p.ids)) for p in (frame.before, frame.between, frame.after))
        before = "" if not draft.is_pair and before and draft.second.startswith(before) else before
        return f"{before}{draft.first}{between}{draft.second}{after}"

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def _check(self, folder: ModelFolder) -> None:
        if self.manifest.max_tokens <= max(self._frame.size, self._pair_frame.size):
            raise FolderError(f"{folder.path}: max_tokens {self.manifest.max_tokens} leaves no room for text")
        embeddings = folder.text_config.get("vocab_size")
        if isinstance(embeddings, int) and self.vocab_size > embeddings:
            raise FolderError(
                f"{folder.path}: the tokenizer has ids up to {self.vocab_size - 1}, the model embeds {embeddings}; "
                "they do not belong together"
            )


def _load_tokenizer(folder: ModelFolder) -> Tokenizer:
    _ = folder.tokenizer  # says what is missing or broken
    try:
        tokenizer = Tokenizer.from_file(str(folder.path / "tokenizer.json"))
    except Exception as error:  # the library raises bare Exception
        raise FolderError(f"{folder.path / 'tokenizer.json'} is not a tokenizer this version reads: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _special_id(folder: ModelFolder, tokenizer: Tokenizer, role: str) -> int | None:
    if (token := folder.special_token(role)) is not None:
        value = tokenizer.token_to_id(token)
    else:
        value = folder.text_config.get(f"{role}_id")
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _required(token_id: int | None, role: str) -> int:
    if token_id is None:
        raise FolderError(f"the tokenizer names no {role}, which this model needs; add it to tokenizer_config.json")
    return token_id
