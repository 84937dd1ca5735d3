"""A corpus whose instructions each lie in one range of rows, so that whole groups can be drawn and read together."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cappy_model.train.corpus import Columns, RowRange


@dataclass(frozen=True)
class Arranged:
    """A corpus in ranges of which each holds all rows of its instructions, next to each other.

    The first `in_place` of `ranges` cover the rows of the corpus in order. The rows whose `instruction_key` is in
    `moved` (uint64, sorted) are not to be read there: they stand in the other ranges, in files with the columns
    `Columns()`. `notes`: `equal_preferences`, the rows left out because their two responses are equal.
    """

    ranges: Sequence[RowRange]
    in_place: int
    moved: np.ndarray
    notes: Counter[str]


def arrange(
    urls: Sequence[str], columns: Columns, folder: Path, *, storage: Mapping[str, Any], rows_per_range: int
) -> Arranged:
    """Arrange."""
    raise NotImplementedError
