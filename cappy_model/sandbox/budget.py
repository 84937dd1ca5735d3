"""Budgets of one render, and the cost of values.

Budgets count loop steps and characters, never time, so a template and a row give the same result on every machine.
Every operation is charged before it runs, so no huge value is ever built.
"""

from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

from jinja2 import Environment
from jinja2.nodes import EvalContext
from jinja2.runtime import Context, Undefined

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


class RenderError(Exception):
    """A row cannot be rendered by a template. `reason` is a stable code, `detail` the description."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


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


def _scalar_size(item: Any) -> int:
    if item is None or isinstance(item, float | bool | Undefined):
        return NUMBER
    if isinstance(item, str):
        return len(item) + 4
    if isinstance(item, bytes):
        return 4 * len(item) + 3
    if isinstance(item, range):
        return LIST_SLOT * len(item)
    if isinstance(item, date | time | timedelta) or (isinstance(item, Decimal) and abs(item.adjusted()) < 1_000):
        return 32
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
    return str(value)


def to_text(context: RenderContext, value: Any) -> str:
    """Convert any value to text. Raises RenderError("null_value") for a null."""
    return value if type(value) is str else stringify(context, value)


def check_key(key: Any) -> None:
    """Raise RenderError("unsafe") for a key or subscript that is slow to hash and compare: a long text, a tuple."""
    if isinstance(key, tuple | bytes | range) or (isinstance(key, str) and len(key) > MAX_KEY):
        raise RenderError(
            "unsafe", f"a {type(key).__name__} cannot be a key unless it is a text under {MAX_KEY:,} long"
        )
