"""How a dataset is read: the columns that its templates use."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_pipelines.jobs.build_corpus import BuildCorpusConfig
from beam_pipelines.jobs.build_corpus.job import CorpusPlan, fingerprint_inputs, plan
from beam_pipelines.jobs.build_corpus.preview import preview
from beam_pipelines.runners.options import DRY_RUN
from beam_pipelines.templates.compile import Rendered
from schemas.errors import CappyError
from tests.conftest import template, write_templates

NAMES = ("zeta", "text", "omega", "alpha", "label", "kappa")
TEMPLATES = """
dataset: things
templates:
  a: !Template
    id: a
    name: all columns
    jinja: "{{ alpha }} {{ kappa }} {{ label }} {{ omega }} {{ text }} ||| {{ zeta }}"
"""


def test_columns_are_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    # The excerpt of a reject lists them, so their order must not depend on the hashes of a process.
    templates = tmp_path / "templates" / "things"
    templates.mkdir(parents=True)
    (templates / "templates.yaml").write_text(TEMPLATES)
    pq.write_table(pa.table({name: ["1"] for name in (*NAMES, "unused")}), tmp_path / "things.parquet")
    mixture = tmp_path / "mixture.yaml"
    mixture.write_text("templates: templates\ndatasets:\n- name: things\n  split: train\n  paths: things.parquet\n")
    planned = plan(BuildCorpusConfig(mixture=str(mixture), output=str(tmp_path / "out")), DRY_RUN)
    assert tuple(planned.datasets[0].read.schema.names) == NAMES


def planned(folder: Path, jinja: str, rows: str, entry: str = "", **options: Any) -> CorpusPlan:
    """Plan a mixture of one CSV file under one template."""
    (folder / "d.csv").write_text(rows, encoding="cp1252")
    write_templates(folder, "d", [template("t", "reads", jinja)])
    (folder / "m.yaml").write_text(f"templates: .\ndatasets: [{{name: d, paths: d.csv, {entry}}}]\n")
    return plan(BuildCorpusConfig(mixture=str(folder / "m.yaml"), output=str(folder / "out"), **options), DRY_RUN)


def test_two_columns_of_one_variable_are_refused_only_where_it_is_read(tmp_path: Path) -> None:
    rows = "a-b,a_b,c,d\n1,2,3,4\n"
    assert planned(tmp_path, "{{ c }} ||| {{ d }}", rows).datasets[0].read.schema.names == ["c", "d"]
    with pytest.raises(CappyError, match="template 'reads' uses 'a_b', which two columns become: 'a-b' and 'a_b'"):
        planned(tmp_path, "{{ a_b }} ||| {{ d }}", rows)
    renamed = planned(tmp_path, "{{ a_b }} {{ other }} ||| {{ d }}", rows, "rename: {a-b: other}")
    assert renamed.datasets[0].read.schema.names == ["a-b", "a_b", "d"]
    with pytest.raises(CappyError, match="uses 'c', which two columns become: 'a-b' and 'c'"):
        planned(tmp_path, "{{ c }} ||| {{ d }}", rows, "rename: {a-b: c}")


def test_columns_named_like_functions_are_read_where_they_are_values(tmp_path: Path) -> None:
    rows = "range,zip,answer_choices\n1,2,3\n"
    loops = "{% for i in range(3) %}{{ i }}{% endfor %} ||| {{ answer_choices }}"
    assert planned(tmp_path, f"{{{{ zip }}}} {loops}", rows).datasets[0].read.schema.names == ["zip", "answer_choices"]
    with pytest.raises(
        CappyError, match="template 'reads' uses 'namespace'; the columns are range, zip, answer_choices"
    ):
        planned(tmp_path, "{{ namespace }} ||| {{ range }}", rows)


def test_a_column_that_cannot_be_read_stops_only_templates_that_use_it(tmp_path: Path) -> None:
    write_templates(
        tmp_path, "d", [template("t", "reads", "{{ q }} ||| {{ r }}"), template("u", "other", "{{ x }} ||| y")]
    )
    for name, kind in (("a", pa.string()), ("b", pa.struct([("y", pa.int64())]))):
        table = pa.table({"q": ["q"], "r": ["r"], "x": pa.nulls(1, kind)})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    mixture = tmp_path / "m.yaml"
    config = BuildCorpusConfig(mixture=str(mixture), output=str(tmp_path / "out"))
    mixture.write_text("templates: .\ndatasets: [{name: d, paths: '*.parquet', templates: [reads]}]\n")
    assert plan(config, DRY_RUN).datasets[0].read.schema.names == ["q", "r"]
    mixture.write_text("templates: .\ndatasets: [{name: d, paths: '*.parquet'}]\n")
    with pytest.raises(CappyError, match="dataset d: template 'other' uses 'x': column 'x' is struct.* in .*b.parquet"):
        plan(config, DRY_RUN)


def test_a_dataset_says_how_its_files_are_read(tmp_path: Path) -> None:
    rows = "q;n\ncaf\xe9;3.50\n"
    entry = "csv_delimiter: ;, encoding: cp1252, text_columns: [n]"
    found = planned(tmp_path, "{{ q }} ||| {{ n }}", rows, entry, csv_delimiter="|", text_columns=("q",))
    (dataset,) = found.datasets
    assert dataset.render.as_written == {"n": "text"}
    assert preview(dataset, examples=1).templates[0].examples == [("d.csv#0", Rendered("café", ["3.50"], None))]
    (hashed,) = fingerprint_inputs(found)["datasets"]
    assert hashed["reading"] == {"csv_delimiter": ";", "encoding": "cp1252", "text_columns": ["n"]}
    by_flags = planned(tmp_path, "{{ q }} ||| {{ n }}", rows, csv_delimiter=";", encoding="cp1252")
    assert by_flags.datasets[0].render.as_written == {"n": "cell"}
    assert "reading" not in fingerprint_inputs(by_flags)["datasets"][0]


@pytest.mark.parametrize(
    ("entry", "options", "message"),
    [
        ("text_columns: [x]", {}, "dataset d: `text_columns` names 'x'; the columns are q, n"),
        ("", {"text_columns": ("q", "x")}, "--text-columns x: no dataset of .*m.yaml has such a column"),
        ("rename: {x: y}", {}, "dataset d: `rename` names 'x'; the columns are q, n"),
    ],
)
def test_unknown_columns_are_refused(tmp_path: Path, entry: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(CappyError, match=message):
        planned(tmp_path, "{{ q }} ||| {{ n }}", "q,n\n1,2\n", entry, **options)
