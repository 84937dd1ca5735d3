"""Numbers of text files: they are equal to int and float in every operation, and print as their file has them."""

import json
import math
import operator
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from beam_pipelines.templates.compile import CompiledTemplate
from beam_pipelines.templates.files import Template
from cappy_model.sandbox.written import (
    MAX_DIGITS,
    WrittenBoolean,
    WrittenFloat,
    WrittenInteger,
    parse_cell,
    parse_json,
)

INTEGERS = st.from_regex(r"-?(0|[1-9][0-9]{0,30})", fullmatch=True)
FRACTIONS = st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][-+]?[0-9]{1,3})?", fullmatch=True)
BOOLEANS = st.sampled_from(["true", "True", "TRUE", "false", "False", "FALSE"])
NUMBERS = st.one_of(INTEGERS, FRACTIONS)
CELLS = st.one_of(NUMBERS, BOOLEANS)

OPERATIONS: list[Callable[[Any, Any], Any]] = [
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod),
    *(operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge),
    *(lambda a, b: -a, lambda a, b: +a, lambda a, b: abs(a), lambda a, b: round(a, 2), lambda a, b: bool(a)),
    *(lambda a, b: {a: 1}.get(b), lambda a, b: sorted([b, a, 1]), lambda a, b: max(0, sum([a, b]))),
    *(lambda a, b: f"{a:.2f}{b:,}", lambda a, b: f"{a:>12.3e}", lambda a, b: int(a), lambda a, b: float(b)),
]


def value_of(text: str) -> int | float:
    """The plain number that a cell means."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return int(text) if text.lstrip("-").isdecimal() else float(text)


def tried(operation: Callable[[Any, Any], Any], *values: Any) -> Any:
    try:
        return operation(*values)
    except (ArithmeticError, ValueError) as error:
        return type(error)


def render(jinja: str, **row: Any) -> str:
    rendered = CompiledTemplate(Template("t", "t", f"{jinja} ||| x"), truncate=None, seed=0).render(row, "e")
    assert rendered is not None
    return rendered.instruction


@given(CELLS, CELLS)
@example("3.50", "-0")
@example("1e400", "true")
def test_they_compute_as_plain_numbers(left: str, right: str) -> None:
    for operation in OPERATIONS:
        plain = tried(operation, value_of(left), value_of(right))
        found = tried(operation, parse_cell(left), parse_cell(right))
        assert found == plain or (math.isnan(found) and math.isnan(plain))
        if isinstance(plain, float | int):
            assert type(found) in (int, float, bool)  # no number that is computed prints as another was written
    assert hash(parse_cell(left)) == hash(value_of(left))


@given(CELLS)
@example("3.50")
@example("1" * 25)
def test_they_print_as_written(text: str) -> None:
    value = parse_cell(text)
    printed = [str(value), repr(value), f"{value}", "{}".format(value), "%s" % value, "%r" % value]  # noqa: UP031, UP032
    assert set(printed) == {text}
    expressions = [
        "a",
        "a | string",
        "[a] | join",
        "a ~ ''",
        "'%s' % a",
        "'{}'.format(a)",
        "[a, 9] | first",
        "a | trim",
    ]
    assert {render(f"{{{{ {expression} }}}}", a=value) for expression in expressions} == {text}
    assert render("{{ [a, (a,), {a: a}] }}", a=value) == f"[{text}, ({text},), {{{text}: {text}}}]"


@given(NUMBERS)
@example("NaN")
@example("1e400")
@example("9" * 5_000)
def test_json_numbers_print_as_written_at_any_depth(text: str) -> None:
    assert str(parse_json(text)) == text
    assert render("{{ a.b[0].c }}", a=parse_json(f'{{"b": [{{"c": {text}}}]}}')) == text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    )
)
def test_json_is_read_as_python_reads_it(value: Any) -> None:
    text = json.dumps(value)
    assert parse_json(text) == value
    if value is not None and not isinstance(value, str):
        assert render("{{ [a] }}", a=parse_json(text)) == str([value]).strip()


@given(st.text())
def test_any_other_cell_is_text(text: str) -> None:
    value = parse_cell(text)
    assert str(value) == text
    assume(not isinstance(value, int | float))
    assert type(value) is str


@pytest.mark.parametrize(
    "text", ["007", "+5", "1,000", " 5", "5 ", "5.", "1e", "٣", "0x10", "inf", "yes", "", "-", "."]
)
def test_what_is_no_number_is_text(text: str) -> None:
    assert type(parse_cell(text)) is str


def test_only_what_would_print_otherwise_has_a_type_of_its_own() -> None:
    found = [type(parse_cell(text)) for text in ("5", "4.5", "-3", "1e+22", "3.50", "-0", "true", ".5")]
    assert found == [int, float, int, float, WrittenFloat, WrittenInteger, WrittenBoolean, WrittenFloat]
    assert type(parse_json("9" * (MAX_DIGITS + 1))) is WrittenFloat


@pytest.mark.parametrize(
    ("cell", "true"),
    [
        ("3.50", "number float"),
        ("4.0", "number float"),
        ("-0", "number integer even"),
        ("7", "number integer odd"),
        ("true", "boolean true number"),
        ("False", "boolean false number"),
        ("text", "string iterable sequence"),
    ],
)
def test_tests_take_them_for_what_they_are(cell: str, true: str) -> None:
    tests = ["boolean", "true", "false", "number", "integer", "float", "string", "mapping", "none", "undefined"]
    found = [name for name in tests if render(f"{{{{ 'y' if a is {name} else 'n' }}}}", a=parse_cell(cell)) == "y"]
    assert found == [name for name in tests if name in true.split()]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a + 1", "4.5"),
        ("a * 2", "7.0"),
        ("a | int", "3"),
        ("a | float", "3.5"),
        ("a | round(1)", "3.5"),
        ("a | round | int", "4"),
        ("[a, 1] | sum", "4.5"),
        ("[a, 1] | max", "3.50"),
        ("[a, 1.25] | sort | join(' ')", "1.25 3.50"),
        ("[a, 3.5, 1] | unique | list", "[3.50, 1]"),
        ("-a", "-3.5"),
        ("a | abs", "3.5"),
        ("'%.1f|%d' % (a, a)", "3.5|3"),
        ("'{:.1f}'.format(a)", "3.5"),
        ("{3.5: 'x'}[a]", "x"),
        ("'y' if a == 3.5 and a in [1, 3.5] and a > 3 else 'n'", "y"),
        ("t and not f", "True"),
        ("'yes' if t else 'no'", "yes"),
        ("t | upper ~ ' ' ~ f", "TRUE false"),
        ("'y' if t == true and f is sameas false else 'n'", "y"),
        ("['no', 'yes'][t] ~ {true: 1}[t]", "yes1"),
        ("a.text is undefined", "True"),
    ],
)
def test_templates_compute_with_them(expression: str, expected: str) -> None:
    row = {"a": parse_cell("3.50"), "t": parse_cell("true"), "f": parse_cell("false")}
    assert render(f"{{{{ {expression} }}}}", **row) == expected
