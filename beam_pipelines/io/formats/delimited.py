"""CSV inputs, plain or compressed, with a header line. Types are inferred from the first 10,000 rows."""

import csv
import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

import pyarrow as pa

from beam_pipelines.io.columns import UnreadableFile
from beam_pipelines.io.formats.base import BadRow, Dialect, FileSummary, Format, InputFile, ReadSpec, RowBlock, Span
from beam_pipelines.io.formats.text import HEAD_ROWS, ParsedRow, cut_units, open_text
from beam_pipelines.io.storage import StorageOptions
from schemas.chunks import CHUNK_BYTES
from schemas.records import EXCERPT_CHARACTERS

# A field is a number only if it can be written back unchanged: "007" is text, and so is an integer of 19 digits.
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?")
_BOOLEANS = {"true": True, "false": False, "True": True, "False": False}

TRUNCATED = "unreadable"

Fault = tuple[str, str]
_TOO_LARGE = ("row_too_large", f"more than the {CHUNK_BYTES:,} bytes that a row may have")


class _CsvRecord(NamedTuple):
    """A CSV record: its fields, or the fault that makes it unusable; `begun` is its first line, for the excerpt."""

    position: int
    fields: list[str]
    fault: Fault | None
    begun: str


def inspect(url: str, storage: StorageOptions, dialect: Dialect) -> FileSummary:
    """Read columns from the header, infer types from the first 10,000 rows, and count all rows.

    A column that is empty in these rows has type null. Raises UnreadableFile if there is no header, if a name is empty
    or repeated, or if the file is truncated.
    """
    head: list[list[str]] = []
    rows, size = 0, 0
    with _opened(url, storage) as lines:
        names = _header(lines, url)
        for _, fields, fault, _ in _records(lines, len(names)):
            if fault and fault[0] == TRUNCATED:
                raise UnreadableFile(f"{url}: {fault[1]}. Fetch or write it again.")
            if rows < HEAD_ROWS and not fault:
                head.append(fields)
            rows += 1
            size += sum(map(len, fields))
    kinds = [_infer([record[i] for record in head]) for i in range(len(names))]
    return FileSummary(pa.schema(list(zip(names, kinds, strict=True))), rows, size)


def spans(file: InputFile, unit_rows: int) -> Iterator[Span]:
    """Yield one span: line breaks may be inside quotes, so a CSV file cannot be split."""
    yield Span(0, -1)


def read(file: InputFile, span: Span, spec: ReadSpec) -> Iterator[RowBlock]:
    """Yield the units of a file. Empty fields are null unless their column is text."""
    with _opened(file.url, file.storage) as lines:
        names = _header(lines, file.url)
        records = islice(_records(lines, len(names)), file.limit)
        parsed = (_parse(record, names, spec.schema) for record in records)
        yield from cut_units(parsed, spec.schema, spec.unit_rows)


class _Lines:
    """Lines of a file for the csv reader. Tracks how the current record begins and whether it has an open quote."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self.begin_record()

    def begin_record(self) -> None:
        self.begun = ""
        self._quotes = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = next(self._text)
        self.begun = self.begun or line[:EXCERPT_CHARACTERS]
        self._quotes += line.count('"')
        return line

    def skip_record(self) -> None:
        """Read up to the line that closes an open quote, or to the end of the file."""
        while self._quotes % 2 and next(self, None) is not None:
            pass


@contextmanager
def _opened(url: str, storage: StorageOptions) -> Iterator[_Lines]:
    csv.field_size_limit(CHUNK_BYTES)
    with open_text(url, storage) as file:
        yield _Lines(io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline=""))


def _header(lines: _Lines, url: str) -> list[str]:
    try:
        names: list[str] = next(csv.reader(lines, strict=True), [])
        "".join(names).encode()
    except (csv.Error, OSError, UnicodeError) as error:
        raise UnreadableFile(f"{url}: its header cannot be read: {error}. Write it again, as UTF-8.") from error
    if not names or "" in names or len(set(names)) < len(names):
        raise UnreadableFile(f"{url}: its first line must name each column once, and is {','.join(names)[:200]!r}")
    return names


def _records(lines: _Lines, width: int) -> Iterator[_CsvRecord]:
    """Yield the records after the header; `width` is the number of columns."""
    reader = csv.reader(lines, strict=True)
    position = 0
    while True:
        lines.begin_record()
        fields: list[str] = []
        fault: Fault | None = None
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fault = ("broken_csv", str(error))
            if "limit" in str(error):
                fault = _TOO_LARGE
                lines.skip_record()
        except OSError as error:
            yield _CsvRecord(position, [], (TRUNCATED, f"cannot be read after {position:,} rows: {error}"), "")
            return
        if not fields and not fault:
            continue  # a blank line
        if not fault and len(fields) != width:
            fault = ("broken_csv", f"{len(fields)} fields where the header has {width}")
        yield _CsvRecord(position, fields, fault, lines.begun)
        position += 1


def _parse(record: _CsvRecord, names: list[str], schema: pa.Schema) -> ParsedRow:
    position, fields, fault, begun = record
    size = sum(map(len, fields))
    if not fault and size > CHUNK_BYTES:
        fault = _TOO_LARGE
    try:
        if not fault:
            "".join(fields).encode()
            values = zip(names, fields, strict=True)
            row = {name: _value(text, schema.field(name).type) for name, text in values if name in schema.names}
            return ParsedRow(position, row, None, size)
    except UnicodeEncodeError:
        fault = ("invalid_utf8", "a field holds bytes that are not UTF-8")
    except ValueError as error:
        fault = ("does_not_fit", str(error))
    assert fault is not None
    return ParsedRow(position, None, BadRow(position, *fault, begun), size)


def _infer(texts: list[str]) -> pa.DataType:
    present = [text for text in texts if text]
    if not present:
        return pa.null()
    if all(text in _BOOLEANS for text in present):
        return pa.bool_()
    if all(map(_INTEGER.fullmatch, present)):
        return pa.int64()
    return pa.float64() if all(map(_FLOAT.fullmatch, present)) else pa.string()


def _value(text: str, kind: pa.DataType) -> object:
    """Convert a field to a value of `kind`. Raises ValueError if it cannot be written back unchanged."""
    if pa.types.is_string(kind):
        return text
    if not text:
        return None
    if pa.types.is_boolean(kind) and text in _BOOLEANS:
        return _BOOLEANS[text]
    if pa.types.is_integer(kind) and _INTEGER.fullmatch(text):
        return int(text)
    if pa.types.is_floating(kind) and _FLOAT.fullmatch(text):
        value = float(text)
        if math.isfinite(value) and not (_INTEGER.fullmatch(text) and int(text) != value):
            return value
    raise ValueError(f"{text[:100]!r} is no {kind}, as its column is")


CSV = Format(name="csv", endings=(".csv",), inspect=inspect, spans=spans, read=read, written_as="cell")
