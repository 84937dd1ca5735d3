import os
from pathlib import Path

import fsspec
import pytest

from beam_pipelines.io import storage
from beam_pipelines.io.patterns import find
from beam_pipelines.io.storage import (
    OutputError,
    file_system,
    open_file,
    read_bytes,
    write_whole,
    written_whole,
)
from schemas.errors import CappyError


@pytest.mark.parametrize("protocol", ["", "file://", "memory://"])
def test_written_whole_and_read_back(tmp_path: Path, protocol: str) -> None:
    url = f"{protocol}{tmp_path}/new/folder/file"
    assert read_bytes(url, {}) is None
    write_whole(url, b"one", {})
    write_whole(url, b"two", {})
    assert read_bytes(url, {}) == b"two"
    fs, path = fsspec.core.url_to_fs(f"{protocol}{tmp_path}/new/folder")
    assert [os.path.basename(name) for name in fs.find(path)] == ["file"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    write_whole(str(target), b"old", {})

    def full(source: str, destination: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match=r"file: cannot be written: No space left on device\. Free space"):
        write_whole(str(target), b"new", {})
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_block_that_fails_leaves_the_old_file_and_its_own_error(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_bytes(b"old")

    def write() -> None:
        with written_whole(str(target), {}) as file:
            file.write(b"new")
            (tmp_path / "source").read_bytes()

    with pytest.raises(FileNotFoundError, match="source"):
        write()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is full")
def test_a_full_disk_is_an_error_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.csv"
    monkeypatch.setattr(storage, "_temporary", lambda path: "/dev/full")
    monkeypatch.setattr(os, "unlink", lambda name: None)
    for size in (1, 10_000_000):  # fails as the file is closed, or while it is written

        def write(size: int = size) -> None:
            with written_whole(str(target), {}) as file:
                file.write(b"x" * size)

        with pytest.raises(OutputError, match=r"out\.csv: cannot be written: No space left on device\. Free space"):
            write()
    assert not target.exists()


def test_a_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "out.csv" / "below").mkdir(parents=True)

    def write() -> None:
        with written_whole(str(tmp_path / "out.csv"), {}) as file:
            file.write(b"x")

    with pytest.raises(OutputError, match=r"out\.csv: cannot be written: Is a directory\. Give the name of a file\."):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="below: cannot be written"):
        write_whole(str(tmp_path / "file" / "below"), b"x", {})


def test_remote_files_are_files(remote: dict[str, bytes]) -> None:
    """The `readline` of remote file systems takes no size."""
    remote["/a"] = b"".join(b"line %d\n" % i for i in range(1000))
    with open_file("remote://host/a", {}) as file:
        assert file.readline(3) + file.readline(100) == b"line 0\n"
        file.seek(-9, os.SEEK_END)
        assert file.readlines() == [b"line 999\n"]


def test_errors_of_file_systems_are_explained(remote: dict[str, bytes]) -> None:
    url = "remote://locked/a"
    for attempt in (lambda: find(url, {}), lambda: read_bytes(url, {}), lambda: open_file(url, {})):
        with pytest.raises(CappyError, match="remote://locked/a: cannot be .*: NoCredentials: unable to locate"):
            attempt()
    with pytest.raises(OutputError, match="remote://locked/a: cannot be written: NoCredentials"):
        write_whole(url, b"", {})
    with pytest.raises(CappyError, match="nosuch://a: cannot be opened: .* `cappy doctor`"):
        file_system("nosuch://a", {})
    with pytest.raises(CappyError, match="remote://host/a: cannot be opened: TypeError"):
        file_system("remote://host/a", {"host": "given twice"})
