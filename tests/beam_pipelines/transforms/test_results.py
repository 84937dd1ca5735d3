import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.io.formats.base import BadRow, InputFile
from beam_pipelines.io.output import OutputDir
from beam_pipelines.io.units import Unit
from beam_pipelines.transforms.results import Result, reject_row, unreadable_rows, write_rejects, write_result
from schemas.records import reject
from schemas.stats import Stats
from tests.conftest import rows_of


def a_unit(url: str) -> Unit:
    file = InputFile(0, 0, url, "sub/f", 1, "", 10, None)
    rows = pa.record_batch({"a": [1]})
    return Unit(file, 0, 0, np.array([12]), rows, [BadRow(7, "broken", "it is", "{")])


def rejected(name: str, rejects: list[dict[str, Any]]) -> Result:
    return Result(name, [], pa.schema([]), rejects, Stats())


def test_a_reject_names_the_place_of_its_row() -> None:
    row = reject_row(a_unit("f.jsonl"), 12, origin="d:train", stage="s", reason="r", detail="d", excerpt=None)
    assert (row["source"], row["position"]) == ("d:train/sub/f", "@12")
    (row,) = unreadable_rows(a_unit("f.parquet"))
    assert row == reject(stage="read", reason="broken", source="sub/f", position="#7", detail="it is", excerpt="{")


Place = tuple[str, int, str, str]
PLACES = st.tuples(st.sampled_from("ab"), st.integers(0, 200), st.sampled_from("rs"), st.sampled_from("xy"))


@given(st.lists(PLACES, unique=True, min_size=1), st.randoms())
def test_rejects_are_written_by_place_whatever_their_order(places: list[Place], order: random.Random) -> None:
    def rows(found: list[Place]) -> list[dict[str, Any]]:
        return [
            reject(stage="s", reason=reason, source=source, position=f"#{number}", detail=detail, excerpt=None)
            for source, number, reason, detail in found
        ]

    output = OutputDir("memory://rejects")
    ordered = write_rejects(rejected("x", rows(sorted(places))), output)
    order.shuffle(places)
    assert write_rejects(rejected("x", rows(places)), output) == ordered, "the entry has the digest of the bytes"


def test_rejects_are_ordered_by_number_and_not_by_its_text(tmp_path: Path) -> None:
    rows = [reject(stage="s", reason="r", source="f", position=p, detail="", excerpt=None) for p in ("#10", "#9")]
    stats = write_rejects(rejected("shard-0", rows), OutputDir(str(tmp_path)))
    assert [row["position"] for row in rows_of(tmp_path / "rejects")] == ["#9", "#10"]
    assert stats.under("rejects") == {"s": {"r": 2}}
    assert write_rejects(rejected("none", []), OutputDir(str(tmp_path))).files == set()


def test_a_result_is_written_with_its_rejects_and_counted(tmp_path: Path) -> None:
    rows = pa.record_batch({"a": [1, 2]})
    bad = reject(stage="s", reason="r", source="f", position="#0", detail="", excerpt=None)
    result = Result("part-0", [rows], rows.schema, [bad], Stats())
    stats = write_result(result, OutputDir(str(tmp_path)), "pairs")
    assert {(entry.path, entry.rows) for entry in stats.files} == {
        ("pairs/part-0.parquet", 2),
        ("rejects/part-0.parquet", 1),
    }
    assert result.stats == Stats(), "the result itself is left as it was"
