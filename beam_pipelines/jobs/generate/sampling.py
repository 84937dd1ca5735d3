"""Choice of the instructions to generate for: a share of them, or a number of each template, by their ids."""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from beam_pipelines.io.inputs import Input
from beam_pipelines.io.units import list_reads, read_units
from schemas.chunks import CHUNK_ROWS
from schemas.ids import seed_for

Template = tuple[str | None, ...]
"""Identity of a template: its values of `TEMPLATE_COLUMNS`, None for a missing column."""

TEMPLATE_COLUMNS = ("dataset", "subset", "split", "template_id")
ID = "instruction_id"
_ALL = 2**64


@dataclass(frozen=True)
class Sampling:
    """A choice of instructions: a function of the seed and their ids, independent of their order and files.

    `fraction` is the probability of keeping each. `largest` is the largest hash to keep of each template. Rows with
    equal ids are kept or left out together.
    """

    seed: int
    fraction: float | None = None
    largest: Mapping[Template, int] | None = field(default=None, repr=False)

    def keeps(self, instruction_id: str, template: Template) -> bool:
        """Return whether to generate for this instruction."""
        if self.fraction is not None and seed_for(self.seed, "fraction", instruction_id) >= self.fraction * _ALL:
            return False
        return self.largest is None or _rank(self.seed, instruction_id) <= self.largest.get(template, -1)


def templates_of(rows: pa.RecordBatch) -> list[Template]:
    """Return the template of each row."""
    nothing = [None] * rows.num_rows
    present = set(rows.schema.names)
    columns = (rows[name].to_pylist() if name in present else nothing for name in TEMPLATE_COLUMNS)
    return list(zip(*columns, strict=True))


class SmallestHashes:
    """The `number` smallest hashes of the distinct ids of each template, from a stream of ids in any order."""

    def __init__(self, seed: int, number: int) -> None:
        self._seed, self._number = seed, number
        self._heaps: dict[Template, list[int]] = {}
        self._held: dict[Template, set[int]] = {}

    def add(self, ids: Sequence[str | None], templates: Sequence[Template]) -> None:
        """Add the ids of some rows, except null ones."""
        for instruction_id, template in zip(ids, templates, strict=True):
            if instruction_id is not None:
                self._offer(template, _rank(self._seed, instruction_id))

    def _offer(self, template: Template, rank: int) -> None:
        heap, held = self._heaps.setdefault(template, []), self._held.setdefault(template, set())
        if rank in held:
            return
        if len(heap) < self._number:
            heapq.heappush(heap, -rank)
        elif rank < -heap[0]:
            held.discard(-heapq.heapreplace(heap, -rank))
        else:
            return
        held.add(rank)

    @property
    def largest(self) -> dict[Template, int]:
        """The largest hash kept of each template."""
        return {template: -heap[0] for template, heap in self._heaps.items()}

    @property
    def kept(self) -> int:
        """The number of ids kept in all."""
        return sum(map(len, self._heaps.values()))


def smallest_of(source: Input, seed: int, number: int) -> SmallestHashes:
    """Return the smallest hashes of each template of an input; only ids and templates are read."""
    smallest = SmallestHashes(seed, number)
    for rows in _read(source):
        smallest.add(rows[ID].to_pylist(), templates_of(rows))
    return smallest


def _read(source: Input) -> Iterator[pa.RecordBatch]:
    names = [name for name in (ID, *TEMPLATE_COLUMNS) if name in source.schema.names]
    spec = source.read_spec(pa.schema([pa.field(name, pa.string()) for name in names]), CHUNK_ROWS)
    for file in source.files:
        for read in list_reads(file, spec):
            for unit in read_units(read, spec):
                yield unit.rows


def _rank(seed: int, instruction_id: str) -> int:
    return seed_for(seed, "per_template", instruction_id)
