"""What a chat template may use up: a model folder brings a program, and a program can loop and grow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, NoReturn, cast

from jinja2 import nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from palate.models.template_sizes import CALLS, GROWTH, MAX_CHARS, SIZED, size_of

MAX_SOURCE_CHARS = 1 << 17
_MAX_STEPS = 4_000_000
"""Of one rendering; one takes from a tenth to one microsecond."""

_SOURCE_CHARS_A_STEP = 64
"""A round of a loop and a call cost a step for so many characters of the source: each may write all of it again."""

_CHARS_A_STEP, _CHARS_A_STEP_CALLED = 256, 32
"""Characters that are made, compared or copied in a step, and those that a filter, a test or a method looks at."""

_MAX_NUMBER = 1_000_000
"""Largest number that is a width or a count."""


class TooMuch(Exception):
    """A template uses up more than it may."""


class _Budget:
    """Steps that are left of one rendering."""

    def __init__(self, source: str) -> None:
        self.left = _MAX_STEPS
        self.a_round = 1 + len(source) // _SOURCE_CHARS_A_STEP

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise TooMuch(f"it takes more than {_MAX_STEPS} steps")


_BUDGET: ContextVar[_Budget] = ContextVar("budget")


@contextmanager
def limited(source: str) -> Iterator[None]:
    """Lets templates render within; each rendering has a budget of its own."""
    token = _BUDGET.set(_Budget(source))
    try:
        yield
    finally:
        _BUDGET.reset(token)


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox in which everything that loops, calls or grows is paid for, and refused before it is too large.

    Nothing is computed while compiling: outside of `limited` there is no budget, and jinja leaves it for later.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(finalize=_paid, **options)
        del self.globals["lipsum"]
        self.filters = {name: limited_filter(name, function) for name, function in self.filters.items()}
        self.filters |= {"_rounds": _rounds, "_built": _paid, "_read": _read, "_concatenated": _concatenated}
        self.tests = {name: limited_filter(name, cast(Any, function)) for name, function in self.tests.items()}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > MAX_SOURCE_CHARS:
            raise TooMuch(f"its source has more than {MAX_SOURCE_CHARS} characters")
        return cast(nodes.Template, _Payments().visit(super()._parse(source, name, filename)))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Computes what stays within the limits."""
        _check(GROWTH[operator](left, right))
        return _paid(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - as jinja has it
        """Calls what stays within the limits."""
        _BUDGET.get().spend(_BUDGET.get().a_round)
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str | bytes | int):
            _check_numbers(__obj.__name__, (*args, *kwargs.values()))
            args = _check_call(f"str.{__obj.__name__}", (owner, *args), kwargs)[1:]
        else:
            _check_call("", args, kwargs)
        return _paid(super().call(__context, __obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """The sandbox's own `format`, within the limits."""
        within = super().wrap_str_format(value)
        return None if within is None else _formatting(within, value.__self__)


class _Payments(NodeTransformer):
    """Puts payments into a syntax tree: for the rounds of loops, for collections as they are written, and for `~`."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        """Pays for what the loop goes through."""
        self.generic_visit(node)
        node.iter = _call("_rounds", cast(nodes.Expr, node.iter))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        """Joins within the limits."""
        self.generic_visit(node)
        return _call("_concatenated", nodes.List(node.nodes, lineno=node.lineno))

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        """Pays for a collection; one that only is unpacked into names is none."""
        self.generic_visit(node)
        return _call("_built", node)

    visit_Dict = visit_List  # noqa: N815

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        """Pays for a slice as what it is, a copy."""
        self.generic_visit(node)
        return _call("_built", node) if isinstance(node.arg, nodes.Slice) else node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        """Pays for what is compared."""
        self.generic_visit(node)
        node.expr = _call("_read", node.expr)
        for operand in node.ops:
            operand.expr = _call("_read", operand.expr)
        return node


def _call(name: str, value: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(value, name, [], [], None, None, lineno=value.lineno)


def _rounds(value: Any) -> Any:
    """What a loop goes through; a collection pays at once, so that `loop.length` stays known."""
    budget = _BUDGET.get()
    if hasattr(value, "__len__"):
        budget.spend(len(value) * budget.a_round)
        return value
    return _counted(value, budget)


def _counted(values: Iterable[Any], budget: _Budget) -> Iterator[Any]:
    for value in values:
        budget.spend(budget.a_round)
        yield value


def _concatenated(values: list[Any]) -> str:
    _check(sum(map(size_of, values)))
    return str(_paid("".join(map(str, values))))


def _paid(value: Any) -> Any:
    """The value, once its size is paid for."""
    budget = _BUDGET.get()  # also for what has no size: nothing is computed while there is none
    if isinstance(value, SIZED):
        size = len(value) if isinstance(value, str) else size_of(value)
        budget.spend(size // _CHARS_A_STEP)
        if size > MAX_CHARS:
            _refuse()
    return value


def _check(size: int) -> None:
    if size > MAX_CHARS:
        _refuse()


def _refuse() -> NoReturn:
    raise TooMuch(f"it makes a text or a collection of more than {MAX_CHARS} characters")


def _read(value: Any, chars_a_step: int = _CHARS_A_STEP) -> Any:
    """The value, once looking at it is paid for."""
    if isinstance(value, SIZED):
        _BUDGET.get().spend(len(value) // chars_a_step)
    return value


def _check_call(name: str, values: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, ...]:
    """The arguments of a call whose result stays within the limits; a generator that is joined as a list."""
    for value in (*values, *named.values()):
        _read(value, _CHARS_A_STEP_CALLED)
    if name in _COUNTING:
        _check_numbers(name, (*values[1:], *named.values()))
    if (growth := CALLS.get(name)) is not None:
        if name in ("join", "str.join"):
            values = tuple(list(_rounds(each)) if isinstance(each, Iterator) else each for each in values)
        _check(growth(*values, **named))
    return values


def _check_numbers(name: str, values: Iterable[Any]) -> None:
    if any(isinstance(value, int) and not -_MAX_NUMBER <= value <= _MAX_NUMBER for value in values):
        raise TooMuch(f"a number that it calls {name} with is above {_MAX_NUMBER}")


_COUNTING = frozenset(
    {"batch", "center", "filesizeformat", "indent", "round", "slice", "tojson", "truncate", "wordwrap"}
)
"""Filters whose numbers are widths and counts."""


def limited_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or a test that stays within the limits."""
    first = int(hasattr(function, "jinja_pass_arg"))  # jinja's own argument comes before the value

    @wraps(function)
    def within(*args: Any, **named: Any) -> Any:
        return _paid(function(*args[:first], *_check_call(name, args[first:], named), **named))

    return within


def _formatting(within: Callable[..., str], text: str) -> Callable[..., str]:
    def formatted(*args: Any, **named: Any) -> str:
        _check_call("str.format", (text, *args), named)
        return within(*args, **named)

    return formatted
