"""What a render may spend, and what values cost.

Budgets count loop steps and characters, never time: the same template over the same row ends the same way on every
machine. Whatever a template does is charged before it is done, so no huge value is ever built.
"""

from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

from jinja2 import Environment
from jinja2.nodes import EvalContext
from jinja2.runtime import Context, Undefined

from schemas.ids import seed_for

MAX_ITERATIONS = 50_000  # loop steps and elements made by repeating a list; elements of one range
MAX_CHARACTERS = 4_000_000  # characters written or built: outputs, joins, concatenations, replacements, formats
MAX_WORK = 40_000_000  # characters read by filters, methods and comparisons; a list element counts for 32
LIST_SLOT = 32
NUMBER = 8
NODE = 16  # one step of a loop's body
MAX_KEY = 1_000

_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_SEQUENCES = frozenset((list, tuple, set, frozenset, *_VIEWS))


class RenderError(Exception):
    """A template could not be rendered over a row: `reason` is a stable code, `detail` tells what happened."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class Draw:
    """The random picks of one render: the n-th depends on seed, template, example and n, on nothing else."""

    def __init__(self, seed: int, template_id: str, example_id: str) -> None:
        self.identity = (seed, template_id, example_id)
        self.drawn = 0

    def below(self, count: int) -> int:
        """The next pick, uniform in [0, count); IndexError when there is nothing to pick from."""
        if count == 0:
            raise IndexError("cannot choose from an empty sequence")
        seed, template_id, example_id = self.identity
        picked = seed_for(seed, template_id, example_id, str(self.drawn)) % count
        self.drawn += 1
        return picked


class RenderContext(Context):
    """jinja2's context for one render, with its budgets. It skips what jinja2's own sets up and no template here uses.

    `names` is a mapping that gives jinja2's `missing` for an absent name; `cut` is the length over which an output
    value is truncated.
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
        # No Python call for each name; mypy takes a method for something fixed.
        self.resolve_or_missing = names.__getitem__  # type: ignore[assignment,method-assign]
        self.exported_vars = set()
        self.draw = draw
        self.cut = cut  # an output value longer than this is truncated

    def spend_iterations(self, count: int) -> None:
        """Charge loop steps; RenderError("too_many_iterations") when there are none left."""
        self.iterations -= count
        if self.iterations < 0:
            raise RenderError("too_many_iterations", f"more than {MAX_ITERATIONS:,} loop steps or repeated elements")

    def spend_characters(self, count: int) -> None:
        """Charge characters built; RenderError("output_too_large") when there are none left."""
        self.characters -= count
        if self.characters < 0:
            raise RenderError("output_too_large", f"the template builds more than {MAX_CHARACTERS:,} characters")

    def spend_work(self, count: int) -> None:
        """Charge characters read; RenderError("too_much_work") when there are none left."""
        self.work -= count
        if self.work < 0:
            raise RenderError("too_much_work", f"filters and methods read more than {MAX_WORK:,} characters")

    def weigh(self, value: Any) -> int:
        """Charge `value` as read once, and return its size."""
        count = len(value) if type(value) is str else size(value, self.work)
        self.spend_work(count)
        return count


def size(value: Any, limit: int) -> int:
    """About how many characters `value` prints as, nested values included; counting stops soon after `limit`.

    Raises RenderError("unsafe") for a value that is not data, whose text would be an address in memory.
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


def printed(context: RenderContext, value: Any) -> str:
    """The text of a value that is not a plain string. A null has none: RenderError("null_value")."""
    if value is None:
        raise RenderError("null_value", "a null would be written as the word None")
    if isinstance(value, Undefined):
        return ""
    count = size(value, context.characters)
    if count > context.characters:
        context.spend_characters(count)
    context.spend_work(count)
    return str(value)


def text_of(context: RenderContext, value: Any) -> str:
    """The text of any value; RenderError("null_value") for a null."""
    return value if type(value) is str else printed(context, value)


def check_key(key: Any) -> None:
    """Keys and subscripts are numbers or short texts: what they cost to hash and compare is then nothing."""
    if isinstance(key, tuple | bytes | range) or (isinstance(key, str) and len(key) > MAX_KEY):
        raise RenderError(
            "unsafe", f"a {type(key).__name__} cannot be a key unless it is a text under {MAX_KEY:,} long"
        )
