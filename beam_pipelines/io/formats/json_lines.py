"""JSON Lines inputs, plain or compressed. Positions are byte offsets (decompressed, in UTF-8); blank lines are skipped.

Python's json reads each line. Where a column is text, numbers keep the digits of the file.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import IO, Any, NamedTuple

import pyarrow as pa

from beam_pipelines.io.columns import UnreadableFile
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
    unit_rows_of,
)
from beam_pipelines.io.formats.json_columns import convert_column, write_columns
from beam_pipelines.io.formats.json_types import infer_type, most_common_type
from beam_pipelines.io.formats.opening import describe_other, is_utf8, open_text, peek
from beam_pipelines.io.formats.text import HEAD_ROWS, ParsedRow, cut_units
from beam_pipelines.io.storage import StorageOptions
from schemas.chunks import CHUNK_BYTES

SPAN_BYTES = 16 * 2**20
_UNITS_OF_A_SPAN = 8
MAX_LEVELS = 200
"""Levels of lists and objects that a row may have. Python's own limit depends on the stack of its caller."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class _BadLine(ValueError):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class _Line(NamedTuple):
    text: str
    row: dict[str, Any]


def inspect(url: str, storage: StorageOptions, dialect: Dialect) -> FileSummary:
    """Infer columns and types from the first 10,000 lines, and count all lines. A file without lines has no columns.

    Raises UnreadableFile if the file is truncated, or if none of these lines is a JSON object.
    """
    good: list[dict[str, Any]] = []
    rows, size, first = 0, 0, b""
    try:
        with open_text(url, storage, dialect) as file:
            for _, line in _lines(file, 0, None):
                first = first or line
                if rows < HEAD_ROWS:
                    with suppress(_BadLine):  # read() rejects it
                        good.append(_parse(line, dialect).row)
                rows += 1
                size += len(line)
    except OSError as error:
        where = f"cannot be read after {rows:,} rows"
        raise UnreadableFile(f"{url}: {where}: {error}. Fetch or write it again.") from error
    if rows and (not good or _spans_lines(first)):
        _refuse(url, storage, dialect, first, min(rows, HEAD_ROWS))
    return _summary(good, rows, size)


def _summary(good: Sequence[dict[str, Any]], rows: int, size: int) -> FileSummary:
    fields, mostly = [], {}
    for name in dict.fromkeys(name for row in good for name in row):
        values = [row.get(name) for row in good]
        kind = infer_type(values)
        if kind is None:
            mostly[name] = most_common_type(values)
        fields.append(pa.field(name, pa.string() if kind is None else kind))
    return FileSummary(pa.schema(fields), rows, size, mostly)


def _spans_lines(first: bytes) -> bool:
    """Return whether the first line begins an array or an object that later lines continue."""
    line = first.strip()
    return line in (b"[", b"{") or (line.startswith(b"[") and line.endswith(b","))


def _refuse(url: str, storage: StorageOptions, dialect: Dialect, first: bytes, rows: int) -> None:
    """Raise UnreadableFile that says what the file is instead of JSON Lines."""
    with open_text(url, storage, dialect) as file:
        head = peek(file)
    convert = "turns it into JSON Lines"
    if other := describe_other(head, dialect):
        raise UnreadableFile(f"{url}: {other}")
    if first.startswith(b"["):
        raise UnreadableFile(f"{url}: is a JSON array, not JSON Lines; `jq -c '.[]' FILE` {convert}")
    if first.startswith(b"{") and first.count(b"\r") > 1:
        raise UnreadableFile(f"{url}: its lines end in CR alone; `tr '\\r' '\\n'` {convert}")
    if first.strip() == b"{":
        raise UnreadableFile(f"{url}: has JSON objects over several lines, not JSON Lines; `jq -c . FILE` {convert}")
    raise UnreadableFile(f"{url}: holds no row: none of its first {rows:,} lines is a JSON object")


