"""The jinja2 environment of the sandbox.

Anyone may have written a template, and a worker renders millions of rows with it. So a template can neither reach
Python's internals nor run or grow without bound. Three layers ensure this:

- `guard` walks a template's syntax tree before compilation and allows only listed constructs; it routes loops,
  comparisons, slices, `~` and method calls through functions that charge for them.
- `BoundedEnvironment`, in this module, checks the rest at render time: attributes, subscripts, calls and operators.
- `budget` holds the limits of one render; `values`, `operators` and `filters` are what it may use.

There is no loader, so no template reads another file, and no autoescape, as in PromptSource.
"""

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

from jinja2 import TemplateSyntaxError, meta, nodes
from jinja2.nodes import EvalContext
from jinja2.runtime import Context, LoopContext, Undefined
from jinja2.sandbox import SandboxedEnvironment
from jinja2.utils import Namespace, pass_context

from cappy_model.sandbox.budget import (
    LIST_SLOT,
    MAX_KEY,
    Draw,
    RenderContext,
    RenderError,
    check_key,
    stringify,
    to_text,
)
from cappy_model.sandbox.filters import FILTERS, TESTS, concatenate
from cappy_model.sandbox.guard import SENTINEL, SEPARATOR, Guard
from cappy_model.sandbox.operators import OPERATORS
from cappy_model.sandbox.values import Names, call_function, call_method, snapshot

# PromptSource replaces `|||` in data by this word, and the templates of multi_news split their documents at it.
_PROTECTED_PIPES = "3ed2dface8203c4c9dfb1a5dc58e41e0"
MAX_SOURCE = 32_000  # PromptSource's longest has 2,849; bounds the time to compile
NEVER = sys.maxsize
LEEWAY = 5  # jinja2's default: a value at most this much too long is not truncated

_LOOP_ATTRIBUTES = frozenset(
    ["depth", "depth0", "first", "index", "index0", "last", "length", "nextitem", "previtem", "revindex", "revindex0"]
)
_DRAWS = re.compile("choice|random")  # also as an argument of `map`


class _Kept(str):
    """Text captured by a `{% set %}` block. It is truncated where the variable is written, not in the block."""


@pass_context
def _finalize(context: RenderContext, value: Any) -> str:
    """Charge for a value that a template writes, and truncate it on the input side."""
    if type(value) is not str:
        if type(value) is _Kept:
            context.spend_characters(len(value))
            return value
        value = stringify(context, value)
    length = len(value)
    context.characters -= length
    if context.characters < 0:
        context.spend_characters(0)
    if length > context.cut:
        # As jinja2's filter `truncate`: whole words, and a leeway of five characters, which `cut` includes.
        words: str = value[: context.cut - LEEWAY - 3].rsplit(" ", 1)[0]
        return words + "..."
    return value


@pass_context
def _separate(context: RenderContext, sentinel: str, /) -> str:
    context.cut = NEVER  # the target follows
    context.characters += len(sentinel)  # free of charge
    return sentinel


@pass_context
def _watch(context: RenderContext, value: Any, /) -> str:
    """Look for the separator in a written value, for templates such as `{{ choices | join("|||") }}`."""
    text = to_text(context, value)
    if SENTINEL in text:
        context.cut = NEVER
    return text


@pass_context
def _keep(context: RenderContext, value: Any, /) -> str:
    return _Kept(to_text(context, value))


@pass_context
def _spend_text(context: RenderContext, count: int, /) -> str:
    context.spend_characters(count)
    return ""


@pass_context
def _slice(context: RenderContext, value: Any, start: Any, stop: Any, step: Any, /) -> Any:
    if isinstance(value, str | list | tuple):
        taken = len(range(len(value))[start:stop:step])
        context.spend_work(taken if isinstance(value, str) else taken * LIST_SLOT)
    return value[start:stop:step]


@pass_context
def _weigh(context: RenderContext, value: Any, /) -> Any:
    context.weigh(value)
    return value


@pass_context
def _key(context: RenderContext, value: Any, /) -> Any:
    check_key(value)
    return value


# No template can use these names, since they start with a space.
_INTERNAL: dict[str, Callable[..., Any]] = {
    " call": call_method,
    " concat": concatenate,
    " function": call_function,
    " keep": _keep,
    " key": _key,
    " loop": snapshot,
    " separator": _separate,
    " slice": _slice,
    " text": _spend_text,
    " watch": _watch,
    " weigh": _weigh,
}


