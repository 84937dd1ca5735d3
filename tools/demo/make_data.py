"""Write the demo's data files: `python -m tools.demo.make_data [--output DIR]`.

The rows do not depend on the version of Python or of any library: every draw comes from `random.random` with a fixed
seed. Plain text files are byte-identical; the bytes of Parquet and compressed files may depend on the version of
pyarrow or zlib.
"""

import argparse
import csv
import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tools.demo import rows
from tools.demo.grammar import Draw
from tools.demo.rows import Row

SEED = "cappy demo 1"
DEMO = Path(__file__).resolve().parents[2] / "beam_pipelines" / "jobs" / "demo"
DATA = DEMO / "data"


@dataclass(frozen=True)
class Dataset:
    """One dataset of the demo: builder, file extension, and number of rows of each split."""

    name: str
    build: Callable[[Draw, int], list[Row]]
    extension: str
    train: int
    validation: int = 100


DATASETS = (
    Dataset("town_news", rows.town_news, "parquet", 600),
    Dataset("shop_remarks", rows.shop_remarks, "csv.gz", 600),
    Dataset("handy_things", rows.handy_things, "jsonl", 480),
    Dataset("event_notices", rows.event_notices, "jsonl.zst", 480),
    Dataset("short_passages", rows.short_passages, "parquet", 480),
)


def splits(dataset: Dataset) -> dict[str, list[Row]]:
    """Return the rows of `dataset` by split, built together so that they are distinct across splits, and shuffled."""
    draw = Draw(f"{SEED} {dataset.name}")
    everything = dataset.build(draw, dataset.train + dataset.validation)
    return {
        "train": draw.shuffled(everything[: dataset.train]),
        "validation": draw.shuffled(everything[dataset.train :]),
    }


def parquet_bytes(table: list[Row]) -> bytes:
    """Return `table` as one zstd Parquet file."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(table), sink, compression="zstd")
    return sink.getvalue()


def csv_bytes(table: list[Row]) -> bytes:
    """Return `table` as UTF-8 CSV with a header; each line ends with a line feed."""
    sink = io.StringIO()
    writer = csv.DictWriter(sink, fieldnames=list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return sink.getvalue().encode()


def jsonl_bytes(table: list[Row]) -> bytes:
    """Return `table` as UTF-8 JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table).encode()


def gzip_bytes(data: bytes) -> bytes:
    """Return `data` gzipped, without file name and time, which would change the bytes from run to run."""
    sink = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=sink, mode="wb", mtime=0) as packed:
        packed.write(data)
    return sink.getvalue()


def zstd_bytes(data: bytes) -> bytes:
    """Return `data` as one zstd frame."""
    packed: bytes = pa.Codec("zstd", compression_level=19).compress(data, asbytes=True)
    return packed


WRITERS: dict[str, Callable[[list[Row]], bytes]] = {
    "parquet": parquet_bytes,
    "jsonl": jsonl_bytes,
    "csv.gz": lambda table: gzip_bytes(csv_bytes(table)),
    "jsonl.zst": lambda table: zstd_bytes(jsonl_bytes(table)),
}


def write_all(folder: Path) -> list[Path]:
    """Write every split of every dataset below `folder` and return the paths in order."""
    written = []
    for dataset in DATASETS:
        for split, table in splits(dataset).items():
            path = folder / dataset.name / f"{split}.{dataset.extension}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(WRITERS[dataset.extension](table))
            written.append(path)
    return written


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Write the data files of the demo.")
    parser.add_argument("--output", type=Path, default=DATA, help="output folder (default: that of the package)")
    for path in write_all(parser.parse_args().output):
        print(f"{path.stat().st_size:>8,} bytes  {path}")


if __name__ == "__main__":
    main()
