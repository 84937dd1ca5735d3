"""Budgets of one render, and the cost of values.

Budgets count loop steps and characters, never time, so a template and a row give the same result on every machine.
Every operation is charged before it runs, so no huge value is ever built.
"""

from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any, NoReturn

from jinja2 import Environment
from jinja2.nodes import EvalContext
from jinja2.runtime import Context, Undefined

from cappy_model.sandbox.written import Written
from schemas.ids import seed_for

MAX_ITERATIONS = 50_000  # loop steps, elements of repeated lists, elements of one range
MAX_CHARACTERS = 4_000_000  # characters built by outputs, joins, concatenations, replacements and formats
MAX_WORK = 40_000_000  # characters read by filters, methods and comparisons; a list element counts for 32
LIST_SLOT = 32
NUMBER = 8
NODE = 16  # one step of a loop's body
MAX_KEY = 1_000

_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_SEQUENCES = frozenset((list, tuple, set, frozenset, *_VIEWS))
CONTAINERS = frozenset((list, tuple, dict, *_VIEWS))
"""Types whose text is `represent`'s."""


class RenderError(Exception):
    """A row cannot be rendered by a template. `reason` is a stable code, `detail` the description."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class Unusable:
    """A value that is neither text nor number, such as the bytes of an image.

    A row whose template prints, tests or compares it is rejected with `detail`; it may be tested for null.
    """

    def __init__(self, detail: str) -> None:
        self._detail = detail

    def _refuse(self, *args: Any) -> NoReturn:
        raise RenderError("unusable_value", self._detail)

    __str__ = __repr__ = __format__ = __bool__ = __len__ = __iter__ = __contains__ = __getitem__ = __hash__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __int__ = __float__ = __index__ = _refuse


class Draw:
    """Random picks of one render. The n-th depends only on the seed, the template, the example and n."""

    def __init__(self, seed: int, template_id: str, example_id: str) -> None:
        self.identity = (seed, template_id, example_id)
        self.drawn = 0

    def below(self, count: int) -> int:
        """Return the next pick, uniform in [0, count). Raises IndexError if `count` is 0."""
        if count == 0:
            raise IndexError("cannot choose from an empty sequence")
        seed, template_id, example_id = self.identity
        picked = seed_for(seed, template_id, example_id, str(self.drawn)) % count
        self.drawn += 1
        return picked


class RenderContext(Context):
    """jinja2's context for one render, with budgets. It skips the set-up that no template here needs.

    Args:
      environment: the environment of the sandbox.
      names: the values of names; gives jinja2's `missing` for an absent name.
      eval_context: jinja2's evaluation context.
      draw: the random picks.
      cut: output values longer than this many characters are truncated.
    """

    iterations = MAX_ITERATIONS
    characters = MAX_CHARACTERS
    work = MAX_WORK

    def __init__(
        self, environment: Environment, names: dict[str, Any], eval_context: EvalContext, draw: Draw, cut: int
    ) -> None:
        self.environment = environment
        self.eval_ctx = eval_context
        self.parent = self.vars = names
        # Avoids a Python call for each name; mypy does not allow assigning to a method.
        self.resolve_or_missing = names.__getitem__  # type: ignore[assignment,method-assign]
        self.exported_vars = set()
        self.draw = draw
        self.cut = cut

    def spend_iterations(self, count: int) -> None:
        """Charge loop steps. Raises RenderError("too_many_iterations") above the budget."""
        self.iterations -= count
        if self.iterations < 0:
            raise RenderError("too_many_iterations", f"more than {MAX_ITERATIONS:,} loop steps or repeated elements")

    def spend_characters(self, count: int) -> None:
        """Charge characters built. Raises RenderError("output_too_large") above the budget."""
        self.characters -= count
        if self.characters < 0:
            raise RenderError("output_too_large", f"the template builds more than {MAX_CHARACTERS:,} characters")

    def spend_work(self, count: int) -> None:
        """Charge characters read. Raises RenderError("too_much_work") above the budget."""
        self.work -= count
        if self.work < 0:
            raise RenderError("too_much_work", f"filters and methods read more than {MAX_WORK:,} characters")

    def weigh(self, value: Any) -> int:
        """Charge for reading `value` once; return its size."""
        count = len(value) if type(value) is str else size(value, self.work)
        self.spend_work(count)
        return count


def size(value: Any, limit: int) -> int:
    """Estimate the characters of `value` as text, nested values included; counting stops soon after `limit`.

    Raises RenderError("unsafe") for a value that is not data, whose text would be a memory address.
    """
    count = 0
    stack = [value]
    while stack and count <= limit:
        item = stack.pop()
        kind = type(item)
        if kind is str:
            count += len(item) + 4
        elif kind is int:
            count += NUMBER if -(1 << 63) <= item < 1 << 63 else item.bit_length()
        elif kind in _SEQUENCES:
            count += LIST_SLOT * len(item)
            if count <= limit:
                stack.extend(item)
        elif kind is dict:
            count += LIST_SLOT * len(item)
            if count <= limit:
                stack.extend(item.keys())
                stack.extend(item.values())
        else:
            count += _scalar_size(item)
    return count


def _is_moment(item: Any) -> bool:
    return isinstance(item, date | time | timedelta)


def _scalar_size(item: Any) -> int:
    if isinstance(item, Written):
        return len(item.text)
    if item is None or isinstance(item, float | bool | Undefined):
        return NUMBER
    if isinstance(item, str):
        return len(item) + 4
    if isinstance(item, bytes):
        raise RenderError("unusable_value", f"{len(item):,} bytes, which are no text")
    if isinstance(item, range):
        return LIST_SLOT * len(item)
    if _is_moment(item) or (isinstance(item, Decimal) and abs(item.adjusted()) < 1_000):
        return 32
    if isinstance(item, Unusable):
        str(item)  # raises
    raise RenderError("unsafe", f"a template cannot use a {type(item).__name__} object as a value")


def stringify(context: RenderContext, value: Any) -> str:
    """Convert a value other than a plain string to text. Raises RenderError("null_value") for a null."""
    if value is None:
        raise RenderError("null_value", "a null would be written as the word None")
    if isinstance(value, Undefined):
        return ""
    count = size(value, context.characters)
    if count > context.characters:
        context.spend_characters(count)
    context.spend_work(count)
    return represent(value) if type(value) in CONTAINERS else str(value)


def represent(value: Any) -> str:
    """Return what `repr` gives for a value and those in it, but plain text instead of the names of Python's types.

    Dates, times and durations are written as text, in quotes; decimals and written numbers by their digits. Raises
    RenderError("undefined") for an undefined value, and "unsafe" for one that is not data.
    """
    kind = type(value)
    if kind is list:
        return f"[{', '.join(map(represent, value))}]"
    if kind is tuple:
        return f"({represent(value[0])},)" if len(value) == 1 else f"({', '.join(map(represent, value))})"
    if kind is dict:
        return f"{{{', '.join(f'{represent(key)}: {represent(item)}' for key, item in value.items())}}}"
    if kind in _VIEWS:
        return f"{kind.__name__}({represent(list(value))})"
    if isinstance(value, Decimal):
        return str(value)
    if _is_moment(value):
        return repr(str(value))
    if isinstance(value, Undefined):
        raise RenderError("undefined", "an undefined value would be written as the word Undefined")
    if value is None or isinstance(value, str | int | float | range | Unusable):
        return repr(value)
    raise RenderError("unsafe", f"a template cannot use a {kind.__name__} object as a value")


def to_text(context: RenderContext, value: Any) -> str:
    """Convert any value to text. Raises RenderError("null_value") for a null."""
    return value if type(value) is str else stringify(context, value)


def check_key(key: Any) -> None:
    """Raise RenderError("unsafe") for a key or subscript that is slow to hash and compare: a long text, a tuple."""
    if isinstance(key, tuple | bytes | range) or (isinstance(key, str) and len(key) > MAX_KEY):
        raise RenderError(
            "unsafe", f"a {type(key).__name__} cannot be a key unless it is a text under {MAX_KEY:,} long"
        )
