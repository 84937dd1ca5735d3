"""Scores found by position: those of the right rows, from the parts that hold them, and no other part is read."""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.io.formats.base import InputFile
from beam_pipelines.io.output import OutputDir
from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.score import by_position
from beam_pipelines.jobs.score.by_position import ScoredColumn
from beam_pipelines.jobs.score.scoring import POSITION, ScoreColumns
from schemas.errors import CappyError
from schemas.ids import digest_of
from schemas.manifest import to_json

COLUMNS = ScoreColumns("instruction", "response", "score")
NAMES = ["b.parquet", "a.parquet"]


def part(positions: Sequence[int]) -> pa.RecordBatch:
    """Scores that are the positions."""
    arrays = [
        pa.array(positions, pa.int64()),
        pa.array(positions, pa.float32()),
        pa.nulls(len(positions), pa.string()),
        pa.array(positions, pa.int32()),
        pa.array([position % 2 == 0 for position in positions]),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([POSITION, *COLUMNS.new_fields(lists=False)]))


def scored_run(folder: Path, parts: Sequence[Sequence[Sequence[int]]]) -> ScoredColumn:
    """Write the run of a scorer: for each input file its parts, each the positions of its rows."""
    output, files = OutputDir(str(folder)), []
    for number, of_file in enumerate(parts):
        for place, positions in enumerate(of_file):
            name = f"rows/part-{number:05d}-{place // 3:05d}-{place % 3:05d}.parquet"
            batch = part(positions)
            files.append(output.write_parquet(name, [batch], batch.schema)._asdict())
    content = to_json({"job": "score", "inputs": [{"name": name} for name in NAMES], "files": files[::-1]})
    output.write("manifest.json", content)
    return ScoredColumn(str(folder), COLUMNS, digest_of(content), "{}")


def unit_of(name: str, positions: Sequence[int]) -> Unit:
    file = InputFile(0, 0, f"/in/{name}", name, 0, "", 0, None)
    texts = pa.array(["text"] * len(positions))
    rows = pa.RecordBatch.from_arrays([texts, texts], ["instruction", "response"])
    return Unit(file, 0, 0, np.array(positions, np.int64), rows, [])


@given(
    st.lists(st.lists(st.integers(1, 50), max_size=8), min_size=1, max_size=9),
    st.randoms(use_true_random=False),
)
@settings(max_examples=40)
def test_the_scores_of_any_rows_from_few_parts(steps: list[list[int]], random: Random) -> None:
    positions, parts = 0, []
    for of_part in steps:
        parts.append(list(positions + np.cumsum(of_part, dtype=np.int64)))
        positions = parts[-1][-1] if of_part else positions
    scored = [position for of_part in parts for position in of_part]
    first, last = sorted((random.randint(0, len(scored)), random.randint(0, len(scored))))
    wanted = [position for position in scored[first:last] if random.random() < 0.7]
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        run = scored_run(Path(folder), [[[7]], parts])
        read: list[str] = []
        before = by_position.read_bytes
        patch.setattr(by_position, "read_bytes", lambda url, storage: read.append(url) or before(url, storage))
        scores, errors, tokens, truncated = run.scores_of(unit_of("a.parquet", wanted))
    assert scores.to_pylist() == tokens.to_pylist() == wanted
    assert errors.null_count == len(wanted) and truncated.to_pylist() == [place % 2 == 0 for place in wanted]
    assert [field.type for field in COLUMNS.new_fields(lists=False)] == [
        array.type for array in (scores, errors, tokens, truncated)
    ]
    needed = [
        of_part for of_part in parts if wanted and of_part and wanted[0] <= of_part[-1] and of_part[0] <= wanted[-1]
    ]
    assert len(read) == len(needed)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    run = scored_run(tmp_path, [[[0, 1, 2], [3, 5]], [[4]]])
    for name, positions, missing in (
        ("b.parquet", [3, 4], "b.parquet#4"),
        ("b.parquet", [5, 6], "b.parquet#6"),
        ("c.parquet", [9], "c.parquet#9"),
    ):
        with pytest.raises(CappyError, match=f"has no score of {missing}: the input has changed"):
            run.scores_of(unit_of(name, positions))
    path = tmp_path / "rows/part-00000-00000-00001.parquet"
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(CappyError, match="part-00000-00000-00001.parquet: is damaged; run the same command again"):
        run.scores_of(unit_of("b.parquet", [3]))
    path.unlink()
    with pytest.raises(CappyError, match="part-00000-00000-00001.parquet: is missing; run the same command again"):
        run.scores_of(unit_of("b.parquet", [3]))
