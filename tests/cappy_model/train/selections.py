"""Selections of small corpora."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cappy_model.train.corpus import Columns
from cappy_model.train.selection import ARRANGED, Selection
from cappy_model.train.split import Policy, select

_FOLDER = tempfile.TemporaryDirectory()


def selection_of(
    urls: Sequence[str],
    folder: Path | None = None,
    *,
    rows_per_range: int = 1_000,
    columns: Columns | None = None,
    **policy: Any,
) -> Selection:
    """The selection of files; rows that are arranged are copied below `folder`, or below one for all tests."""
    given = Policy(**{"seed": 0, **policy})
    arranged = (folder or Path(tempfile.mkdtemp(dir=_FOLDER.name))) / ARRANGED
    return select(urls, given, columns or Columns(), arranged, storage={}, rows_per_range=rows_per_range)
