"""Operators of templates, each charged before it runs, and the helpers of texts that are formats.

Prices are upper bounds of CPython's work, in characters or elements.
"""

import re
from collections.abc import Callable
from typing import Any

from cappy_model.sandbox.budget import CONTAINERS, LIST_SLOT, RenderContext, RenderError, represent, size

MAX_INTEGER_BITS = 10_000
NUMBER_FIELD = 320  # a float may have 309 digits, a point and six decimals


def limit_bits(bits: int) -> None:
    """Raise RenderError("output_too_large") for an integer of more than MAX_INTEGER_BITS bits."""
    if bits > MAX_INTEGER_BITS:
        raise RenderError("output_too_large", f"an integer of about {bits:,} bits")


def add(context: RenderContext, left: Any, right: Any) -> Any:
    """Evaluate `left + right`."""
    if isinstance(left, str) and isinstance(right, str):
        context.spend_characters(len(left) + len(right))
    elif isinstance(left, list | tuple):
        context.spend_work(LIST_SLOT * (len(left) + len(right)))
    return left + right


def multiply(context: RenderContext, left: Any, right: Any) -> Any:
    """Evaluate `left * right` for numbers, or for a sequence and a number."""
    if isinstance(left, int) and isinstance(right, int):
        limit_bits(left.bit_length() + right.bit_length())
        return left * right
    sequence, count = (right, left) if isinstance(left, int) else (left, right)
    if isinstance(count, int) and hasattr(sequence, "__len__"):
        spend = context.spend_characters if isinstance(sequence, str) else context.spend_iterations
        spend(len(sequence) * max(count, 0))
    return left * right


def power(context: RenderContext, left: Any, right: Any) -> Any:
    """Evaluate `left ** right`."""
    if isinstance(left, int) and isinstance(right, int):
        limit_bits(left.bit_length() * abs(right))
    return left**right


_PRINTF = re.compile(
    r"%%|%(?P<key>\([^()]*\))?[#0\- +]*(?P<width>\*|\d+)?(?:\.(?P<precision>\*|\d+))?"
    r"(?=[hlL]?(?P<repr>[ra])|)"
)


def width_of(digits: str | None) -> int:
    """Return a width or precision of a format; 0 for none. Raises RenderError for `*` and for more than 7 digits."""
    if digits == "*":
        raise RenderError("unsafe", "a width of * is not allowed in a format")
    if digits and len(digits) > 7:
        raise RenderError("output_too_large", f"a format asks for a width of {digits[:20]}")
    return int(digits) if digits else 0


def modulo(context: RenderContext, left: Any, right: Any) -> Any:
    """Evaluate `left % right`. For a text this is printf formatting, charged by its fields."""
    if not isinstance(left, str):
        return left % right
    context.spend_work(len(left))
    fields = keys = total = 0
    reprs = False
    for match in _PRINTF.finditer(left):
        if match.group() == "%%":
            continue
        reprs |= match["repr"] is not None
        if left.startswith("(", match.end()):
            raise RenderError("unsafe", "a key of a format cannot hold parentheses")
        fields += 1
        keys += match["key"] is not None
        total += width_of(match["width"]) + width_of(match["precision"])
    argument = size(right, context.characters)
    context.spend_characters(len(left) + total + fields * NUMBER_FIELD + max(keys, 1) * argument)
    if type(right) is tuple:
        right = tuple(formatted(value, reprs=reprs) for value in right)
    elif type(right) is dict and keys:
        right = {key: formatted(value, reprs=reprs) for key, value in right.items()}
    else:
        right = formatted(right, reprs=reprs)
    return valid_text(left % right)


class _Shown(str):
    """Text that a format writes without quotes, in place of a list, say, for which Python would name its types."""

    def __repr__(self) -> str:
        return str(self)


def formatted(value: Any, *, reprs: bool) -> Any:
    """Return what stands for an argument of a format; `reprs`: whether a field writes the `repr` of one."""
    if type(value) in CONTAINERS or (reprs and not isinstance(value, str | int | float)):
        return _Shown(represent(value))
    return value


def valid_text(text: str) -> str:
    """Return a text. Raises RenderError for one with half of a surrogate pair, which `%c` can make."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RenderError("template_error", f"a format makes half of a character: {error}") from error
    return text


OPERATORS: dict[str, Callable[[RenderContext, Any, Any], Any]] = {
    "+": add,
    "*": multiply,
    "**": power,
    "%": modulo,
}