def spans(file: InputFile, spec: ReadSpec) -> Iterator[Span]:
    """Yield line-aligned ranges of 16 MB, or of fewer where eight units are less (see `UnitWork`).

    It is one span if the file is compressed or not UTF-8, or the input has a limit.
    """
    if compression_of(file.url) or file.limit is not None or not is_utf8(file.dialect):
        yield Span(0, -1)
        return
    size = SPAN_BYTES
    if spec.work is not None and file.rows:
        size = min(size, max(1, _UNITS_OF_A_SPAN * unit_rows_of(file, spec) * file.size // file.rows))
    for start in range(0, file.size, size):
        yield Span(start, min(start + size, file.size))


def read(file: InputFile, span: Span, spec: ReadSpec) -> Iterator[RowBlock]:
    """Yield the units of a span."""
    yield from cut_units(_parsed_rows(file, span, spec), spec.schema, spec.unit_rows, convert_column)


def _parsed_rows(file: InputFile, span: Span, spec: ReadSpec) -> Iterator[ParsedRow[dict[str, Any]]]:
    allowed = frozenset(spec.schema.names) if spec.exact else None
    position = span.start
    with open_text(file.url, file.storage, file.dialect, span.start) as handle:
        try:
            for position, line in islice(_lines(handle, span.start, span.stop), file.limit):
                try:
                    text, row = _parse(line, file.dialect)
                    if allowed is not None and not allowed.issuperset(row):
                        raise _BadLine("does_not_fit", f"unknown fields {sorted(set(row) - allowed)}")
                    write_columns(row, text, spec.as_written)
                    yield ParsedRow(position, row, None, len(line), text)
                except _BadLine as error:
                    excerpt = line[:_EXCERPT_BYTES].rstrip(b"\r\n").decode("utf-8", "backslashreplace")
                    yield ParsedRow(position, None, BadRow(position, error.reason, str(error), excerpt), len(line), "")
        except OSError as error:
            detail = f"the rest of the file after this position: {error}"
            yield ParsedRow(position, None, BadRow(position, "unreadable", detail, None), 0, "")


def _lines(file: IO[bytes], start: int, stop: int | None) -> Iterator[tuple[int, bytes]]:
    """Yield (position, line) of the lines that start in [start, stop), each cut to one byte more than a chunk.

    A byte order mark is removed from the beginning of any line: files that have one are joined by cat(1).
    """
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


BROKEN = "broken_json"
_EXCERPT_BYTES = 4096  # of which a reject keeps 500 characters


def _parse(line: bytes, dialect: Dialect) -> _Line:
    """Parse a line. Of equal keys the last wins. Raises _BadLine for what is no object, or cannot be text in UTF-8."""
    if len(line) > CHUNK_BYTES:
        raise _BadLine("row_too_large", f"more than the {CHUNK_BYTES:,} bytes that a row may have")
    try:
        text = line.decode()
        row = json.loads(text)
    except UnicodeDecodeError as error:
        if is_utf8(dialect):
            detail = f"{error}; --encoding names the encoding of a file that is not UTF-8"
            raise _BadLine("invalid_utf8", detail) from error
        raise _BadLine("invalid_encoding", f"holds bytes that are not {dialect.encoding}") from error
    except RecursionError as error:
        raise _BadLine(BROKEN, f"nested more than {MAX_LEVELS} levels deep") from error
    except ValueError as error:
        raise _BadLine(BROKEN, str(error)) from error
    if not isinstance(row, dict):
        raise _BadLine(BROKEN, f"a JSON {type(row).__name__}, not an object")
    if text.count("{") + text.count("[") > MAX_LEVELS and _is_deep(row):
        raise _BadLine(BROKEN, f"nested more than {MAX_LEVELS} levels deep")
    if "\\ud" in text or "\\uD" in text:  # only an escape can hold half of a surrogate pair, which UTF-8 cannot encode
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = error.object[error.start]
            raise _BadLine("invalid_utf8", f"\\u{ord(half):x} is half of a surrogate pair, not a character") from error
    return _Line(text, row)


def _is_deep(row: dict[str, Any]) -> bool:
    """Return whether a row has more than `MAX_LEVELS` levels of lists and objects."""
    level: list[Any] = [row]
    for _ in range(MAX_LEVELS):
        nested = (each.values() if isinstance(each, dict) else each for each in level)
        level = [value for values in nested for value in values if isinstance(value, dict | list)]
        if not level:
            return False
    return True


JSON_LINES = Format(
    name="jsonl",
    endings=(".jsonl", ".ndjson", ".json"),
    inspect=inspect,
    spans=spans,
    read=read,
    position_mark="@",
    written_as="json",
)
