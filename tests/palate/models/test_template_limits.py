"""A template is a program that came with a model: what it may not do, and what it may."""

import pytest

from palate.models.template_limits import MAX_SOURCE_CHARS
from palate.models.template_sizes import MAX_CHARS
from palate.models.templates import ChatTemplate, TemplateError

HELLO = [{"role": "user", "content": "hello"}]
SPECIALS = {"bos_token": "<s>", "eos_token": "</s>"}

STEPS, SIZE, NUMBER = "it takes more than", "it makes a text or a collection", "a number that it calls"

TOO_MUCH = [
    ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", STEPS),
    ("{% macro f() %}{% for i in range(99999) %}{{ f }}{% endfor %}{% endmacro %}{{ f() }}{{ f() }}" * 30, STEPS),
    ("{% for i in range(99999) %}" + "x" * 60_000 + "{% endfor %}", STEPS),
    ("{% set x = 'a' * 16000000 %}{% for i in range(99999) %}{% set y = x[1:] %}{% endfor %}", STEPS),
    ("{% set x = 'a' * 16000000 %}{% for i in range(99999) %}{% if 'b' in x %}{% endif %}{% endfor %}", STEPS),
    ("{% set x = 'a' * 16000000 %}{% for i in range(99999) %}{{ x | wordcount }}{% endfor %}", STEPS),
    ("{{ 'a' * 10 ** 9 }}", SIZE),
    ("{{ 10 ** 9 * 'a' }}", SIZE),
    ("{{ 9 ** (9 ** 9) }}", SIZE),
    ("{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}", SIZE),
    ("{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}", SIZE),
    ("{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}", SIZE),
    ("{% set n = namespace(x={}) %}{% for i in range(99) %}{% set n.x = {1: n.x, 2: n.x} %}{% endfor %}", SIZE),
    ("{{ '%999999999d' % 1 }}", SIZE),
    ("{{ '%*d' % (999999999, 1) }}", SIZE),
    ("{{ '%(n)999999999d' % {'n': 1} }}", SIZE),
    ("{{ '{:999999999}'.format(1) }}", SIZE),
    ("{{ ('{:{w}}' * 99).format(1, w=999999) }}", SIZE),
    ("{{ '%999999999d' | format(1) }}", SIZE),
    ("{{ ('a' * 9999) | replace('a', 'b' * 9999) }}", SIZE),
    ("{{ ('a' * 9999).replace('a', 'b' * 9999) }}", SIZE),
    ("{{ range(99999) | map('string') | join('x' * 9999) }}", SIZE),
    ("{{ ('x' * 9999).join(range(99999) | map('string')) }}", SIZE),
    ("{{ (['a' * 9999] * 9999) | join }}", SIZE),
    ("{{ ('a\n' * 9999) | indent(99999) }}", SIZE),
    ("{{ ('\t' * 9999).expandtabs(99999) }}", SIZE),
    ("{{ messages | tojson(indent=999999) }}", SIZE),
    ("{{ [[1] * 9999] * 9999 | sum(start=[]) }}", SIZE),
    ("{{ 'a'.ljust(10 ** 9) }}", NUMBER),
    ("{{ 'a' | center(10 ** 9) }}", NUMBER),
    ("{{ 'a'.encode().ljust(10 ** 9) }}", NUMBER),
    ("{{ (1).to_bytes(10 ** 9, 'big') }}", NUMBER),
]


@pytest.mark.parametrize(("source", "message"), TOO_MUCH, ids=[source[:40] for source, _ in TOO_MUCH])
def test_what_loops_or_grows_is_refused_before_it_costs_much(source, message):
    with pytest.raises(TemplateError, match=message):
        ChatTemplate(source, SPECIALS).render(HELLO)


@pytest.mark.parametrize(
    "source",
    ["{{" + "(" * 3000 + "1" + ")" * 3000 + "}}", "{% for i in x %}" * 200, "a" * (MAX_SOURCE_CHARS + 1), "{% if %}"],
)
def test_what_does_not_compile_is_an_error_of_the_folder(source):
    with pytest.raises(TemplateError, match="the chat template does not compile"):
        ChatTemplate(source, SPECIALS)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ messages.append(1) }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{{ lipsum(5) }}",
        "{{ '{0.__class__}'.format(1) }}{{ ''.x.y }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_what_leaves_the_sandbox_is_refused(source):
    with pytest.raises(TemplateError):
        ChatTemplate(source, SPECIALS).render(HELLO)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for m in messages %}{{ loop.index }}/{{ loop.length }} {{ m.content }}{% endfor %}", "1/1 hello"),
        ("{% for m in messages | selectattr('role', 'equalto', 'user') %}{{ m['content'] }}{% endfor %}", "hello"),
        ("{% for k, v in messages[0].items() %}{{ k ~ '=' ~ v }};{% endfor %}", "role=user;content=hello;"),
        ("{{ messages | length }}{{ messages[1:] | length }}{{ 'a' in 'abc' }}", "10True"),
        ("{% set n = namespace(x=1) %}{% for i in range(3) %}{% set n.x = n.x * 2 %}{% endfor %}{{ n.x }}", "8"),
        ("{{ '%s-%03d' % ('a', 7) }}{{ '{:>4}'.format('b') }}{{ ['a', 'b'] | join(', ') }}", "a-007   ba, b"),
        ("{{ '**%s** in 2024, %d%%' % ('a', 1500) }}{{ '2024: {}'.format(3) }}", "**a** in 2024, 1500%2024: 3"),
        (
            "{% macro f(n) %}{{ n | string }}{% endmacro %}{{ f(20241231) }}{{ 20241231 is gt(10000000) }}",
            "20241231True",
        ),
        ("{{ x | default(10000000) }}", "10000000"),
        ("{{ {'a': [1, 2]} | tojson(indent=2) }}", '{\n  "a": [\n    1,\n    2\n  ]\n}'),
        ("{{ bos_token + messages[0].content.split('l')[-1].upper() + eos_token }}", "<s>O</s>"),
        ("{% macro f(n) %}({{ n }}){% endmacro %}{{ f(1) }}{{ f(2) }}", "(1)(2)"),
        ("{% for a in [[1, [2]], [3]] recursive %}{{ a if a is number else loop(a) }}{% endfor %}", "123"),
    ],
)
def test_what_published_templates_do_is_as_ever(source, text):
    assert ChatTemplate(source, SPECIALS).render(HELLO) == text


def test_long_conversations_and_long_texts_stay_within():
    template = ChatTemplate("{% for m in messages %}[{{ m.role }}] {{ m.content | trim }}\n{% endfor %}", SPECIALS)
    many = [{"role": "user", "content": f" {number} "} for number in range(20_000)]
    assert template.render(many).count("\n") == 20_000
    long = [{"role": "user", "content": "a" * (MAX_CHARS // 4)}]
    assert len(template.render(long)) > MAX_CHARS // 4


def test_a_refusal_says_what_the_template_says_and_no_text_of_a_user():
    source = "{{ raise_exception('Roles must alternate, got ' + messages[0].content) }}"
    with pytest.raises(TemplateError, match=r"refuses these messages: Roles must alternate, got\.\.\.$"):
        ChatTemplate(source, SPECIALS).render(HELLO)
    with pytest.raises(TemplateError, match=r"refuses these messages: 'dict object' has no attribute 'tools'$"):
        ChatTemplate("{{ messages[0].tools.x }}", SPECIALS).render(HELLO)
    with pytest.raises(TemplateError, match=r"refuses these messages: UndefinedError$"):
        ChatTemplate("{{ messages[0][messages[0].content].x }}", SPECIALS).render(HELLO)
