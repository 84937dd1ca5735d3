"""Loops, functions and methods of templates, each charged before it runs.

Templates can use these and no others. Prices are upper bounds of CPython's work, in characters or elements.
"""

import re
from collections.abc import Callable, Mapping
from string import Formatter
from typing import Any

from jinja2.runtime import LoopContext, Undefined
from jinja2.utils import Namespace, missing, pass_context

from cappy_model.sandbox.budget import (
    LIST_SLOT,
    MAX_ITERATIONS,
    NODE,
    RenderContext,
    RenderError,
    check_key,
    size,
)
from cappy_model.sandbox.operators import NUMBER_FIELD, formatted, valid_text, width_of


@pass_context
def snapshot(context: RenderContext, value: Any, body: int, /) -> Any:
    """Charge for a loop over `value`; return what it iterates over: a copy if `value` could grow during the loop.

    `body` is the number of syntax nodes in the loop's body, each of which is a step of every iteration.
    """
    if isinstance(value, Undefined):
        return ()
    if not hasattr(value, "__len__"):
        raise TypeError(f"a {type(value).__name__} cannot be looped over")
    context.spend_iterations(len(value))
    context.spend_work(len(value) * body * NODE)
    return value if isinstance(value, str | tuple | range) else list(value)


@pass_context
def bounded_range(context: RenderContext, /, *args: int) -> range:
    """Evaluate the function `range`."""
    numbers = range(*args)
    if len(numbers[: MAX_ITERATIONS + 1]) > MAX_ITERATIONS:  # len() of a huge range raises OverflowError
        raise RenderError("too_many_iterations", f"{numbers} has more than {MAX_ITERATIONS:,} elements")
    return numbers


@pass_context
def bounded_zip(context: RenderContext, /, *args: Any) -> list[tuple[Any, ...]]:
    """Evaluate the function `zip`; returns a list."""
    for value in args:
        if not isinstance(value, Undefined):
            context.spend_work(LIST_SLOT * len(value))
    return list(zip(*args, strict=False))


@pass_context
def make_namespace(context: RenderContext, /, *args: Any, **kwargs: Any) -> Namespace:
    """Evaluate the function `namespace`."""
    if not all(isinstance(value, dict) for value in args):
        raise RenderError("unsafe", "namespace() takes a dict or keywords in templates")
    return Namespace(*args, **kwargs)


FUNCTIONS: dict[str, Callable[..., Any]] = {"namespace": make_namespace, "range": bounded_range, "zip": bounded_zip}


@pass_context
def call_function(context: RenderContext, name: str, /, *args: Any, **kwargs: Any) -> Any:
    """Call one of FUNCTIONS. It is called by its name, whatever variable has that name, too."""
    return FUNCTIONS[name](context, *args, **kwargs)


class Names(dict[str, Any]):
    """The names of one render. An absent name gives jinja2's `missing`."""

    def __missing__(self, key: str) -> object:
        return missing


Arguments = tuple[Any, ...]


def _read(context: RenderContext, value: Any, args: Arguments) -> None:
    context.spend_work(len(value) + (size(args, context.work) if args else 0))


def _read_deep(context: RenderContext, value: Any, args: Arguments) -> None:
    context.spend_work(size((value, args), context.work))


