"""Files that are added to a run: they keep to the numbers, the columns and the types of those before."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.io.columns import UnreadableFile
from beam_pipelines.io.inputs import Input, Known, open_input
from beam_pipelines.io.resolve import NO_ROLES, Roles
from schemas.carried import exact_field

FIXED = pa.list_(pa.float32(), 2)
DICTIONARY = pa.dictionary(pa.int32(), pa.string())
Content = pa.Table | Sequence[dict[str, Any]] | str


def write(path: Path, content: Content) -> None:
    """Write a table as Parquet, rows as JSON Lines, and text as CSV."""
    if isinstance(content, pa.Table):
        pq.write_table(content, path.with_suffix(".parquet"))
    elif isinstance(content, str):
        path.with_suffix(".csv").write_text(content)
    else:
        path.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))


def grown(folder: Path, first: Content, later: Content, roles: Roles = NO_ROLES) -> tuple[Input, Input]:
    """Return the input of a run that is begun with one file, and of the same run with another file."""
    write(folder / "b", first)
    before = open_input([f"{folder}/*"], {}, roles=roles)
    write(folder / "a", later)
    return before, open_input([f"{folder}/*"], {}, roles=roles, known=Known((before.files[0].name,), 1))


def column(*values: Any, kind: pa.DataType | None = None) -> pa.Table:
    return pa.table({"x": pa.array(list(values), kind)})


@pytest.mark.parametrize("known", [("m", "z"), ("z", "m"), ("m", "gone", "z")])
def test_numbers_stay_and_new_files_follow_by_name(tmp_path: Path, known: tuple[str, ...]) -> None:
    for name in "mz":
        write(tmp_path / name, column(1))
    for name in "na":
        write(tmp_path / name, column(2))
    found = open_input([f"{tmp_path}/*"], {}, known=Known(tuple(f"{name}.parquet" for name in known), 1), first=3)
    assert [file.number for file in found.files] == [3, 4, 5, 6]
    assert [file.name[0] for file in found.files] == [*(name for name in known if name != "gone"), "a", "n"]


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (column(1), column(2)),
        (column(1), column(2, kind=pa.int32())),
        (column(1), pa.table({"y": pa.nulls(1)}).select([])),
        (column(1), column(None, kind=pa.null())),
        (column("a"), column("b").cast(pa.schema([("x", pa.string())]))),
        (column("a", kind=pa.large_string()), column("b")),
        (column("a", kind=DICTIONARY), column("b", kind=pa.dictionary(pa.int8(), pa.string()))),
        (column([1.0, 2.0], kind=FIXED), column([3.0, 4.0], kind=FIXED)),
        (column({"a": 1, "b": "x"}), column({"a": 2})),
        ("x\n1\n", "x\n2\n"),
        ("x\n1.5\n", "x\n2\n"),
        ("x\na\n", "x\n2\n"),
        ("x\n\n", "x\n2\n"),
        ("x\na\n", 'x\n"[1, 2]"\n'),
        ([{"x": "a"}], [{"x": 1}, {"x": 2.5}]),
        ([{"x": "a"}, {"x": [1]}], [{"x": {"b": 1}}]),
        ([{"x": None}], [{"x": {"b": 1}}]),
        ([{"x": {"a": 1, "b": 1}}], [{"x": {"b": 2}}]),
        ([{"x": 1.5}], [{"x": 2}]),
    ],
)  # fmt: skip
def test_what_fits_changes_nothing(tmp_path: Path, first: Content, later: Content) -> None:
    before, after = grown(tmp_path, first, later)
    after.check_usable()
    assert after.schema.equals(before.schema, check_metadata=True)
    assert after.as_written == before.as_written


@pytest.mark.parametrize(
    ("first", "later", "words"),
    [
        (column(1), column(2.5), "column 'x' is double, which does not fit int64"),
        (column(1, kind=pa.int32()), column(2), "column 'x' is int64, which does not fit int32"),
        (column("a"), column("b", kind=pa.large_string()), "is large_string, which does not fit string"),
        (column(1), column("b"), "column 'x' is string, which does not fit int64"),
        (column(None, kind=pa.null()), column("b"), "which have no value of it; drop it"),
        (column({"a": 1}), column({"a": 2, "b": 3}), "does not fit struct<a: int64>"),
        (column([1.0, 2.0], kind=FIXED), column([3.0], kind=pa.list_(pa.float32())), "does not fit fixed_size_list"),
        (column("a", kind=DICTIONARY), column("b", kind=pa.large_string()), "does not fit"),
        ("x\n1\n", "x\n2.5\n", "column 'x' is double, which does not fit int64"),
        ("x\n1\n", "x\nb\n", "column 'x' is string, which does not fit int64"),
        ("x\n1.5\n", "x\n3.50\n", "column 'x' is text, and values of other types, which does not fit double"),
        ([{"x": "a"}], [{"x": [1]}], "column 'x' is list<item: int64>, which does not fit string"),
        ([{"x": "a"}], [{"x": "b"}, {"x": [1]}], "is text, and values of other types, which does not fit string"),
        ([{"x": 1}], [{"x": "b"}], "column 'x' is string, which does not fit int64"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(tmp_path: Path, first: Content, later: Content, words: str) -> None:
    _, after = grown(tmp_path, first, later)
    with pytest.raises(UnreadableFile, match=r"/a\.\w+: ") as caught:
        after.check_usable()
    assert words in str(caught.value)
    assert "or give the file a run of its own, in another folder" in str(caught.value)


def test_a_new_column_stops_a_job_that_reads_it(tmp_path: Path) -> None:
    before, after = grown(tmp_path, column(1), pa.table({"x": [2], "y": ["new"]}))
    assert after.schema == before.schema
    with pytest.raises(UnreadableFile, match=r"/a\.parquet: has a column 'y' that the first files of the run lack"):
        after.check_usable()
    after.check_usable(["x"])


@pytest.mark.parametrize("kind", [FIXED, pa.struct([("v", FIXED)])])
def test_a_column_that_cannot_be_null_may_not_be_lacking(tmp_path: Path, kind: pa.DataType) -> None:
    value = [1.0, 2.0] if kind == FIXED else {"v": [1.0, 2.0]}
    first = pa.table({"x": pa.array([value], kind), "y": [1]})
    _, after = grown(tmp_path, first, pa.table({"y": [2]}))
    with pytest.raises(UnreadableFile, match=r"/a\.parquet: lacks the column 'x', and Parquet cannot hold null"):
        after.check_usable()


def test_dictionaries_and_extensions_keep_their_types(tmp_path: Path) -> None:
    uuids = pa.array([b"0" * 16], pa.uuid()) if hasattr(pa, "uuid") else pa.array([b"0"])
    first = pa.table({"d": pa.array(["a"], pa.dictionary(pa.int8(), pa.string())), "u": uuids, "y": [1]})
    before, after = grown(tmp_path, first, pa.table({"y": [2]}))
    after.check_usable()
    assert after.schema.equals(before.schema, check_metadata=True)
    assert [exact_field(field).type for field in after.schema] == list(pq.read_schema(tmp_path / "b.parquet").types)


def test_roles_hold_for_later_files(tmp_path: Path) -> None:
    roles = Roles(text=("x",))
    before, after = grown(tmp_path, [{"x": "a"}], [{"x": 1}], roles)
    after.check_usable()
    assert before.schema == after.schema == pa.schema([("x", pa.string())])
    asked = Roles(text_columns=("x",))
    (tmp_path / "text").mkdir()
    before, after = grown(tmp_path / "text", [{"x": 1}], [{"x": {"b": [1]}}], asked)
    after.check_usable()
    assert before.as_written == after.as_written == {"x": "text"}


@given(st.permutations("abcdef"), st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_files_of_equal_columns_give_one_schema_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, order: list[str], steps: list[int]
) -> None:
    """Files come in any order and in any steps; each keeps the number that it got when it came."""
    folder, known, numbers = tmp_path_factory.mktemp("in"), Known(), {}
    for count in steps:
        new, order = order[:count], order[count:]
        for name in new:
            (folder / f"{name}.csv.gz").write_bytes(gzip.compress(f"x,y\n{name},1\n".encode()))
        found = open_input([f"{folder}/*"], {}, known=known)
        found.check_usable()
        names = tuple(file.name for file in found.files)
        known = Known(names, known.initial or len(names))
        assert found.schema == pa.schema([("x", pa.string()), ("y", pa.int64())])
        assert {name: number for name, number in numbers.items() if names[number] != name} == {}
        numbers = {file.name: file.number for file in found.files}
        assert list(names[-len(new) or len(names) :]) == sorted(f"{name}.csv.gz" for name in new)
        if not order:
            break
