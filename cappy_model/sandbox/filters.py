"""Filters and tests of templates, each charged before it runs: jinja2's safe ones and PromptSource's three.

Templates can use those in FILTERS and TESTS, and no others.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.tests import TESTS as JINJA_TESTS
from jinja2.utils import _PassArg, pass_context
from markupsafe import escape

from cappy_model.sandbox.budget import LIST_SLOT, RenderContext, RenderError, size, stringify, to_text
from cappy_model.sandbox.operators import add, limit_bits, modulo
from cappy_model.sandbox.values import price_replace
from cappy_model.sandbox.written import plain

Filter = Callable[..., Any]


def _take_context(function: Filter) -> Filter:
    """Wrap a filter of jinja2 so that its first argument is the render's context."""
    passed = _PassArg.from_obj(function)
    if passed is _PassArg.context:
        return function
    if passed is _PassArg.eval_context:
        return lambda context, *args, **kwargs: function(context.eval_ctx, *args, **kwargs)
    if passed is _PassArg.environment:
        return lambda context, *args, **kwargs: function(context.environment, *args, **kwargs)
    return lambda context, *args, **kwargs: function(*args, **kwargs)


def _charge(function: Filter, *, of_text: bool = False, as_text: bool = False, slow: bool = False) -> Filter:
    """Wrap a filter so that it is charged for reading: the size of its value, times 1 + the size of its arguments.

    Args:
      function: a filter of jinja2 or PromptSource.
      of_text: refuse a null.
      as_text: convert the value to text, which also refuses a null.
      slow: the filter runs Python code for each word or character of a text.
    """
    call = _take_context(function)

    @pass_context
    def charged(context: RenderContext, value: Any, /, *args: Any, **kwargs: Any) -> Any:
        if as_text or (of_text and value is None):
            value = to_text(context, value)
        count = context.weigh(value)
        if slow and isinstance(value, str):
            context.spend_work(count := count * LIST_SLOT)
        if args or kwargs:
            context.spend_work((count + 1) * size((*args, *kwargs.values()), context.work))
        result = call(context, value, *args, **kwargs)
        # Lazy results would run later, uncharged.
        return list(result) if isinstance(result, Iterator) else result

    return charged


@pass_context
def join(context: RenderContext, value: Any, /, d: Any = "", attribute: Any = None) -> str:
    """jinja2's filter `join`. Raises RenderError("null_value") for a null among the items."""
    if attribute is not None:
        value = FILTERS["map"](context, value, attribute=attribute)
    separator = to_text(context, d)
    context.spend_work(LIST_SLOT * len(value))
    items = [item if type(item) is str else stringify(context, item) for item in value]
    context.spend_characters(sum(map(len, items)) + len(separator) * len(items))
    return separator.join(items)


@pass_context
def concatenate(context: RenderContext, value: list[Any], /) -> str:
    """Evaluate the operator `~`."""
    items = [item if type(item) is str else stringify(context, item) for item in value]
    context.spend_characters(sum(map(len, items)))
    return "".join(items)


@pass_context
def replace(context: RenderContext, s: Any, /, old: Any, new: Any, count: int | None = None) -> str:
    """jinja2's filter `replace`."""
    text, old, new = to_text(context, s), to_text(context, old), to_text(context, new)
    price_replace(context, text, (old, new))
    return text.replace(old, new, -1 if count is None else count)


@pass_context
def format_text(context: RenderContext, value: Any, /, *args: Any, **kwargs: Any) -> Any:
    """jinja2's filter `format`: printf formatting."""
    if args and kwargs:
        raise TypeError("format takes positional arguments or keywords, not both")
    return modulo(context, to_text(context, value), kwargs or args)


@pass_context
def to_integer(context: RenderContext, value: Any, /, default: Any = 0, base: int = 10) -> Any:
    """jinja2's filter `int`."""
    if base != 10 and isinstance(value, str):
        limit_bits(4 * len(value))
    context.weigh(value)
    return JINJA_FILTERS["int"](value, default, base)


