"""Prompt and completion as one text: the model's chat template, or the texts as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from palate.models.folder import FolderError, ModelFolder
from palate.models.frames import RenderingError
from palate.models.manifest import Manifest
from palate.models.templates import ChatTemplate, TemplateError

Message = Mapping[str, str]
"""{"role": ..., "content": ...}"""

Content = str | Sequence[Message]
"""A text, or the messages of a conversation, oldest first."""

_SPECIAL_ROLES = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")


class Composer:
    """Puts prompt and completion together for one model."""

    def __init__(self, folder: ModelFolder, manifest: Manifest) -> None:
        self._template = _load_template(folder) if manifest.template_kind == "chat" else None

    def prompt_text(self, prompt: Content) -> str:
        """What a policy continues; the start of `whole_text` for well-made templates."""
        if self._template is None:
            return plain(prompt, "user")
        return _render(self._template, _messages(prompt, "user"), add_generation_prompt=True)

    def whole_text(self, prompt: Content, completion: Content) -> str:
        """The prompt with its completion."""
        if self._template is None:
            return plain(prompt, "user") + plain(completion, "assistant")
        messages = [*_messages(prompt, "user"), *_messages(completion, "assistant")]
        return _render(self._template, messages, add_generation_prompt=False)


def plain(content: Content, role: str) -> str:
    """The text of `content` for models without a chat template, where one message of `role` means its text."""
    if isinstance(content, str):
        return _valid(content)
    messages = _messages(content, role)
    if len(messages) > 1 or messages[0]["role"] != role:
        raise RenderingError(
            f"this model has no chat template: instead of a conversation send text, or a single {role} message"
        )
    return messages[0]["content"]


def says_something(content: Content) -> bool:
    """Whether there is any text; a template's marks around none are not."""
    return bool(content) if isinstance(content, str) else any(message.get("content") for message in content)


def _messages(content: Content, role: str) -> list[dict[str, str]]:
    if isinstance(content, str):
        return [{"role": role, "content": _valid(content)}]
    if not content:
        raise RenderingError('a conversation without messages; where there is nothing to say send an empty text ("")')
    messages = [{"role": _valid(m.get("role", "")), "content": _valid(m.get("content", ""))} for m in content]
    if any(not message["role"] for message in messages):
        raise RenderingError("a message without a role; give every message a role and a content")
    return messages


def _valid(text: str) -> str:
    if not isinstance(text, str):
        raise RenderingError(f"a text is a {type(text).__name__}, not a string")
    if "\0" in text:
        raise RenderingError("a text holds a NUL character, which no text has; is it binary data?")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RenderingError(
            "a text holds a lone surrogate and is not valid Unicode; clean it before sending"
        ) from error
    return text


def _render(template: ChatTemplate, messages: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
    try:
        return template.render(messages, add_generation_prompt=add_generation_prompt)
    except TemplateError as error:
        raise RenderingError(str(error)) from error


def _load_template(folder: ModelFolder) -> ChatTemplate:
    if folder.chat_template is None:
        raise FolderError(
            f'{folder.path} has template_kind "chat" but no chat template (chat_template.jinja, or chat_template in '
            "tokenizer_config.json)"
        )
    specials = {role: token for role in _SPECIAL_ROLES if (token := folder.special_token(role)) is not None}
    try:
        return ChatTemplate(folder.chat_template, specials)
    except TemplateError as error:
        raise FolderError(f"{folder.path}: {error}") from error
