"""JSON Lines inputs, plain or compressed. Positions are byte offsets (decompressed); blank lines are skipped."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import IO

from beam_pipelines.io.columns import UnreadableFile, infer_schema
from beam_pipelines.io.formats.base import (
    BadRow,
    Dialect,
    FileSummary,
    Format,
    InputFile,
    ReadSpec,
    RowBlock,
    Span,
    compression_of,
)
from beam_pipelines.io.formats.text import HEAD_ROWS, ParsedRow, cut_units, open_text
from beam_pipelines.io.storage import StorageOptions
from schemas.chunks import CHUNK_BYTES

SPAN_BYTES = 16 * 2**20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class _BadLine(ValueError):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def inspect(url: str, storage: StorageOptions, dialect: Dialect) -> FileSummary:
    """Infer columns and types from the first 10,000 lines, and count all lines.

    Raises UnreadableFile if the file is empty or truncated, if none of these lines is a JSON object, or if a column
    mixes types.
    """
    head, rows, size = [], 0, 0
    try:
        with open_text(url, storage) as file:
            for _, line in _lines(file, 0, None):
                if rows < HEAD_ROWS:
                    head.append(line)
                rows += 1
                size += len(line)
    except OSError as error:
        where = f"cannot be read after {rows:,} rows"
        raise UnreadableFile(f"{url}: {where}: {error}. Fetch or write it again.") from error
    good = []
    for line in head:
        try:
            good.append(_parse(line))
        except _BadLine:
            continue  # read() rejects it
    if not good:
        raise UnreadableFile(f"{url}: holds no row: none of its first {len(head):,} lines is a JSON object.")
    return FileSummary(infer_schema(good, url), rows, size)


def spans(file: InputFile, unit_rows: int) -> Iterator[Span]:
    """Yield line-aligned ranges of 16 MB; one span for a compressed file or if the input has a limit."""
    if compression_of(file.url) or file.limit is not None:
        yield Span(0, -1)
        return
    for start in range(0, file.size, SPAN_BYTES):
        yield Span(start, min(start + SPAN_BYTES, file.size))


def read(file: InputFile, span: Span, spec: ReadSpec) -> Iterator[RowBlock]:
    """Yield the units of a span."""
    allowed = frozenset(spec.schema.names) if spec.exact else None
    yield from cut_units(_parsed_rows(file, span, allowed), spec.schema, spec.unit_rows)


def _parsed_rows(file: InputFile, span: Span, allowed: frozenset[str] | None) -> Iterator[ParsedRow]:
    position = span.start
    with open_text(file.url, file.storage) as handle:
        try:
            for position, line in islice(_lines(handle, span.start, span.stop), file.limit):
                try:
                    row = _parse(line)
                    if allowed is not None and not allowed.issuperset(row):
                        raise _BadLine("does_not_fit", f"unknown fields {sorted(set(row) - allowed)}")
                    yield ParsedRow(position, row, None, len(line))
                except _BadLine as error:
                    excerpt = line.decode("utf-8", "backslashreplace")
                    yield ParsedRow(position, None, BadRow(position, error.reason, str(error), excerpt), len(line))
        except OSError as error:
            detail = f"the rest of the file after this position: {error}"
            yield ParsedRow(position, None, BadRow(position, "unreadable", detail, None), 0)


def _lines(file: IO[bytes], start: int, stop: int | None) -> Iterator[tuple[int, bytes]]:
    """Yield (position, line) of the lines that start in [start, stop), each cut to one byte more than a chunk."""
    if start:
        file.seek(start - 1)
        position = start - 1 + _skip_line(file)
    else:
        position = 0
    while stop is None or stop < 0 or position < stop:
        line = file.readline(CHUNK_BYTES + 1)
        if not line:
            return
        length = len(line)
        if length > CHUNK_BYTES and not line.endswith(b"\n"):
            length += _skip_line(file)
        if position == 0:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if line.strip():
            yield position, line
        position += length


def _skip_line(file: IO[bytes]) -> int:
    """Read to the end of the line; return the number of bytes read."""
    skipped = 0
    while part := file.readline(CHUNK_BYTES):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def _parse(line: bytes) -> dict[str, object]:
    if len(line) > CHUNK_BYTES:
        raise _BadLine("row_too_large", f"more than the {CHUNK_BYTES:,} bytes that a row may have")
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise _BadLine("invalid_utf8", str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _BadLine("broken_json", str(error)) from error
    if not isinstance(row, dict):
        raise _BadLine("broken_json", f"a JSON {type(row).__name__}, not an object")
    if (
        b"\\ud" in line or b"\\uD" in line
    ):  # only an escape can hold half of a surrogate pair, which UTF-8 cannot encode
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise _BadLine("invalid_utf8", str(error)) from error
    return row


JSON_LINES = Format(
    name="jsonl",
    endings=(".jsonl", ".ndjson"),
    inspect=inspect,
    spans=spans,
    read=read,
    position_mark="@",
    written_as="json",
)
