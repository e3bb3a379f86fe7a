"""Chat templates, rendered as transformers renders them, without transformers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2.ext import Extension

from palate.models.template_limits import LimitedEnvironment, TooMuch, limited, limited_filter

_MAX_REASON_CHARS = 200
"""A template may quote what it refuses; errors hold no long texts."""


class TemplateError(Exception):
    """The chat template refused the messages, or is itself broken."""


class ChatTemplate:
    """A compiled chat template; rendering changes nothing, so threads can share it."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        self.source = source
        self._special_tokens = dict(special_tokens)
        try:
            self._template = _environment().from_string(source)
        except TooMuch as error:
            raise TemplateError(f"the chat template does not compile: {error}") from error
        except Exception as error:  # besides jinja's own: Python's compiler, of a template that nests too deeply
            reason = f"{type(error).__name__}: {error}"[:_MAX_REASON_CHARS]
            raise TemplateError(f"the chat template does not compile ({reason})") from error

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = False) -> str:
        """The text that the model reads for `messages`.

        Raises:
            TemplateError: The template refuses the messages, e.g. because roles do not alternate.
        """
        try:
            with limited(self.source):
                return self._template.render(
                    messages=[dict(message) for message in messages],
                    add_generation_prompt=add_generation_prompt,
                    tools=None,
                    documents=None,
                    **self._special_tokens,
                )
        except TooMuch as error:
            raise TemplateError(f"the chat template uses up too much on these messages: {error}") from error
        except jinja2.TemplateError as error:
            reason = self._own_words(error.message or "") or type(error).__name__
            raise TemplateError(f"the chat template refuses these messages: {reason}") from error
        except Exception as error:  # a template is a program; whatever it raises is about this input
            raise TemplateError(f"the chat template fails on these messages ({type(error).__name__})") from error

    def _own_words(self, message: str) -> str:
        """What of an error the template itself says: it may quote the messages it refuses, and errors hold no texts."""
        if message[:_MAX_REASON_CHARS] in self.source or _of_a_name(message, self.source):
            return message[:_MAX_REASON_CHARS]
        known = next((end for end in range(_MAX_REASON_CHARS, 0, -1) if message[:end] in self.source), 0)
        return f"{message[:known].rstrip()}..." if known else ""


_OF_A_NAME = re.compile(r"(?:'[^']* object' has no attribute )?'([^']+)'(?: is undefined)?")
"""How jinja complains of what is not there."""


def _of_a_name(message: str, source: str) -> bool:
    """Whether jinja complains of a name that stands in the template, e.g. 'dict object' has no attribute 'tools'."""
    found = _OF_A_NAME.fullmatch(message)
    return found is not None and found[1] in source


class _GenerationBlock(Extension):
    """Lets `{% generation %}` pass; it only marks what the assistant wrote."""

    tags = {"generation"}  # noqa: RUF012 - jinja declares it so

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        """Keeps the block's body and forgets its marks."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


def _environment() -> LimitedEnvironment:
    environment = LimitedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = limited_filter("tojson", _to_json)
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _now
    return environment


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without jinja's HTML escapes."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
