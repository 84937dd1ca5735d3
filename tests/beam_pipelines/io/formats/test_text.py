"""Text formats, plain and compressed."""

import csv
import io
import json
from pathlib import Path

import pytest

from beam_pipelines.io.formats.base import ReadSpec
from beam_pipelines.io.inputs import open_input
from beam_pipelines.io.units import list_reads, read_units
from schemas.errors import CappyError
from tests.beam_pipelines.io.reading import bad, compressed, good, units


@pytest.mark.parametrize("ending", ["", ".gz", ".zst", ".bz2", ".xz", ".lz4", ".GZ", ".Xz"])
@pytest.mark.parametrize("limit", [None, 3])
def test_text_formats_plain_and_compressed(tmp_path: Path, ending: str, limit: int | None) -> None:
    rows = [{"q": f"question {i}, ok?", "n": i, "x": float(i) / 4} for i in range(20)]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    (tmp_path / f"a.csv{ending}").write_bytes(compressed(buffer.getvalue().encode(), ending))
    (tmp_path / f"b.jsonl{ending}").write_bytes(compressed("\n".join(map(json.dumps, rows)).encode(), ending))
    for name in ("a.csv", "b.jsonl"):
        assert good(list(units(tmp_path / f"{name}{ending}", limit=limit))) == rows[:limit]


@pytest.mark.parametrize("ending", [".gz", ".zst", ".bz2", ".xz", ".lz4"])
def test_a_truncated_compressed_file_is_reported(tmp_path: Path, ending: str) -> None:
    draw = [json.dumps({"a": f"{i * 7919 % 30_011:x} text {i}"}) for i in range(30_000)]
    data = compressed("\n".join(draw).encode(), ending)
    path = tmp_path / f"f.jsonl{ending}"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CappyError, match=r"cannot be read after [\d,]+ rows"):
        open_input([str(path)], {})
    path.write_bytes(data)
    source = open_input([str(path)], {})
    path.write_bytes(data[: len(data) // 2])  # after the launcher has looked at it
    spec = ReadSpec(source.schema, 1000)
    (read,) = list_reads(source.files[0], spec)
    found = list(read_units(read, spec))
    rows = [row["a"] for row in good(found)]
    assert 0 < len(rows) < 30_000
    assert rows == [json.loads(line)["a"] for line in draw[: len(rows)]]
    assert "unreadable" in [reason for _, reason in bad(found)], "the rest is accounted for"