def _search(context: RenderContext, value: str, args: Arguments) -> None:
    longest = max((len(arg) for arg in args if isinstance(arg, str)), default=0)
    # CPython's search is linear for long patterns and may take len(pattern) steps a character for short ones.
    context.spend_work(len(value) * (1 + min(longest, 100) // 10) + size(args, context.work))


def _split(context: RenderContext, value: str, args: Arguments) -> None:
    context.spend_work(LIST_SLOT * len(value))
    _search(context, value, args)


def _every_pair(context: RenderContext, value: str, args: Arguments) -> None:
    context.spend_work(len(value) * (1 + size(args, context.work)))


def price_replace(context: RenderContext, value: str, args: Arguments) -> None:
    """Charge `value.replace(*args)`."""
    if len(args) < 2 or not isinstance(args[0], str) or not isinstance(args[1], str):
        raise TypeError("replace takes two texts")
    _search(context, value, args[:1])
    occurrences = value.count(args[0])
    context.spend_characters(len(value) + max(0, occurrences * (len(args[1]) - len(args[0]))))


def _join(context: RenderContext, value: str, args: Arguments) -> None:
    if args and hasattr(args[0], "__len__"):
        context.spend_characters(size(args[0], context.characters) + len(value) * len(args[0]))


def _format(context: RenderContext, value: str, args: Arguments) -> None:
    """Charge `value.format(...)`. Only plain fields, since `{0.name}` and `{0[key]}` reach into Python's objects."""
    context.spend_work(len(value))
    largest = max((size(arg, context.characters) for arg in args), default=0)
    total = 0
    for literal, field, spec, _ in Formatter().parse(value):
        total += len(literal)
        if field is None:
            continue
        if not (field == "" or field.isdecimal() or field.isidentifier()):
            raise RenderError("unsafe", f"a field of a format may only be a number or a name, not {field[:100]!r}")
        if "{" in (spec or "") or len(spec or "") > 100:
            raise RenderError("unsafe", f"the format {spec!r:.100} is nested or too long")
        total += sum(width_of(digits) for digits in re.findall(r"\d+", spec or "")) + largest + NUMBER_FIELD
    context.spend_characters(total)


def _format_fields(text: str, args: Arguments, kwargs: Mapping[str, Any]) -> str:
    reprs = any(conversion in ("r", "a") for *_, conversion in Formatter().parse(text))
    named = {key: formatted(value, reprs=reprs) for key, value in kwargs.items()}
    return valid_text(text.format(*(formatted(value, reprs=reprs) for value in args), **named))


def _slot(context: RenderContext, value: Any, args: Arguments) -> None:
    context.spend_work(LIST_SLOT)


def _extend(context: RenderContext, value: list[Any], args: Arguments) -> None:
    if args and hasattr(args[0], "__len__"):
        context.spend_work(LIST_SLOT * len(args[0]))


def _copy(context: RenderContext, value: Any, args: Arguments) -> None:
    context.spend_work(LIST_SLOT * len(value))


def _key(context: RenderContext, value: dict[Any, Any], args: Arguments) -> None:
    if args:
        check_key(args[0])
    context.spend_work(LIST_SLOT)


def _update(context: RenderContext, value: dict[Any, Any], args: Arguments) -> None:
    if args and not isinstance(args[0], dict):
        raise RenderError("unsafe", "update() takes a dict or keywords in templates")
    context.spend_work(LIST_SLOT * (1 + sum(len(arg) for arg in args[:1])))


def _loop_values(context: RenderContext, value: LoopContext, args: Arguments) -> None:
    context.weigh(args)


Price = Callable[[RenderContext, Any, Arguments], None]


def _priced(names: str, price: Price) -> dict[str, Price]:
    return dict.fromkeys(names.split(), price)


METHODS: dict[type, dict[str, Price]] = {
    str: {
        **_priced(
            "capitalize casefold isalnum isalpha isdecimal isdigit islower isnumeric isspace istitle isupper", _read
        ),
        **_priced("lower swapcase title upper", _read),
        **_priced("count endswith find index partition removeprefix removesuffix startswith", _search),
        **_priced("split splitlines", _split),
        **_priced("lstrip rsplit rstrip strip", _every_pair),
        "replace": price_replace,
        "join": _join,
        "format": _format,
    },
    list: {
        **_priced("append", _slot),
        **_priced("insert pop reverse", _read),
        **_priced("count index remove", _read_deep),
        **_priced("clear copy", _copy),
        "extend": _extend,
    },
    tuple: _priced("count index", _read_deep),
    dict: {
        **_priced("get pop setdefault", _key),
        **_priced("items keys values", _slot),
        **_priced("clear copy", _copy),
        "update": _update,
    },
    LoopContext: _priced("changed cycle", _loop_values),
}
MUTATING = frozenset(["append", "clear", "extend", "insert", "pop", "remove", "reverse", "setdefault", "update"])
METHOD_NAMES = frozenset(name for methods in METHODS.values() for name in methods)


@pass_context
def call_method(context: RenderContext, value: Any, name: str, /, *args: Any, **kwargs: Any) -> Any:
    """Call `value.name(*args)` for a listed method, after charging its price."""
    price = METHODS.get(type(value), {}).get(name)
    if price is not None:
        price(context, value, (*args, *kwargs.values()) if kwargs else args)
        if price is _format:
            return _format_fields(value, args, kwargs)
        return getattr(value, name)(*args, **kwargs)
    if isinstance(value, Undefined):
        return getattr(value, name)  # raises UndefinedError, naming what is undefined
    if hasattr(value, name):
        raise RenderError("unsafe", f"templates may not call {type(value).__name__}.{name}()")
    return context.environment.undefined(obj=value, name=name)()  # raises UndefinedError


def copy_value(value: Any) -> Any:
    """Copy nested lists and dicts; immutable values are shared."""
    if isinstance(value, list):
        return [copy_value(item) for item in value]
    if isinstance(value, Mapping):
        return {key: copy_value(item) for key, item in value.items()}
    return tuple(copy_value(item) for item in value) if isinstance(value, tuple) else value
