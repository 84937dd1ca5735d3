"""The registry of formats."""

import pytest

from beam_pipelines.io.formats.base import compression_of
from beam_pipelines.io.formats.delimited import CSV
from beam_pipelines.io.formats.json_lines import JSON_LINES
from beam_pipelines.io.formats.parquet import PARQUET
from beam_pipelines.io.formats.registry import format_of
from schemas.errors import CappyError


def test_the_ending_of_the_name_decides_the_format() -> None:
    assert format_of("s3://b/x.parquet") is PARQUET
    assert format_of("x.jsonl.zst") is JSON_LINES and compression_of("x.jsonl.zst") == "zstd"
    assert format_of("x.csv.gz") is CSV and compression_of("x.csv.gz") == "gzip"
    endings = r"\.parquet, \.pq, \.jsonl, \.ndjson, \.csv, or \.jsonl, \.ndjson, \.csv followed by \.gz or \.zst"
    with pytest.raises(CappyError, match=rf"x\.csv\.bz2: unknown input format; .* must end in {endings}$"):
        format_of("x.csv.bz2")
