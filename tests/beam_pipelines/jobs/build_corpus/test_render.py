from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.io.units import list_reads, read_units
from beam_pipelines.jobs.build_corpus import BuildCorpusConfig
from beam_pipelines.jobs.build_corpus.job import plan
from beam_pipelines.jobs.build_corpus.render import UnitRenderer, threshold
from beam_pipelines.runners.options import DRY_RUN
from beam_pipelines.templates.compile import SENTINEL
from beam_pipelines.transforms.results import Result
from schemas.ids import instruction_ids
from tests.conftest import template, write_templates


@given(st.integers(1, 10**7), st.integers(1, 40), st.integers(1, 10**7))
def test_threshold_keeps_the_share_of_the_cap(cap: int, templates: int, rows: int) -> None:
    keep = threshold(cap, templates, rows)
    if rows <= cap:
        assert keep == 2**64
    else:
        assert abs(rows * keep / 2**64 - cap // templates) < 1
    assert threshold(None, templates, rows) == 2**64


def render(folder: Path, rows: list[dict[str, Any]], templates: list[dict[str, Any]], **columns: pa.DataType) -> Result:
    """Render one unit of one dataset."""
    schema = pa.schema(list(columns.items()))
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "f.parquet")
    write_templates(folder, "d", templates)
    (folder / "m.yaml").write_text("templates: .\ndatasets: [{name: d, split: train, paths: f.parquet}]\n")
    (planned,) = plan(BuildCorpusConfig(mixture=str(folder / "m.yaml"), output=str(folder / "out")), DRY_RUN).datasets
    (file,) = planned.input.files
    (unit,) = [unit for read in list_reads(file, planned.read) for unit in read_units(read, planned.read)]
    return UnitRenderer(planned.render).render(unit)


def test_rows_in_order_each_under_every_template(tmp_path: Path) -> None:
    templates = [template("a", "first", "{{ q }}?|||{{ r }}"), template("b", "second", "{{ q }}!|||{{ r }}")]
    rendered = render(
        tmp_path, [{"q": f"q{i}", "r": f"r{i}"} for i in range(3)], templates, q=pa.string(), r=pa.string()
    )
    (chunk,) = rendered.rows
    assert chunk["instruction"].to_pylist() == ["q0?", "q0!", "q1?", "q1!", "q2?", "q2!"]
    assert chunk["references"].to_pylist() == [["r0"], ["r0"], ["r1"], ["r1"], ["r2"], ["r2"]]
    assert chunk["example_id"].to_pylist()[::2] == ["f.parquet#0", "f.parquet#1", "f.parquet#2"]
    assert chunk["instruction_id"][3].as_py() == instruction_ids("d", None, "train", "b")("f.parquet#1")
    assert rendered.name == "part-00000-00000-00000"


@pytest.mark.parametrize(
    ("label", "reason"), [(-1, "missing_label"), (None, "missing_label"), (7, "empty_target"), (1, None)]
)
def test_labels_that_point_nowhere_are_rejects(tmp_path: Path, label: int | None, reason: str | None) -> None:
    templates = [template("a", "t", "{{ q }}|||{{ answer_choices[label] }}", "no ||| yes")]
    rendered = render(tmp_path, [{"q": "q", "label": label}], templates, q=pa.string(), label=pa.int64())
    assert [row["reason"] for row in rendered.rejects] == ([reason] if reason else [])
    assert rendered.stats.under("templates", "d:train", "a")["rejected"] == bool(reason)
    if reason:
        assert rendered.rejects[0]["source"] == "d:train/f.parquet"
        assert rendered.rejects[0]["position"] == "#0"
        assert '"q": "q"' in rendered.rejects[0]["excerpt"]


def test_labels_are_checked_only_where_a_template_uses_them(tmp_path: Path) -> None:
    templates = [template("a", "t", "{{ q }}|||{{ r }}")]
    rows = [{"q": "q", "r": "r", "label": -1}]
    rendered = render(tmp_path, rows, templates, q=pa.string(), r=pa.string(), label=pa.int64())
    assert rendered.rejects == []


def test_rows_that_hold_the_sentinel_are_rejects(tmp_path: Path) -> None:
    templates = [template("a", "t", "{{ l | join(' ') }}|||x")]
    rows = [{"l": ["fine |||"]}, {"l": ["ok", f"not{SENTINEL}ok"]}, {"l": ["fine"]}]
    rendered = render(tmp_path, rows, templates, l=pa.list_(pa.string()))
    assert rendered.rows[0]["instruction"].to_pylist() == ["fine |||", "fine"]
    assert [(row["reason"], row["position"]) for row in rendered.rejects] == [("reserved_character", "#1")]


def test_a_template_cannot_change_the_row_for_the_next(tmp_path: Path) -> None:
    first = template("a", "t", "{% set _ = l.append('more') %}{{ l | join(' ') }}|||x")
    templates = [first, template("b", "u", "{{ l | join(' ') }}|||x")]
    rendered = render(tmp_path, [{"l": ["one"]}], templates, l=pa.list_(pa.string()))
    assert rendered.rows[0]["instruction"].to_pylist() == ["one more", "one"]
