"""The registry of input formats."""

from beam_pipelines.io.formats.base import COMPRESSIONS, Format, split_compression
from beam_pipelines.io.formats.delimited import CSV
from beam_pipelines.io.formats.json_lines import JSON_LINES
from beam_pipelines.io.formats.parquet import PARQUET
from schemas.errors import CappyError

FORMATS: tuple[Format, ...] = (PARQUET, JSON_LINES, CSV)
"""All input formats. To add one, write its module and list it here."""


def format_of(url: str) -> Format:
    """Return the format of a file by the ending of its name, in any case. Raises CappyError for any other ending."""
    stem, compression = split_compression(url)
    for format_ in FORMATS:
        if stem.endswith(format_.endings) and (format_.compressible or not compression):
            return format_
    raise CappyError(f"{url}: unknown input format; the name of a file must end in {_known_endings()}")


def _known_endings() -> str:
    plain = [ending for format_ in FORMATS for ending in format_.endings]
    compressible = [ending for format_ in FORMATS if format_.compressible for ending in format_.endings]
    return f"{', '.join(plain)}, or {', '.join(compressible)} followed by {' or '.join(COMPRESSIONS)}"