class BoundedEnvironment(SandboxedEnvironment):
    """A jinja2 environment of listed filters, tests, functions and operators, each of which is charged for."""

    intercepted_binops = frozenset(OPERATORS)

    def __init__(self) -> None:
        # optimized=False: no constant folding, since there is no budget at compile time.
        super().__init__(autoescape=False, finalize=_finalize, optimized=False)
        self.filters = {**FILTERS, **_INTERNAL}
        self.tests = dict(TESTS)
        self.globals = {}

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Evaluate `left operator right` for the operators that can build large values."""
        return OPERATORS[operator](context, left, right)  # type: ignore[arg-type]

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a recursive loop. (Functions and methods go through `call_function` and `call_method`.)"""
        assert isinstance(context, RenderContext)
        kwargs.pop("_loop_vars", None)
        kwargs.pop("_block_vars", None)
        if type(function) is LoopContext:
            context.spend_iterations(1)  # a recursive loop over an empty list is a step, too
            return function(*args, **kwargs)
        if isinstance(function, Undefined):
            return function()  # raises UndefinedError, naming what is undefined
        raise RenderError("unsafe", f"templates may not call a {type(function).__name__}")

    def call_filter(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a filter by name, as `map("upper")` does."""
        if name in _INTERNAL:
            raise RenderError("unsafe", f"no filter named {name!r}")
        return super().call_filter(name, *args, **kwargs)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Evaluate `obj.attribute`: an item of a dict, a variable of a namespace, a field of a loop or a date."""
        kind = type(obj)
        if kind is dict:
            try:
                return obj[attribute]
            except KeyError:
                pass
        elif kind is Namespace or (kind is LoopContext and attribute in _LOOP_ATTRIBUTES) or isinstance(obj, Undefined):
            return super().getattr(obj, attribute)
        if attribute.startswith("_"):
            raise RenderError("unsafe", f"templates may not reach {kind.__name__}.{attribute}")
        if isinstance(obj, date | time | timedelta) and not callable(getattr(obj, attribute, None)):
            return super().getattr(obj, attribute)
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Evaluate `obj[argument]`: an item of data, or the attribute of a namespace or loop.

        A whole fraction indexes as its integer; any other raises RenderError.
        """
        kind = type(argument)
        if kind is not int and (kind is not str or len(argument) > MAX_KEY):
            check_key(argument)
            if isinstance(argument, float | Decimal) and isinstance(obj, list | tuple | str | range):
                argument = _whole(argument)
        try:
            return obj[argument]
        except (TypeError, LookupError):
            if isinstance(obj, LoopContext | Namespace) and kind is str:
                return self.getattr(obj, argument)
            if kind is str and argument.startswith("__"):
                raise RenderError("unsafe", f"templates may not reach {type(obj).__name__}[{argument!r}]") from None
        return self.undefined(obj=obj, name=argument)


def _whole(index: float | Decimal) -> int:
    """Return an index of a list that a file has as a fraction, as pandas writes labels of which some are missing."""
    if isinstance(index, float) and index.is_integer():
        return int(index)
    if isinstance(index, Decimal) and index.is_finite() and index == index.to_integral_value():
        return int(index)
    raise RenderError(
        "template_error",
        f"{index} is a fraction and cannot index a list or a text; write whole numbers into the column, "
        "or convert it in the template, as in choices[value | int]",
    )


ENVIRONMENT = BoundedEnvironment()
_EVAL_CONTEXT = EvalContext(ENVIRONMENT)


@dataclass(frozen=True)
class Program:
    """A compiled source. Threads can share it: all state of a render is in its context.

    Args:
      root: jinja2's render function.
      variables: names that the source reads and does not define.
      mutates: whether it calls a method that modifies a list or a dict in place.
      draws: whether it may pick at random.
    """

    root: Callable[[RenderContext], Iterator[str]]
    variables: frozenset[str]
    mutates: bool
    draws: bool

    def render(self, names: Names, draw: Draw, cut: int) -> str:
        """Render the source; return the text, with SENTINEL for the separator.

        Values longer than `cut` characters are truncated before the first SENTINEL. Raises RenderError, and the errors
        of expressions: jinja2's, TypeError, ValueError, LookupError, ArithmeticError, AttributeError, AssertionError,
        RuntimeError, MemoryError.
        """
        return "".join(self.root(RenderContext(ENVIRONMENT, names, _EVAL_CONTEXT, draw, cut)))


def compile_source(source: str) -> Program:
    """Compile a jinja source, in which `|||` is the separator.

    Raises jinja2.TemplateSyntaxError, with the line, for a syntax error or a construct that is not allowed;
    RecursionError, MemoryError, SyntaxError or ValueError for a source nested too deep for Python to compile.
    """
    if len(source) > MAX_SOURCE:
        raise TemplateSyntaxError(f"{len(source):,} characters; a template may have {MAX_SOURCE:,}; shorten it", 1)
    if SENTINEL in source:
        raise TemplateSyntaxError(f"holds the reserved noncharacter U+{ord(SENTINEL):04X}; remove it", 1)
    tree = ENVIRONMENT.parse(source.replace(SEPARATOR, SENTINEL).replace(_PROTECTED_PIPES, SEPARATOR))
    kept = (node.data for block in tree.find_all(nodes.AssignBlock) for node in block.find_all(nodes.TemplateData))
    written = [node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)]
    guard = Guard(loose=any(SENTINEL in text for text in (*kept, *written)))
    guarded = guard.visit(tree)
    guarded.set_environment(ENVIRONMENT)
    variables = frozenset(meta.find_undeclared_variables(guarded))
    code = ENVIRONMENT.compile(guarded)
    program = ENVIRONMENT.template_class.from_code(ENVIRONMENT, code, ENVIRONMENT.globals)
    return Program(program.root_render_func, variables, guard.mutates, bool(_DRAWS.search(source)))
