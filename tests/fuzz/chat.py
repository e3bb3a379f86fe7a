"""Chat rendering: hostile messages in usual templates, and hostile templates in the sandbox."""

from __future__ import annotations

from hypothesis import strategies as st

from palate.models.rendering import Content, RenderingError
from palate.models.templates import ChatTemplate, TemplateError
from palate.v1 import common_pb2 as common
from services.runtime.errors import InvalidRequest
from services.runtime.interceptors import parse_message
from tests.fuzz import folders
from tests.fuzz.harness import Harness, framed, frames_of, spoilt
from tests.fuzz.messages import Values, messages
from tests.rendering import render_pair

_MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is <b>1 + 1</b>?\n"},
    {"role": "assistant", "content": "<think>two</think>2"},
]

_SPECIALS = {"bos_token": "<s>", "eos_token": "</s>"}


def _converse(data: bytes) -> object:
    """Renders prompt and completion, the first two frames, in every way there is."""
    prompt, completion, *_ = [*frames_of(data[1:]), b"", b""]
    renderer = folders.renderer(sorted(folders.TEMPLATES)[(data[0] if data else 0) % len(folders.TEMPLATES)])
    pair = _content(prompt), _content(completion)
    rendered = render_pair(renderer, *pair, truncation="left")
    assert 0 < len(rendered.token_ids) <= folders.MAX_TOKENS
    assert max(rendered.token_ids) < renderer.vocab_size
    ids, mask = renderer.render_demonstration(*pair)
    assert len(ids) == len(mask)
    return renderer.decode(ids)


def _content(data: bytes) -> Content:
    content = parse_message(common.Content.FromString, data)
    if content.WhichOneof("form") != "conversation":
        return str(content.text)
    return [{"role": message.role, "content": message.content} for message in content.conversation.messages]


def _template(data: bytes) -> object:
    template = ChatTemplate(data.decode("utf-8", "replace"), _SPECIALS)
    return [template.render(_MESSAGES[:count], add_generation_prompt=count == 2) for count in range(4)]


_VALUES: Values = {"palate.v1.ChatMessage.role": st.sampled_from(["user", "assistant", "system", "tool", "{{ 1 }}"])}

_PARTS = st.sampled_from(
    [
        "{% for m in messages %}", "{% for i in range(99999) %}", "{% endfor %}", "{% if m.role == 'user' %}",
        "{% endif %}", "{{ m.content }}", "{{ ''.__class__.__mro__ }}", "{{ 'a' * 10 ** 9 }}", "{{ 9 ** 9 ** 9 }}",
        "{{ messages.append(1) }}", "{% set x = x ~ x %}", "{{ x }}", "{{ '%999999999d' % 1 }}", "{{ 1 / 0 }}",
        "{% set ns = namespace(x='ab') %}", "{% set ns.x = ns.x + ns.x %}", "{{ 'a'.ljust(10 ** 9) }}",
        "{{ '{:999999999}'.format(1) }}", "{{ 'a' | center(10 ** 9) }}", "{{ lipsum(10 ** 6) }}", "{% block a %}",
        "{% endblock %}", "{{ self.a() }}", "{% macro f(n) %}", "{{ f(n) }}", "{% endmacro %}", "{{ f(1) }}",
        "{% include 'a' %}", "{{ cycler.__init__.__globals__ }}", "{{ strftime_now('%1000000d') }}",
        "{{ raise_exception('no') }}", "{{ messages | tojson(indent=10 ** 9) }}", "{% generation %}",
        "{% endgeneration %}", "{{ ([1] * 10 ** 8) | join }}", "{{ 'a' | replace('', 'b' * 10000) }}",
        "{% for i in messages recursive %}", "{{ loop(messages) }}", "{% break %}", "{{ 10 ** 4301 }}",
    ]
)  # fmt: skip


def harnesses() -> list[Harness]:
    """Messages that users send, and templates that a model folder brings."""
    template = st.lists(_PARTS | st.text(max_size=8), max_size=8).map("".join).map(str.encode)
    conversation = st.builds(
        bytes.__add__, st.binary(min_size=1, max_size=1), framed(messages(common.Content, _VALUES))
    )
    return [
        Harness("chat.messages", _converse, (RenderingError, InvalidRequest), spoilt(conversation)),
        Harness("chat.template", _template, (TemplateError,), spoilt(template), max_bytes=512),
    ]
