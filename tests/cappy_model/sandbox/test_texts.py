"""What templates print of values that are neither text nor number, alone, in lists, and through formats."""

import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.templates.compile import CompiledTemplate, Rendered, RenderError
from beam_pipelines.templates.files import Template
from cappy_model.sandbox.budget import Unusable

PYTHON = re.compile(
    r"b'|b\"|datetime\.|Decimal\(|UUID\(|<[a-z_ ]+ (at 0x|object|method)|Undefined|Unusable|object at 0x"
)
"""Names of Python's types, and addresses in memory."""

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text("xyz é'", max_size=5),
    st.binary(max_size=5),
    st.dates(),
    st.times(),
    st.datetimes(),
    st.datetimes(timezones=st.just(UTC)),
    st.timedeltas(),
    st.decimals(allow_nan=False, allow_infinity=False, places=2),
    st.builds(Unusable, st.just("an image")),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text("xyz", max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
EXPRESSIONS = [
    *("v", "[v]", "(v, 1)", "{'k': v}", "{'k': v}.items()", "{'k': v}.values()", "v.missing", "[v.missing]", "v['x']"),
    *("v | string", "[v] | join(', ')", "v ~ ''", "v | upper", "v | lower", "v | title", "v | trim", "v | capitalize"),
    *("'%s' % v", "'%s %s' % (v, [v])", "'%r' % v", "'%r' % [v]", "'%a' % (v,)", "'%(k)r' % {'k': v}", "'%5lr' % v"),
    *("'{}'.format(v)", "'{!r} {!a}'.format(v, [v])", "'{k!r}'.format(k=v)", "'%s %r' | format(v, v)", "v.items"),
    *("v | replace('a', 'b')", "v | e", "[v] | list", "[v, v] | unique | list", "v | default('')", "v | truncate(9)"),
    *("v | list", "v | items | list", "v | dictsort", "v | wordcount", "[[v]] | map('string') | join", "v | highlight"),
    *("[v] | map('upper') | join", "'x' if v else 'y'", "v == 1", "v in [1]", "v | length", "v | first", "v | int"),
]


def render(jinja: str, **row: Any) -> Rendered | None:
    return CompiledTemplate(Template("t", "t", jinja), truncate=None, seed=0).render(row, "e")


def written(expression: str, **row: Any) -> str:
    rendered = render(f"{{{{ {expression} }}}} ||| x", **row)
    assert rendered is not None
    return rendered.instruction


REASONS = {"unusable_value", "null_value", "undefined", "unsafe", "template_error", "empty_instruction"}


@pytest.mark.parametrize("expression", EXPRESSIONS)
@settings(max_examples=40)
@given(value=VALUES)
def test_no_name_of_a_type_of_python_is_ever_written(expression: str, value: Any) -> None:
    """Whatever an expression makes of a value: text without such names, or a reject."""
    found = ""
    try:
        found = written(expression, v=value)
    except RenderError as error:
        found = error.reason
    assert found
    assert found in REASONS or not PYTHON.search(found)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text("abc"), inner),
    max_leaves=10,
)


@given(PLAIN)
def test_lists_of_plain_values_print_as_in_python(value: Any) -> None:
    assert written("[v]", v=value) == str([value])
    assert written("{'k': v}", v=value) == str({"k": value})
    assert written("{'k': v}.items()", v=value) == str({"k": value}.items())


@pytest.mark.parametrize(
    ("value", "alone", "listed"),
    [
        (date(2024, 1, 2), "2024-01-02", "['2024-01-02']"),
        (datetime(2024, 1, 2, 3, 4, 5, 600), "2024-01-02 03:04:05.000600", "['2024-01-02 03:04:05.000600']"),
        (datetime(2024, 1, 2, tzinfo=UTC), "2024-01-02 00:00:00+00:00", "['2024-01-02 00:00:00+00:00']"),
        (time(3, 4), "03:04:00", "['03:04:00']"),
        (timedelta(days=1, hours=2), "1 day, 2:00:00", "['1 day, 2:00:00']"),
        (Decimal("3.50"), "3.50", "[3.50]"),
        ({"at": [date(2024, 1, 2)]}, "{'at': ['2024-01-02']}", "[{'at': ['2024-01-02']}]"),
    ],
)
def test_dates_and_decimals_print_as_their_text(value: Any, alone: str, listed: str) -> None:
    assert written("v", v=value) == alone
    assert {written(expression, v=value) for expression in ("[v]", "'%s' % [v]", "'%r' % [v]", "'{}'.format([v])")} == {
        listed
    }


def test_dates_keep_their_fields_and_formats() -> None:
    row = {"day": date(2024, 1, 2), "price": Decimal("3.50")}
    assert written("'{:%d %B}'.format(day) ~ ' ' ~ day.year ~ ' %.1f' % price", **row) == "02 January 2024 3.5"


PRINTED = ["v", "[v]", "v ~ 'x'", "'%s' % v", "'%s' % [v]", "v | upper"]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        *((expression, b"\xff\xd8 is no text") for expression in PRINTED),
        *((expression, Unusable("12 bytes")) for expression in (*PRINTED, "v == 1", "'x' if v else 'y'", "v | length")),
    ],
)
def test_bytes_are_a_reject_where_they_are_used(expression: str, value: Any) -> None:
    with pytest.raises(RenderError, match="bytes") as raised:
        written(expression, v=value)
    assert raised.value.reason == "unusable_value"


def test_bytes_that_are_not_used_are_no_reject() -> None:
    row = {"image": {"bytes": Unusable("an image"), "path": "a.png"}, "raw": Unusable("an image")}
    assert written("image.path ~ ('' if raw is none else '!')", **row) == "a.png!"


@pytest.mark.parametrize("expression", ["'%c' % 55296", "'{:c}'.format(55296)", "'%c' | format(57343)"])
def test_half_a_character_is_a_reject(expression: str) -> None:
    with pytest.raises(RenderError, match="half of a character"):
        written(expression)


@pytest.mark.parametrize(
    ("index", "found"), [(0.0, "no"), (1.0, "yes"), (Decimal("1.0"), "yes"), (1, "yes"), (True, "yes")]
)
def test_a_whole_fraction_is_an_index(index: Any, found: str) -> None:
    assert written("['no', 'yes'][v] ~ ('no', 'yes')[v] ~ 'ny'[v]", v=index) == found * 2 + found[0]


@pytest.mark.parametrize("index", [0.5, float("nan"), float("inf"), Decimal("0.5"), Decimal("Infinity")])
def test_another_fraction_is_no_index(index: Any) -> None:
    with pytest.raises(RenderError, match="is a fraction and cannot index a list .* convert it in the template"):
        written("['no', 'yes'][v]", v=index)
