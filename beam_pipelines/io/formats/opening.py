"""Open text files: decompressed, decoded, and refused in a sentence if they are something else."""

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from contextlib import ExitStack
from typing import IO, Any

import pyarrow as pa

from beam_pipelines.io.columns import UnreadableFile
from beam_pipelines.io.formats.base import COMPRESSIONS, Dialect, compression_of
from beam_pipelines.io.storage import StorageOptions, open_file

_BUFFER_BYTES = 2**20
_HEAD_BYTES = 64

_MAGIC = {
    "gzip": b"\x1f\x8b",
    "zstd": b"\x28\xb5\x2f\xfd",
    "bz2": b"BZh",
    "xz": b"\xfd7zXZ\x00",
    "lz4": b"\x04\x22\x4d\x18",
}
_BLOCK_OF_BZ2 = (b"1AY&SY", b"\x17rE8P\x90")
_BYTE_ORDER_MARKS = {
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
_UTF_8_NAMES = ("utf-8", "utf-8-sig")


def is_utf8(dialect: Dialect) -> bool:
    """Return whether files of this dialect are read without being decoded first."""
    return dialect.encoding is None or codecs.lookup(dialect.encoding).name in _UTF_8_NAMES


def open_text(url: str, storage: StorageOptions, dialect: Dialect, start: int = 0) -> IO[bytes]:
    """Open a text file as bytes of UTF-8, decompressed as the ending of its name says.

    A file that will be read from the byte `start` on is not looked at before, which would be one more request.
    Bytes that are invalid in the dialect's encoding become bytes that are invalid in UTF-8, in the same line. Raises
    OSError, there and while reading, for a truncated or corrupt file, and UnreadableFile for one of another kind.
    """
    compression = compression_of(url)
    file = open_file(url, storage)
    with ExitStack() as unless_opened:
        unless_opened.callback(file.close)
        head = b"" if start else peek(file)
        _check_compression(url, head, compression)
        unless_opened.pop_all()
    if compression and head:
        file = io.BufferedReader(_Decompressed(file, compression), _BUFFER_BYTES)
    if is_utf8(dialect):
        return file
    assert dialect.encoding is not None
    return io.BufferedReader(_Recoded(file, dialect.encoding), _BUFFER_BYTES)


def peek(file: IO[bytes]) -> bytes:
    """Return the first 64 bytes of a file, which stays at its beginning."""
    if isinstance(file, io.BufferedReader):  # a file by HTTP may be unable to seek
        return file.peek(_HEAD_BYTES)[:_HEAD_BYTES]
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    return head


def _check_compression(url: str, head: bytes, compression: str | None) -> None:
    """Raise UnreadableFile if the first bytes of a file are not what the ending of its name says."""
    found = next((name for name, magic in _MAGIC.items() if head.startswith(magic)), None)
    if found == "bz2" and head[4:10] not in _BLOCK_OF_BZ2:
        found = None
    if not head or found == compression:
        return
    endings = {name: ending for ending, name in COMPRESSIONS.items()}
    stem = url[: -len(endings[compression])] if compression else url
    if found:
        raise UnreadableFile(
            f"{url}: is compressed by {found}, which its name does not say; rename it to {stem}{endings[found]}"
        )
    raise UnreadableFile(
        f"{url}: is not compressed by {compression}, as its name says. If it is plain text, rename it to {stem}; "
        "else fetch or write it again."
    )


def describe_other(head: bytes, dialect: Dialect) -> str | None:
    """Return what a file that is no text in `dialect` is, and what to do, if its first bytes tell; else None."""
    start = head.lstrip(codecs.BOM_UTF8).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "is an HTML page, such as a site's error or login page; download the data itself"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the data; fetch it with `git lfs pull`"
    if head.startswith(b"PAR1") and (b"\x00" in head or b"\x15" in head):
        return "is a Parquet file; let its name end in .parquet"
    if head.startswith(b"PK\x03\x04"):
        return "is a zip file, such as a workbook of Excel; unpack it, or save the sheet as CSV"
    return _describe_encoding(head) if is_utf8(dialect) else None


def _describe_encoding(head: bytes) -> str | None:
    for name, marks in _BYTE_ORDER_MARKS.items():
        if head.startswith(marks):
            return f"is {name.upper()} text; give --encoding {name}"
    for name, nulls, others in (("utf-16-le", head[1::2], head[::2]), ("utf-16-be", head[::2], head[1::2])):
        if nulls and nulls.count(0) > len(nulls) // 2 and not others.count(0):
            return f"looks like UTF-16 text; give --encoding {name}"
    return None


class _Decompressed(io.RawIOBase):
    """The decompressed bytes of a file. Raises OSError where the compressed ones are truncated or corrupt.

    gzip(1) ignores zero bytes behind the last member, which blocks of a tape leave there, and so does Python's gzip.
    Arrow has no xz; Python 3.11 has no zstd and no lz4.
    """

    def __init__(self, file: IO[bytes], compression: str) -> None:
        self._file = file
        if compression == "gzip":
            self._stream: Any = gzip.GzipFile(fileobj=file)
        elif compression == "bz2":
            self._stream = bz2.BZ2File(file)
        elif compression == "xz":
            self._stream = lzma.LZMAFile(file, format=lzma.FORMAT_XZ)  # noqa: SIM115 - closed with `file`
        else:
            self._stream = pa.CompressedInputStream(pa.PythonFile(file, "r"), compression)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        try:
            # A large read would lose the bytes that stand before a damaged place.
            data = self._stream.read1(min(len(buffer), io.DEFAULT_BUFFER_SIZE))
        except (EOFError, zlib.error, lzma.LZMAError) as error:
            raise OSError(str(error)) from error
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _mark_undecodable(error: UnicodeError) -> tuple[str, int]:
    """Decode invalid bytes as half of a surrogate pair, which UTF-8 cannot encode: an error handler for codecs."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udcff", error.end


codecs.register_error("cappy-undecodable", _mark_undecodable)


class _Recoded(io.RawIOBase):
    """The text of a file in another encoding, as UTF-8; invalid bytes become invalid UTF-8."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._file = file
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("cappy-undecodable")
        self._ready = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        while not self._ready and not self._ended:
            data = self._file.read(_BUFFER_BYTES)
            self._ended = not data
            try:
                self._ready = self._decoder.decode(data, final=self._ended).encode("utf-8", "surrogatepass")
            except UnicodeError as error:  # UTF-16 without a byte order mark
                name = self._encoding
                raise OSError(f"{error}; name the order of bytes, --encoding {name}-le or {name}-be") from error
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
