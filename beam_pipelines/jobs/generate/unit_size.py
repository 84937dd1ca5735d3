"""The size of units: rows where responses come from an API or a flag says it, else about a minute of a model's work."""

from dataclasses import dataclass

from beam_pipelines.io.formats.base import UnitWork
from cappy_model.generate.decodings import Drawing
from cappy_model.work import BYTES_PER_TOKEN
from schemas.chunks import CHUNK_ROWS

API_ROWS = 32
"""Sampled rows of a unit whose responses come from an API."""
_LEAST_SHARE = 1e-6


@dataclass(frozen=True)
class UnitSize:
    """The size of units: at most `rows` of the input, and work of `bytes` as `cappy_model.work` counts it, or any."""

    rows: int = CHUNK_ROWS
    bytes: int | None = None

    @property
    def settings(self) -> dict[str, int]:
        """The part of the fingerprint inputs about units."""
        return {"unit_rows": self.rows} if self.bytes is None else {"unit_bytes": self.bytes}


def api_unit_rows(share: float) -> int:
    """Return the rows of a unit with `API_ROWS` sampled ones, where `share` of the rows are sampled."""
    return int(min(CHUNK_ROWS, -(-API_ROWS // max(share, _LEAST_SHARE))))


def unit_work(size: int, drawing: Drawing, share: float, *, instruction: str, prompt_tokens: int | None) -> UnitWork:
    """Return the work of a unit of `size` bytes.

    A row counts with its prompt, of at most `prompt_tokens`, and with all tokens that its responses may have; but
    `share` of the rows are sampled, and the others are no work.
    """
    responses = sum(max(one.samples, one.beams) for one in drawing.decodings)
    return UnitWork(
        int(size / max(share, _LEAST_SHARE)),
        (instruction,),
        None if prompt_tokens is None else BYTES_PER_TOKEN * prompt_tokens,
        BYTES_PER_TOKEN * responses * drawing.max_new_tokens,
    )