@pass_context
def round_number(context: RenderContext, value: Any, /, precision: int = 0, method: str = "common") -> Any:
    """jinja2's filter `round`, for at most 100 digits."""
    if isinstance(precision, int) and abs(precision) > 100:
        raise RenderError("output_too_large", f"round takes at most 100 digits, not {precision}")
    return JINJA_FILTERS["round"](value, precision, method)


@pass_context
def add_up(context: RenderContext, value: Any, /, attribute: Any = None, start: Any = 0) -> Any:
    """jinja2's filter `sum`, for numbers only: summing lists copies them again and again."""
    if attribute is not None:
        value = FILTERS["map"](context, value, attribute=attribute)
    if not isinstance(start, int | float):
        raise RenderError("unsafe", "sum adds numbers only")
    context.weigh(value)
    return sum(value, start)


@pass_context
def choice(context: RenderContext, value: Any, /) -> Any:
    """PromptSource's filter `choice`: one element at random. (A context filter is never folded to a constant.)"""
    return value[context.draw.below(len(value))]


@pass_context
def random(context: RenderContext, value: Any, /) -> Any:
    """jinja2's filter `random`: as `choice`, but undefined for an empty sequence."""
    if len(value) == 0:
        return context.environment.undefined("No random item, sequence was empty.")
    return choice(context, value)


def most_frequent(items: Any) -> list[Any] | None:
    """PromptSource's filter `most_frequent`: the most frequent elements, in order of first occurrence."""
    counts = Counter(items)
    most = max(counts.values(), default=0)
    return [item for item, count in counts.items() if count == most] or None


@pass_context
def highlight(context: RenderContext, value: Any, /) -> Any:
    """PromptSource's filter `highlight`, made for its web page."""
    return add(context, "<span style='color: #F08080'>", add(context, value, "</span>"))


@pass_context
def escape_html(context: RenderContext, value: Any, /) -> str:
    """jinja2's filters `e` and `escape`; returns plain text."""
    text = to_text(context, value)
    context.spend_characters(6 * len(text))
    return str(escape(text))


def _names(text: str) -> list[str]:
    return text.split()


_OF_SEQUENCES = "dictsort items list map max min reject rejectattr reverse select selectattr sort unique"
FILTERS: dict[str, Filter] = {
    **{name: JINJA_FILTERS[name] for name in _names("abs count d default first float last length")},
    **{name: _charge(JINJA_FILTERS[name], slow=True) for name in _names(_OF_SEQUENCES)},
    **{name: _charge(JINJA_FILTERS[name], as_text=True) for name in _names("capitalize lower trim upper")},
    **{name: _charge(JINJA_FILTERS[name], as_text=True, slow=True) for name in _names("title wordcount")},
    "truncate": _charge(JINJA_FILTERS["truncate"], of_text=True),
    "most_frequent": _charge(most_frequent, slow=True),
    "string": pass_context(to_text),
    "join": join,
    "replace": replace,
    "format": format_text,
    "int": to_integer,
    "round": round_number,
    "sum": add_up,
    "choice": choice,
    "random": random,
    "highlight": highlight,
    "e": escape_html,
    "escape": escape_html,
}


def _charge_test(function: Any) -> Filter:
    @pass_context
    def charged(context: RenderContext, value: Any, /, *args: Any) -> Any:
        context.spend_work(size((value, args), context.work))
        return function(value, *args)

    return charged


def _by_identity(test: Any) -> Filter:
    """Wrap a test for True and False, of which a boolean of a text file is neither."""
    return lambda value, *args: test(plain(value), *map(plain, args))


_IDENTITIES = "boolean false integer sameas true"
_KINDS = "defined divisibleby even float iterable mapping none number odd sequence string undefined"
_COMPARISONS = "!= < <= == > >= eq equalto ge greaterthan gt in le lessthan lower lt ne upper"
TESTS: dict[str, Any] = {
    **{name: JINJA_TESTS[name] for name in _names(_KINDS)},
    **{name: _by_identity(JINJA_TESTS[name]) for name in _names(_IDENTITIES)},
    **{name: _charge_test(JINJA_TESTS[name]) for name in _names(_COMPARISONS)},
}
