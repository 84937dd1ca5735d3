"""CSV and TSV inputs, plain or compressed, with a header line. Types are inferred from the first 10,000 rows."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from typing import NamedTuple

import pyarrow as pa

from beam_pipelines.io.columns import UnreadableFile
from beam_pipelines.io.formats.base import (
    CSV_ENDINGS,
    BadRow,
    Dialect,
    FileSummary,
    Format,
    InputFile,
    ReadSpec,
    RowBlock,
    Span,
    split_compression,
)
from beam_pipelines.io.formats.cells import convert_column, infer_type
from beam_pipelines.io.formats.opening import describe_other, is_utf8, open_text, peek
from beam_pipelines.io.formats.text import HEAD_ROWS, Column, ParsedRow, cut_units
from beam_pipelines.io.storage import StorageOptions
from schemas.chunks import CHUNK_BYTES
from schemas.records import EXCERPT_CHARACTERS

TRUNCATED = "unreadable"

_DELIMITERS = {";": "';'", "\t": "tab", "|": "'|'", ",": ","}
"""Delimiters that a file may have instead of its own, and the value of --csv-delimiter for each."""

_TRIED_ROWS = 100
"""Rows that are read with another delimiter, to see whether it is that of the file."""

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

    A column that is empty in these rows has type null. A file without lines has no columns. Columns of one name are
    unusable. Raises UnreadableFile if the file is truncated, or if its delimiter is another.
    """
    head: list[list[str]] = []
    rows, broken, size = 0, 0, 0
    delimiter = _delimiter(url, dialect)
    with _opened(url, storage, dialect) as lines:
        header, line = _header(lines, url, dialect, delimiter)
        for _, fields, fault, _ in _records(lines, len(header), delimiter) if header else ():
            if fault and fault[0] == TRUNCATED:
                raise UnreadableFile(f"{url}: {fault[1]}. Fetch or write it again.")
            if rows < HEAD_ROWS and fault:
                broken += 1
            elif rows < HEAD_ROWS:
                head.append(fields)
            rows += 1
            size += sum(map(len, fields))
            if fault and fault[0] == "broken_csv":
                lines.check_closed(url)
    if len(header) == 1 or broken > len(head):
        _check_delimiter(url, storage, dialect, line)
    return _summary(url, _names(header), head, rows, size)


def _summary(url: str, names: list[str], head: list[list[str]], rows: int, size: int) -> FileSummary:
    fields, mostly, unusable = [], {}, {}
    counts = Counter(names)
    for index, name in enumerate(names):
        if counts[name] > 1:
            unusable[name] = f"{url}: has {counts[name]} columns named {name!r}; rename all but one"
            continue
        kind, likely = infer_type([record[index] for record in head])
        fields.append(pa.field(name, kind))
        if likely is not None:
            mostly[name] = likely
    return FileSummary(pa.schema(fields), rows, size, mostly, unusable)


def spans(file: InputFile, spec: ReadSpec) -> Iterator[Span]:
    """Yield one span: line breaks may be inside quotes, so a CSV file cannot be split."""
    yield Span(0, -1)


def read(file: InputFile, span: Span, spec: ReadSpec) -> Iterator[RowBlock]:
    """Yield the units of a file. Empty fields are null unless their column is text."""
    delimiter = _delimiter(file.url, file.dialect)
    with _opened(file.url, file.storage, file.dialect) as lines:
        header, _ = _header(lines, file.url, file.dialect, delimiter)
        if not header:
            return
        names = {name: index for index, name in enumerate(_names(header))}

        def convert(rows: Sequence[ParsedRow[list[str]]], field: pa.Field) -> Column:
            return convert_column(rows, names.get(field.name), field, spec.as_written.get(field.name))

        records = islice(_records(lines, len(header), delimiter), file.limit)
        yield from cut_units(map(partial(_parse, file.dialect), records), spec.schema, spec.unit_rows, convert)


