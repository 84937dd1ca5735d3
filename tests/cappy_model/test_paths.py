"""What paths and URLs mean."""

import os
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given
from hypothesis import strategies as st

from cappy_model.paths import (
    absolute,
    encodable,
    expanded,
    file_system,
    is_local,
    is_web,
    local_path,
    path_of,
    readable,
    shareable,
    shareable_values,
)
from schemas.errors import UsageError


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/a/b", "/a/b"),
        ("a/b", "a/b"),
        ("file:///a/b", "/a/b"),
        ("file:/a/b", "/a/b"),
        ("file://localhost/a/b", "/a/b"),
        ("FILE:///a/b", "/a/b"),
        ("local:///a/b", "/a/b"),
        ("file:///my%20data/%5Bv1%5D/100%25", "/my data/[v1]/100%"),
        ("file:///caf%C3%A9", "/café"),
        ("file:///caf%E9", os.fsdecode(b"/caf\xe9")),
        ("file:x", "file:x"),
        ("run::1.jsonl", "run::1.jsonl"),
        ("2024-01-01T10:00:00.jsonl", "2024-01-01T10:00:00.jsonl"),
        ("C:\\data\\x.jsonl", "C:\\data\\x.jsonl"),
        ("C://data", "C://data"),
        ("./s3://b", "./s3://b"),
        ("a#b?c.jsonl", "a#b?c.jsonl"),
        ("~nosuchuser/x", "~nosuchuser/x"),
        ("s3://b/x", None),
        ("simplecache::s3://b/x", None),
        ("zip://a.csv::/b.zip", None),
        ("http://h/x", None),
    ],
)
def test_what_is_local(url: str, path: str | None) -> None:
    assert local_path(url) == path
    assert is_local(url) == (path is not None)


def test_home_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of me")
    assert local_path("~/x.jsonl") == absolute("~/x.jsonl") == "/home/of me/x.jsonl"
    assert absolute("~", "/base") == "/home/of me"
    assert absolute("~root/x") == f"{os.path.expanduser('~root')}/x"
    assert [expanded(name) for name in ("~/m", "file:///m", "org/m@main", "s3://b/m", "m")] == [
        *("/home/of me/m", "/m", "org/m@main", "s3://b/m", "m")
    ]


@pytest.mark.parametrize("url", ["file://data/x", "file://~/x", "file://./x", "local://data"])
def test_file_urls_without_an_absolute_path_are_refused(url: str) -> None:
    for use in (local_path, absolute, lambda url: file_system(url, {})):
        with pytest.raises(UsageError, match=r"three slashes before an absolute path; give file:///folder/name"):
            use(url)


def test_names_with_percent_signs_are_taken_as_written_where_they_exist(tmp_path: Path) -> None:
    assert absolute(f"file://{tmp_path}/my%20data/a%41") == f"{tmp_path}/my data/aA"
    (tmp_path / "my%20data").mkdir()
    assert absolute(f"file://{tmp_path}/my%20data/a%41") == f"{tmp_path}/my%20data/aA"
    (tmp_path / "my%20data" / "a%41").touch()
    assert absolute(f"file://{tmp_path}/my%20data/a%41") == f"{tmp_path}/my%20data/a%41"
    assert absolute(f"{tmp_path}/b%20c") == f"{tmp_path}/b%20c"


def test_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("x/y", "/base") == "/base/x/y"
    assert absolute("../y", "/base/z") == "/base/y"
    assert absolute("/x/./y//z/", "/base") == "/x/y/z"
    assert absolute("file:///x/../y") == "/y"
    assert absolute("file:////x") == "/x"
    assert absolute("s3://b/x", "/base") == "s3://b/x"
    assert absolute("x", "s3://b/folder") == "s3://b/folder/x"
    assert absolute("/x", "s3://b/folder") == "/x"
    assert absolute("x") == f"{tmp_path}/x"
    assert absolute("x", "file:///base") == "/base/x"


def test_two_dots_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/deep")
    assert absolute(f"{tmp_path}/link/../x") == f"{tmp_path.resolve()}/real/x"
    assert absolute(f"{tmp_path}/link/..") == f"{tmp_path.resolve()}/real"
    assert absolute(f"{tmp_path}/real/../x") == f"{tmp_path}/x"


def test_urls_of_the_web() -> None:
    assert path_of("http://h/a/d.jsonl?token=a.gz#x") == "http://h/a/d.jsonl"
    assert path_of("simplecache::https://h/d.csv?x") == "simplecache::https://h/d.csv"
    assert path_of("/a/what?.jsonl") == "/a/what?.jsonl"
    assert path_of("s3://b/a#b?.jsonl") == "s3://b/a#b?.jsonl"
    assert is_web("HTTPS://h/x")
    assert not is_web("/http://h")


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("memory://d/run::1.csv", "/d/run::1.csv"),
        ("memory://d/zip::2.csv", "/d/zip::2.csv"),
        ("http://[::1]:80/d.csv", "http://[::1]:80/d.csv"),
    ],
)
def test_double_colons_in_the_name_of_a_remote_file(url: str, path: str) -> None:
    fs, found = file_system(url, {})
    assert (fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0], found) == (url.partition(":")[0], path)


def test_chains_of_file_systems(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/chained/x", b"content")
    for url in ("simplecache::memory://chained/x", "filecache::memory://chained/x"):
        fs, path = file_system(url, {url.partition(":")[0]: {"cache_storage": str(tmp_path)}})
        assert fs.cat_file(path) == b"content"


def test_options_of_one_file_system_among_those_of_others() -> None:
    fs, path = file_system("memory://a::b", {"memory": {"x": 1}, "y": 2})
    assert path == "/a::b" and fs.storage_options == {"x": 1, "y": 2}
    fs, path = file_system("/a::b", {"key": "k"})
    assert isinstance(fs, LocalFileSystem) and path == "/a::b"


def test_file_system_resolves_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert file_system("a b/", {})[1] == f"{tmp_path}/a b"
    assert file_system("/", {})[1] == "/"


@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name and not name.startswith(b"/")))
def test_every_path_has_text_that_names_it(name: bytes) -> None:
    path = "/" + os.fsdecode(name)
    url = encodable(path)
    url.encode()
    readable(path).encode()
    assert local_path(url) == path
    assert (url == path) == (readable(path) == path)


@given(st.text(st.characters(), max_size=20))
def test_any_text_becomes_shareable(text: str) -> None:
    shareable(text).encode()


def test_secrets_are_not_shared() -> None:
    told = "see 'http://h/d.jsonl?token=abc&x=1' and https://u:pw@h/?sig=1, http://h/#a; why? s3://key:secret@b/x"
    assert shareable(told) == "see 'http://h/d.jsonl?***' and https://u:***@h/?***, http://h/#a; why? s3://key:***@b/x"
    assert (
        shareable("https://token@h/x") == "https://***@h/x" and shareable("abfs://c@account/x") == "abfs://c@account/x"
    )
    assert shareable_values({"a": ("http://h/x?t", 1), "b": {"c": ["/x?t", None]}}) == {
        "a": ["http://h/x?***", 1],
        "b": {"c": ["/x?t", None]},
    }
