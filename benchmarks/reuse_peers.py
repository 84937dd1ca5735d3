"""The peers of `benchmarks.reuse`: known scores taken over in memory, by pandas and by a dict.

    python -m benchmarks.reuse_peers NAME KNOWN WANTED OUTPUT

KNOWN is a finished folder of score, WANTED a folder of Parquet files. A module of its own, so that a peer imports
nothing that it does not need.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

PAIR, SCORES = ["instruction", "response"], ["score", "num_tokens", "truncated"]


def by_pandas(known: pa.Table, wanted: pa.Table) -> pa.Table:
    """Return the wanted pairs with their scores, by a merge of pandas."""
    scored = known.to_pandas().drop_duplicates(PAIR)
    return pa.Table.from_pandas(wanted.to_pandas().merge(scored, how="left", on=PAIR), preserve_index=False)


def by_dict(known: pa.Table, wanted: pa.Table) -> pa.Table:
    """Return the wanted pairs with their scores, by a dict of Python."""
    scores: dict[Any, Any] = {}
    for pair, score in zip(_rows(known, PAIR), _rows(known, SCORES), strict=True):
        scores.setdefault(pair, score)
    columns = zip(*(scores[pair] for pair in _rows(wanted, PAIR)), strict=True)
    new = {name: pa.array(column, known.schema.field(name).type) for name, column in zip(SCORES, columns, strict=True)}
    return pa.table({**{name: wanted[name] for name in PAIR}, **new})


def _rows(table: pa.Table, names: list[str]) -> "zip[tuple[Any, ...]]":
    return zip(*(table[name].to_pylist() for name in names), strict=True)


PEERS: dict[str, Callable[[pa.Table, pa.Table], pa.Table]] = {"pandas, merge": by_pandas, "a dict": by_dict}


def main(name: str, known: str, wanted: str, output: str) -> None:
    """Read the known scores and the wanted pairs, and write these with their scores, as one file."""
    scored = ds.dataset(f"{known}/rows", format="parquet").to_table([*PAIR, *SCORES])
    pairs = ds.dataset(wanted, format="parquet").to_table()
    folder = Path(output, "rows")
    folder.mkdir(parents=True)
    pq.write_table(PEERS[name](scored, pairs), folder / "0.parquet", compression="zstd")


if __name__ == "__main__":
    main(*sys.argv[1:])
