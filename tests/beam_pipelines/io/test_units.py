"""Units as elements of a PCollection."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam import coders

from beam_pipelines.io.units import Unit
from tests.beam_pipelines.io.reading import units


def test_a_unit_is_encoded_small(tmp_path: Path) -> None:
    """As Beam encodes what passes between two steps that it does not fuse."""
    pq.write_table(pa.table({"t": [f"{i}" * 200 for i in range(1000)]}), tmp_path / "f.parquet")
    coder = coders.registry.get_coder(Unit)
    for unit in units(tmp_path / "f.parquet", 10):
        data = coder.encode(unit)
        assert len(data) < 2_000
        assert coder.decode(data).rows.equals(unit.rows)
