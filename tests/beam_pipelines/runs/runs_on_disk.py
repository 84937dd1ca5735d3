"""Finished runs made by hand, for tests of what reads them."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.ids import digest_of


def finished_run(folder: Path, tables: Sequence[pa.Table], *, job: str = "score", below: str = "rows") -> Path:
    """Write the tables as the files of a finished run of `job`, in the folder `below`; return `folder`."""
    entries = []
    (folder / below).mkdir(parents=True, exist_ok=True)
    for number, table in enumerate(tables):
        path = Path(below) / f"part-{number:05d}-00000-00000.parquet"
        pq.write_table(table, folder / path)
        data = (folder / path).read_bytes()
        entries.append({"path": str(path), "rows": table.num_rows, "bytes": len(data), "digest": digest_of(data)})
    (folder / "run.json").write_text("{}")
    (folder / "manifest.json").write_text(json.dumps({"job": job, "files": entries[::-1]}))
    return folder