class _Lines:
    """Lines of a file for the csv reader. Tracks how the current record begins and whether it has an open quote."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self.begin_record()

    def begin_record(self) -> None:
        self.begun = ""
        self._quotes = 0
        self._count = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = next(self._text)
        self.begun = self.begun or line[:EXCERPT_CHARACTERS]
        self._quotes += line.count('"')
        self._count += 1
        return line

    @property
    def spanned(self) -> str:
        """How many lines the current record has, if several: those behind a quote that should not be there."""
        return f"; a quote in its first line takes in {self._count - 1:,} more lines" if self._count > 1 else ""

    def check_closed(self, url: str) -> None:
        """Raise UnreadableFile if a quote takes in all lines up to the end of the file: these are rows, and many."""
        if self._count > 2 and self._quotes % 2 and next(self._text, None) is None:
            raise UnreadableFile(
                f"{url}: the quote in the row that begins {self.begun.rstrip()[:100]!r} is never closed, and takes in "
                f"the {self._count - 1:,} lines behind it: double or delete it"
            )

    def skip_record(self) -> None:
        """Read up to the line that closes an open quote, or to the end of the file."""
        while self._quotes % 2 and next(self, None) is not None:
            pass


@contextmanager
def _opened(url: str, storage: StorageOptions, dialect: Dialect) -> Iterator[_Lines]:
    csv.field_size_limit(CHUNK_BYTES)
    with open_text(url, storage, dialect) as file:
        if other := describe_other(peek(file), dialect):
            raise UnreadableFile(f"{url}: {other}")
        yield _Lines(io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline=""))


def _delimiter(url: str, dialect: Dialect) -> str:
    return dialect.delimiter or ("\t" if split_compression(url)[0].endswith(".tsv") else ",")


def _header(lines: _Lines, url: str, dialect: Dialect, delimiter: str) -> tuple[list[str], str]:
    """Return the fields of the first line that is not blank, and its text; nothing if there is no such line."""
    names: list[str] = []
    try:
        for names in csv.reader(lines, strict=True, delimiter=delimiter):
            if names:
                break
            lines.begin_record()
        "".join(names).encode()
    except (csv.Error, OSError) as error:
        raise UnreadableFile(f"{url}: its header cannot be read: {error}. Fetch or write it again.") from error
    except UnicodeError as error:
        raise UnreadableFile(
            f"{url}: its header is not {dialect.encoding or 'UTF-8'}; give its encoding, such as --encoding cp1252"
        ) from error
    return names, lines.begun


def _names(header: list[str]) -> list[str]:
    """Name the columns without a name as pandas does: `Unnamed: 0` is the index that it writes."""
    names = list(header)
    for index, name in enumerate(names):
        if not name:
            name = f"Unnamed: {index}"
            while name in names:
                name += ".1"
            names[index] = name
    return names


def _check_delimiter(url: str, storage: StorageOptions, dialect: Dialect, header: str) -> None:
    """Raise UnreadableFile if another delimiter cuts the header, and most rows, into one number of fields above 1."""
    if header.lower().startswith("sep="):
        raise UnreadableFile(
            f"{url}: its first line is Excel's {header.strip()!r}; delete it, and give --csv-delimiter {header[4:5]!r}"
        )
    for delimiter, value in _DELIMITERS.items():
        if delimiter == _delimiter(url, dialect):
            continue
        with _opened(url, storage, dialect) as lines, suppress(csv.Error):
            widths = [len(fields) for fields in islice(csv.reader(lines, delimiter=delimiter), _TRIED_ROWS) if fields]
            if widths[0] > 1 and 2 * widths.count(widths[0]) >= len(widths) + 1:
                raise UnreadableFile(
                    f"{url}: the fields of its header, {header.strip()[:200]!r}, are separated by another character "
                    f"than is expected; give --csv-delimiter {value}"
                )


def _records(lines: _Lines, width: int, delimiter: str) -> Iterator[_CsvRecord]:
    """Yield the records after the header; `width` is the number of columns."""
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
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
            fault = ("broken_csv", f"{error}{lines.spanned}")
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


def _parse(dialect: Dialect, record: _CsvRecord) -> ParsedRow[list[str]]:
    position, fields, fault, begun = record
    size = sum(map(len, fields))
    if not fault and size > CHUNK_BYTES:
        fault = _TOO_LARGE
    if not fault:
        try:
            "".join(fields).encode()
        except UnicodeEncodeError:
            fault = _undecodable(dialect)
    bad = BadRow(position, *fault, begun) if fault else None
    return ParsedRow(position, None if bad else fields, bad, size, begun)


def _undecodable(dialect: Dialect) -> Fault:
    if is_utf8(dialect):
        detail = "a field holds bytes that are not UTF-8; --encoding names the encoding of a file that is not UTF-8"
        return "invalid_utf8", detail
    return "invalid_encoding", f"a field holds bytes that are not {dialect.encoding}"


CSV = Format(name="csv", endings=CSV_ENDINGS, inspect=inspect, spans=spans, read=read, written_as="cell")
