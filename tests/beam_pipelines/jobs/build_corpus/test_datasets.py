"""How a dataset is read: the columns that its templates use."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from beam_pipelines.jobs.build_corpus import BuildCorpusConfig
from beam_pipelines.jobs.build_corpus.job import plan
from beam_pipelines.runners.options import DRY_RUN

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
