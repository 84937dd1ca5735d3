from typing import Any

import pyarrow as pa
import pytest

from beam_pipelines.io.formats.base import AsWritten
from beam_pipelines.io.resolve import NO_ROLES, Found, Roles, Unresolved, resolve


def column(kind: pa.DataType, written: AsWritten | None = None, mostly: pa.DataType | None = None) -> Found:
    return Found(f"{kind}.file", pa.field("c", kind), written, mostly)


def resolved(roles: Roles, *found: Found) -> tuple[pa.DataType, AsWritten | None]:
    field, how = resolve("c", found, roles)
    return field.type, how


INT, FLOAT, TEXT, BOOL, NULL = pa.int64(), pa.float64(), pa.string(), pa.bool_(), pa.null()
AS_TEXT, AS_NUMBERS = Roles(text=["c"]), Roles(numbers=["c"])
TEMPLATES = Roles(templates=True)


@pytest.mark.parametrize("kind", [INT, pa.uint8(), BOOL, TEXT, pa.large_string(), pa.binary()])
@pytest.mark.parametrize("written", [None, "json", "cell"])
def test_text_may_be_whole_numbers_booleans_and_bytes(kind: pa.DataType, written: AsWritten | None) -> None:
    assert resolved(AS_TEXT, column(kind, written)) == (TEXT, None)
    assert resolved(AS_TEXT, column(pa.list_(kind), written)) == (pa.list_(TEXT), None)


def test_fractions_are_text_where_the_file_has_their_digits() -> None:
    assert resolved(AS_TEXT, column(FLOAT, "json")) == (TEXT, None)
    assert resolved(AS_TEXT, column(FLOAT, "cell")) == (TEXT, None)
    assert resolved(AS_TEXT, column(FLOAT)) == (FLOAT, None)  # the job refuses it by its type
    assert resolved(AS_TEXT, column(INT), column(FLOAT, "json")) == (TEXT, None)


def test_text_beside_lists_of_text_is_left_to_the_job() -> None:
    with pytest.raises(Unresolved, match="'c' is list<.*> in .* and string in"):
        resolve("c", [column(TEXT), column(pa.list_(TEXT))], AS_TEXT)


def test_texts_in_lists_may_be_of_several_kinds() -> None:
    mixed = column(TEXT, "json", pa.list_(INT))
    assert resolved(AS_TEXT, mixed) == (pa.list_(TEXT), None)
    assert resolved(NO_ROLES, mixed) == (TEXT, "text")


def test_numbers_may_be_cells_and_odd_rows_do_not_count() -> None:
    assert resolved(AS_NUMBERS, column(TEXT, "cell", FLOAT)) == (FLOAT, None)
    assert resolved(AS_NUMBERS, column(TEXT, "cell", INT), column(FLOAT, "cell")) == (FLOAT, None)
    assert resolved(AS_NUMBERS, column(TEXT, "json", INT)) == (FLOAT, None)
    assert resolved(AS_NUMBERS, column(TEXT, "cell", BOOL)) == (BOOL, None)
    assert resolved(AS_NUMBERS, column(TEXT, "json", pa.list_(INT))) == (pa.list_(FLOAT), None)
    assert resolved(AS_NUMBERS, column(TEXT, "cell")) == (TEXT, None)
    assert resolved(AS_NUMBERS, column(INT)) == (INT, None)
    assert resolved(AS_NUMBERS, column(pa.decimal128(3, 2))) == (FLOAT, None)
    assert resolved(AS_NUMBERS, column(pa.list_(pa.decimal128(3, 2)))) == (pa.list_(FLOAT), None)
    assert resolved(AS_NUMBERS, column(TEXT)) == (TEXT, None)  # the job refuses it by its type


def test_templates_see_values_as_the_file_has_them() -> None:
    assert resolved(TEMPLATES, column(INT, "json")) == (TEXT, "json")
    assert resolved(TEMPLATES, column(pa.list_(TEXT), "json")) == (TEXT, "json")
    assert resolved(TEMPLATES, column(TEXT, "json", INT)) == (TEXT, "json")
    assert resolved(TEMPLATES, column(TEXT, "json")) == (TEXT, None)
    assert resolved(TEMPLATES, column(INT, "cell")) == (TEXT, "cell")
    assert resolved(TEMPLATES, column(TEXT, "cell", FLOAT)) == (TEXT, "cell")
    assert resolved(TEMPLATES, column(TEXT, "cell")) == (TEXT, None)
    assert resolved(TEMPLATES, column(INT)) == (INT, None)
    assert resolved(TEMPLATES, column(INT), column(INT, "json")) == (INT, None)


def test_text_columns_are_text_whatever_they_hold() -> None:
    chosen = Roles(text_columns=["c"])
    assert resolved(chosen, column(pa.struct([("a", INT)]), "json")) == (TEXT, "text")
    assert resolved(chosen, column(FLOAT)) == (TEXT, "text")
    assert resolved(chosen, column(pa.list_(FLOAT))) == (pa.list_(TEXT), "text")
    assert resolved(chosen, column(pa.list_(FLOAT), "json")) == (TEXT, "text")
    with pytest.raises(Unresolved, match=r"--text-columns c: is list<.*> in list<.*\.file, which has no form as text"):
        resolve("c", [column(pa.list_(pa.struct([("a", INT)])))], chosen)


def test_carried_columns_keep_their_type() -> None:
    for kind in (INT, pa.large_string(), pa.timestamp("ns"), pa.list_(FLOAT, 3), pa.uuid()):
        assert resolved(NO_ROLES, column(kind)) == (kind, None)
    assert resolved(NO_ROLES, column(INT, "json"), column(FLOAT, "json")) == (FLOAT, None)
    assert resolved(NO_ROLES, column(INT, "json"), column(TEXT, "json")) == (TEXT, "text")
    assert resolved(NO_ROLES, column(TEXT, "json", INT)) == (TEXT, "text")
    assert resolved(NO_ROLES, column(NULL, "cell")) == (TEXT, None)
    assert resolved(NO_ROLES, column(NULL, "json")) == (TEXT, "text")  # a later row may have any value
    assert resolved(NO_ROLES, column(NULL, "json"), column(INT, "json")) == (INT, None)


def test_types_that_no_type_holds_are_refused_with_both_files() -> None:
    with pytest.raises(Unresolved, match=r"'c' is string in string\.file and int64 in int64\.file.*--text-columns c"):
        resolve("c", [column(INT), column(TEXT)], NO_ROLES)


def test_a_column_without_values_has_the_type_of_its_role() -> None:
    assert resolved(AS_TEXT, column(NULL), column(NULL, "json")) == (TEXT, None)
    assert resolved(AS_NUMBERS, column(NULL)) == (FLOAT, None)


@pytest.mark.parametrize("role", [{"text": ["c"]}, {"numbers": ["c"]}, {"templates": True}, {}])
def test_a_column_without_values_takes_the_type_of_the_others(role: dict[str, Any]) -> None:
    kind, _ = resolved(Roles(**role), column(NULL), column(INT))
    assert kind == (TEXT if role.get("text") else INT)
