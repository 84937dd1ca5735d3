"""Opening text files: compressed and encoded ones, and names that do not say what is inside."""

import gzip
import io
import lzma
from pathlib import Path
from typing import IO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_pipelines.io.formats import opening
from beam_pipelines.io.formats.base import UTF_8, Dialect
from beam_pipelines.io.formats.opening import open_text
from beam_pipelines.io.inputs import open_input
from beam_pipelines.io.storage import StorageOptions, open_file
from schemas.errors import CappyError
from tests.beam_pipelines.io.reading import compressed, good, units

anywhere = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
ENDINGS = [".gz", ".zst", ".bz2", ".xz", ".lz4"]
LINES = b'{"a": 1}\n', b'{"a": 2}\n'


@pytest.mark.parametrize("ending", ENDINGS)
def test_several_members_and_an_empty_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"f.jsonl{ending}"
    path.write_bytes(b"".join(compressed(line, ending) for line in LINES))
    assert good(list(units(path))) == [{"a": 1}, {"a": 2}]
    path.write_bytes(b"")
    (tmp_path / "g.jsonl").write_bytes(LINES[0])
    assert good(list(units(tmp_path / "*.jsonl*"))) == [{"a": 1}], "as a part without rows"


@pytest.mark.parametrize("ending", [".gz", ".xz", ".bz2"])
@pytest.mark.parametrize("padding", [512, 100_000])
def test_zero_bytes_behind_the_last_member_are_ignored(tmp_path: Path, ending: str, padding: int) -> None:
    path = tmp_path / f"f.jsonl{ending}"
    path.write_bytes(b"".join(compressed(line, ending) for line in LINES) + b"\0" * padding)
    assert good(list(units(path))) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("stem", ["f.jsonl", "f.csv"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_names_that_do_not_say_what_is_inside(tmp_path: Path, stem: str, ending: str) -> None:
    plain, named = tmp_path / stem, tmp_path / f"{stem}{ending}"
    plain.write_bytes(compressed(LINES[0], ending))
    with pytest.raises(CappyError, match=rf"{stem}: is compressed by \w+, .*; rename it to .*/{stem}{ending}$"):
        open_input([str(plain)], {})
    named.write_bytes(LINES[0])
    with pytest.raises(CappyError, match=rf"{stem}{ending}: is not compressed by \w+, .*rename it to .*/{stem};"):
        open_input([str(named)], {})
    other = ENDINGS[ENDINGS.index(ending) - 1]
    named.write_bytes(compressed(LINES[0], other))
    with pytest.raises(CappyError, match=rf"rename it to .*/{stem}{other}$"):
        open_input([str(named)], {})


def test_a_refused_file_does_not_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[IO[bytes]] = []

    def remember(url: str, storage: StorageOptions) -> IO[bytes]:
        opened.append(open_file(url, storage))
        return opened[-1]

    monkeypatch.setattr(opening, "open_file", remember)
    path = tmp_path / "f.jsonl.gz"
    path.write_bytes(LINES[0])
    with pytest.raises(CappyError, match="is not compressed by gzip"):
        open_text(str(path), {}, UTF_8)
    assert [file.closed for file in opened] == [True]


def test_a_text_that_begins_like_a_bz2_file(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("BZh9,PAR1\nx,y\n")
    assert good(list(units(tmp_path / "f.csv"))) == [{"BZh9": "x", "PAR1": "y"}]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_damaged_stream_is_an_os_error(tmp_path: Path, ending: str) -> None:
    data = compressed(b"".join(b'{"a": "%x"}\n' % (i * 7919**5) for i in range(20_000)), ending)
    path = tmp_path / f"f.jsonl{ending}"
    middle = len(data) // 2
    checked = ending in (".gz", ".bz2", ".xz")  # the others are written here without a checksum
    for damaged in [data[:middle], data[:middle] + b"garbage" * 9 + data[middle + 63 :]][: 1 + checked]:
        path.write_bytes(damaged)
        with open_text(str(path), {}, UTF_8) as file, pytest.raises(OSError):  # noqa: PT011 - each library's own text
            file.read()


@anywhere
@given(
    text=st.text(st.characters(codec="utf-8")),
    encoding=st.sampled_from(["utf-16", "utf-16-be", "utf-32", "utf-7", "gb18030"]),
    ending=st.sampled_from(["", ".gz"]),
)
def test_text_in_any_encoding_arrives_as_utf8(tmp_path: Path, text: str, encoding: str, ending: str) -> None:
    path = tmp_path / f"f.csv{ending}"
    path.write_bytes(compressed(text.encode(encoding), ending))
    if not text.startswith(("BZh", "\x1f", "\x04", "\xfd", "(")):
        with open_text(str(path), {}, Dialect(encoding=encoding)) as file:
            assert file.read() == text.encode()


def test_bytes_that_an_encoding_cannot_decode_stay_in_their_line(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_bytes(b"a\n\x83\x65\n\xff\nb\n")
    with open_text(str(tmp_path / "f.csv"), {}, Dialect(encoding="shift_jis")) as file:
        lines = io.BytesIO(file.read()).readlines()
    assert [lines[0], lines[1].decode(), lines[3]] == [b"a\n", "テ\n", b"b\n"]
    with pytest.raises(UnicodeDecodeError):
        lines[2].decode()


def test_utf16_without_a_byte_order_mark_needs_its_order(tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_bytes('{"a": 1}\n'.encode("utf-16-le"))
    with pytest.raises(CappyError, match="name the order of bytes, --encoding utf-16-le or utf-16-be"):
        open_input([str(tmp_path / "f.jsonl")], {}, dialect=Dialect(encoding="utf-16"))
    assert good(list(units(tmp_path / "f.jsonl", dialect=Dialect(encoding="utf-16-le")))) == [{"a": 1}]


def test_the_header_names_the_encoding_that_it_is_not_in(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_bytes("prénom,b\né,1\n".encode("cp1252"))
    with pytest.raises(CappyError, match=r"f\.csv: its header is not UTF-8; give its encoding, such as --encoding"):
        open_input([str(tmp_path / "f.csv")], {})
    rows = good(list(units(tmp_path / "f.csv", dialect=Dialect(encoding="cp1252"))))
    assert rows == [{"prénom": "é", "b": 1}]


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_remote_files_are_decompressed(remote: dict[str, bytes], pack: type) -> None:
    ending = ".gz" if pack is gzip.compress else ".xz"
    remote[f"/d/a.csv{ending}"] = pack(b"a,b\n" + b"1,x\n" * 5000)
    assert len(good(list(units(f"remote://host:1/d/a.csv{ending}", 1000)))) == 5000
