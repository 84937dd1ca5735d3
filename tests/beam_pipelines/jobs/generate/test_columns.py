"""The columns that generate reads, and the rows that it can generate for."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.jobs.generate.columns import instruction_columns, text_roles, usable_rows
from schemas.errors import CappyError
from schemas.ids import digest

TEXT, TEXTS = pa.string(), pa.list_(pa.string())
SCHEMA = pa.schema([("instruction", TEXT), ("instruction_id", TEXT), ("dataset", TEXT), ("references", TEXTS)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"instruction": None}, "--instruction-column instruction: there is no such column; there are instruction_id"),
        (
            {"instruction": pa.float64()},
            "instruction: is double, not text; --text-columns instruction reads it as text",
        ),
        (
            {"instruction_id": pa.float64()},
            "'instruction_id' is double and must be text; --text-columns instruction_id",
        ),
        ({"dataset": TEXTS}, "column 'dataset' is list<item: string> and must be text; convert"),
        ({"references": pa.float32()}, "column 'references' is float and must be text or a list of texts"),
        (
            {"references": pa.list_(pa.float64())},
            "column 'references' is list<item: double> and must be text or a list",
        ),
        (
            {"template_id": pa.struct([("a", TEXT)])},
            "is struct<a: string> and must be text; convert, rename",
        ),
    ],
)
def test_columns_that_cannot_be(changes: dict[str, pa.DataType | None], message: str) -> None:
    kinds = {**{field.name: field.type for field in SCHEMA}, "template_id": TEXT, **changes}
    schema = pa.schema([(name, kind) for name, kind in kinds.items() if kind is not None])
    with pytest.raises(CappyError) as caught:
        instruction_columns(schema, "instruction", per_template=True)
    assert message in str(caught.value)


def test_only_columns_of_use_are_read() -> None:
    found = pa.schema([*SCHEMA, ("template_id", pa.int64()), ("prompt", pa.large_string()), ("split", pa.null())])
    assert instruction_columns(found, "instruction", per_template=False).names == SCHEMA.names
    assert instruction_columns(found, "prompt", per_template=False).names == ["prompt", *SCHEMA.names[1:]]


@pytest.mark.parametrize(
    ("kind", "read"),
    [(TEXT, TEXT), (pa.null(), TEXT), (pa.large_string(), TEXT), (TEXTS, TEXTS), (pa.list_(pa.null()), TEXTS)],
)
def test_references_are_text_or_lists_of_it(kind: pa.DataType, read: pa.DataType) -> None:
    columns = instruction_columns(
        pa.schema([("instruction", TEXT), ("references", kind)]), "instruction", per_template=True
    )
    assert columns == pa.schema([("instruction", TEXT), ("references", read)])


def test_the_roles_name_each_column_once() -> None:
    roles = text_roles("dataset")
    assert len(set(roles)) == len(roles) and {"dataset", "references", "template_id"} <= set(roles)


@pytest.mark.parametrize(
    ("references", "kind", "found"),
    [
        ("yes", TEXT, ["yes"]),
        ("", TEXT, None),
        (None, TEXT, None),
        (None, TEXTS, None),
        ([], TEXTS, []),
        ([""], TEXTS, [""]),
    ],
)
def test_a_text_is_the_only_reference(references: Any, kind: pa.DataType, found: Any) -> None:
    schema = pa.schema([("instruction", TEXT), ("references", kind)])
    rows = pa.RecordBatch.from_pylist([{"instruction": "a", "references": references}], schema)
    (usable,), unusable = usable_rows(rows, "instruction")
    assert not unusable
    assert usable[0] == (0, digest("a"), None, "a", found)


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "instruction": st.none() | st.text(max_size=3),
            "instruction_id": st.none() | st.text(max_size=3),
            "dataset": st.none() | st.text(max_size=3),
            "references": st.none() | st.lists(st.none() | st.text(max_size=3), max_size=2),
        }
    ),
    max_size=5,
)


@given(ROWS)
def test_every_row_is_usable_or_has_a_reason(rows: list[dict[str, Any]]) -> None:
    usable, unusable = usable_rows(pa.RecordBatch.from_pylist(rows, SCHEMA), "instruction")
    assert sorted([row.offset for row, _ in usable] + [index for index, _ in unusable]) == list(range(len(rows)))
    for row, _ in usable:
        assert row[1:] == tuple(
            rows[row.offset][name] for name in ("instruction_id", "dataset", "instruction", "references")
        )
    for index, reason in unusable:
        assert None in (*rows[index].values(), *(rows[index]["references"] or ())) and reason.startswith("null ")
