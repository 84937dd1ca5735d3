"""The registry of formats."""

import pytest

from beam_pipelines.io.formats.base import Format, compression_of
from beam_pipelines.io.formats.delimited import CSV
from beam_pipelines.io.formats.json_lines import JSON_LINES
from beam_pipelines.io.formats.parquet import PARQUET
from beam_pipelines.io.formats.registry import format_of
from schemas.errors import CappyError


@pytest.mark.parametrize(
    ("url", "format_", "compression"),
    [
        ("s3://b/x.parquet", PARQUET, None),
        ("x.PQ", PARQUET, None),
        ("x.snappy.parquet", PARQUET, None),
        ("x.gz.parquet", PARQUET, None),
        ("x.zstd.parquet", PARQUET, None),
        ("x.jsonl.zst", JSON_LINES, "zstd"),
        ("x.json", JSON_LINES, None),
        ("x.Json.BZ2", JSON_LINES, "bz2"),
        ("x.ndjson.xz", JSON_LINES, "xz"),
        ("https://h/x.jsonl.gz?token=.csv", JSON_LINES, "gzip"),
        ("x.CSV.gz", CSV, "gzip"),
        ("x.tsv.lz4", CSV, "lz4"),
    ],
)
def test_the_ending_of_the_name_decides_the_format(url: str, format_: Format, compression: str | None) -> None:
    assert (format_of(url), compression_of(url)) == (format_, compression)


@pytest.mark.parametrize("name", ["x.txt", "x.csv.snappy", "x.parquet.gz", "csv", "x.xlsx"])
def test_other_endings_are_told_which_there_are(name: str) -> None:
    texts = r"\.jsonl, \.ndjson, \.json, \.csv, \.tsv"
    endings = rf"\.parquet, \.pq, {texts}, or {texts} followed by \.gz or \.zst or \.bz2 or \.xz or \.lz4"
    with pytest.raises(CappyError, match=rf"{name}: unknown input format; .* must end in {endings}$"):
        format_of(name)
