"""Patterns of files: what they find, what they leave out, and what they say."""

import functools
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.io.patterns import absolute_pattern, alternatives, find, is_hidden
from beam_pipelines.io.storage import open_file, read_bytes
from schemas.errors import CappyError
from tests.beam_pipelines.io.remote_files import Remote


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def names(pattern: Path | str, **options: str) -> list[str]:
    found = find(str(pattern), {}, **options)
    assert all(read_bytes(url, {}) is not None for url in found)
    return list(found.values())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("remote://host:50070/d/*.jsonl", {"remote://host:50070/d/a.jsonl": "a.jsonl"}),
        ("remote://host:50070/**/a.jsonl", {"remote://host:50070/d/a.jsonl": "d/a.jsonl"}),
        ("remote://host:50070/d/a.jsonl", {"remote://host:50070/d/a.jsonl": "a.jsonl"}),
        (
            "remote://host/{d,e}/*.jsonl",
            {"remote://host/d/a.jsonl": "d/a.jsonl", "remote://host/e/b.jsonl": "e/b.jsonl"},
        ),
        (
            "remote://host/d/a.jsonl,remote://host/d/x::y.csv",
            {"remote://host/d/a.jsonl": "a.jsonl", "remote://host/d/x::y.csv": "x::y.csv"},
        ),
        ("remote://host/d/*.csv", {"remote://host/d/x::y.csv": "x::y.csv"}),
        ("memory://d/*.jsonl", {"memory://d/a.jsonl": "a.jsonl"}),
        ("memory:///d/*.jsonl", {"memory:///d/a.jsonl": "a.jsonl"}),
        ("memory:///d/*.csv", {"memory:///d/x::y.csv": "x::y.csv"}),
        ("memory://d/x::y.csv", {"memory://d/x::y.csv": "x::y.csv"}),
    ],
)
def test_found_files_keep_their_host(remote: dict[str, bytes], pattern: str, found: dict[str, str]) -> None:
    for name in ("/d/a.jsonl", "/d/x::y.csv", "/e/b.jsonl"):
        remote[name] = b"x"
        fsspec.filesystem("memory").pipe(name, b"x")
    assert find(pattern, {}) == found
    for url in found:
        assert read_bytes(url, {}) == b"x"
        with open_file(url, {}) as file:
            assert file.read() == b"x"


def test_files_are_found_that_came_after_the_last_look(
    remote: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Object stores' file systems remember listings, and `rerank --model` reads what the job before it has written."""
    listings: dict[str, list[object]] = {}
    fresh = Remote.ls
    monkeypatch.setattr(Remote, "ls", lambda self, path, **_: listings.setdefault(path, fresh(self, path)))
    monkeypatch.setattr(Remote, "invalidate_cache", lambda self, path=None: listings.clear())
    for name in ("a", "b"):
        remote[f"/folder/{name}.csv"] = b"x"
        found = find("remote://host/folder/*.csv", {})
    assert list(found.values()) == ["a.csv", "b.csv"]


def test_local_files_are_named_however_their_folder_is_written(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(here, "my d/a.jsonl")
    monkeypatch.setenv("HOME", str(here))
    folders = [
        *(f"{here}/my d", f"{here}//my d", f"{here}/my d/../my d", "my d", "./my d", "~/my d"),
        *(f"file://{here}/my d", f"file:{here}/my%20d", f"file://localhost{here}/my%20d", f"local://{here}/my d"),
    ]
    for folder in folders:
        for pattern in ("*.jsonl", "a.jsonl", "?.jsonl"):
            assert find(f"{folder}/{pattern}", {}) == {f"{here}/my d/a.jsonl": "a.jsonl"}


ODD = [
    "run [v1]",
    "a{b,c}d",
    "x,y",
    "q?",
    "s*",
    "run::1",
    "a#b",
    "100%",
    "2024-01-01T10:00:00",
    "x😀",
    "~",
    " b ",
    "a'\"",
    "'\"",
    "file:",
    "s3:",
    "a\nb",
    "-x",
    "\\",
]


@pytest.mark.parametrize("odd", ODD)
def test_what_exists_by_a_name_is_meant_by_it(here: Path, odd: str) -> None:
    make(here, f"{odd}.jsonl", f"{odd}/1.jsonl", f"{odd}/2.jsonl", "run v.jsonl", "abd.jsonl", "qq.jsonl", "s/3.jsonl")
    assert names(f"./{odd}.jsonl") == [f"{odd}.jsonl"]
    assert names(here / f"{odd}.jsonl") == [f"{odd}.jsonl"]
    assert names(f"./{odd}/1.jsonl") == ["1.jsonl"]
    assert names(f"./{odd}/*.jsonl") == ["1.jsonl", "2.jsonl"]
    assert names(f"./{odd}/{{1,2}}.jsonl") == ["1.jsonl", "2.jsonl"]
    assert names(f"./{odd}/2.jsonl,./{odd}/1.jsonl") == ["1.jsonl", "2.jsonl"]
    assert names(absolute_pattern(f"1.jsonl,../{odd}.jsonl", {}, f"{here}/{odd}")) == sorted(
        [f"{odd}.jsonl", f"{odd}/1.jsonl"]
    )


def test_wildcards_in_a_folder_with_an_odd_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for odd in ODD:
        make(tmp_path / odd, "a.jsonl", "b.jsonl", "c/d.jsonl")
        monkeypatch.chdir(tmp_path / odd)
        assert names("*.jsonl") == ["a.jsonl", "b.jsonl"]
        assert names("**/*.jsonl") == ["a.jsonl", "b.jsonl", "c/d.jsonl"]
        assert names("a.jsonl,c/*") == ["a.jsonl", "c/d.jsonl"]


def test_braces_and_lists(here: Path) -> None:
    make(here, "train.jsonl", "test.jsonl", "a/1.jsonl", "b/1.jsonl", "b/x,y.jsonl", "part-08.csv", "part-09.csv")
    assert names("{train,test}.jsonl") == ["test.jsonl", "train.jsonl"]
    assert names("train.jsonl, test.jsonl") == ["test.jsonl", "train.jsonl"]
    assert names("{a,b}/1.jsonl") == names("a/*.jsonl,b/1.jsonl") == ["a/1.jsonl", "b/1.jsonl"]
    assert names("{a/*,t{rain,est}}.jsonl") == ["a/1.jsonl", "test.jsonl", "train.jsonl"]
    assert names("part-{08..09}.csv") == ["part-08.csv", "part-09.csv"]
    assert names("a/1.jsonl,b/x,y.jsonl") == names("b/x,y.jsonl,a/1.jsonl") == ["a/1.jsonl", "b/x,y.jsonl"]
    assert names(f"a/../test.jsonl,b/../train.jsonl,file://{here}/a/1.jsonl") == [
        "a/1.jsonl",
        *("test.jsonl", "train.jsonl"),
    ]
    assert names("[ab]/1.jsonl") == ["a/1.jsonl", "b/1.jsonl"]
    with pytest.raises(CappyError, match=r"/tran\.jsonl: no file matches; .*`\{a,b\}` for alternatives, and a comma"):
        find("{train,tran}.jsonl", {})
    with pytest.raises(CappyError, match=r"/c\*\.jsonl: no file matches"):
        find("train.jsonl,c*.jsonl", {})
    with pytest.raises(CappyError, match=r"/train\.jsonl: matches two parts of train\.jsonl,t\*\.jsonl; its"):
        find("train.jsonl,t*.jsonl", {})
    for pattern in ("train.jsonl,", ",train.jsonl"):
        with pytest.raises(CappyError, match="has nothing before or after a comma"):
            find(pattern, {})


def test_a_list_of_files_on_several_file_systems(here: Path, remote: dict[str, bytes]) -> None:
    make(here, "d/a.jsonl", "e/b.jsonl")
    remote["/x/a.jsonl"] = b"x"
    assert find("d/*.jsonl,e/*.jsonl,remote://host/x/*.jsonl", {}) == {
        f"{here}/d/a.jsonl": "d/a.jsonl",
        f"{here}/e/b.jsonl": "e/b.jsonl",
        "remote://host/x/a.jsonl": "a.jsonl",
    }


def test_lists_are_resolved_against_a_folder(here: Path) -> None:
    make(here, "m/a.jsonl", "m/b,c.jsonl", "d.jsonl")
    resolved = absolute_pattern("a.jsonl,b,c.jsonl,../d.jsonl,s3://b/x.jsonl", {}, f"{here}/m")
    assert resolved == f"{here}/m/a.jsonl,{here}/m/b,c.jsonl,{here}/d.jsonl,s3://b/x.jsonl"
    assert names(absolute_pattern("a.jsonl,../d.jsonl", {}, f"{here}/m")) == ["d.jsonl", "m/a.jsonl"]
    assert alternatives("m/{a,b*}.jsonl,d.jsonl", {}) == [f"{here}/m/a.jsonl", f"{here}/m/b*.jsonl", f"{here}/d.jsonl"]


HIDDEN = [
    "._a.parquet",
    ".a.parquet.crc",
    "_delta_log/0.parquet",
    "_temporary/0/b.parquet",
    ".hidden/c.parquet",
    "_SUCCESS",
]


def test_wildcards_skip_what_other_tools_skip(here: Path) -> None:
    make(here, "t/a.parquet", "t/_col=1/b.parquet", *(f"t/{name}" for name in HIDDEN))
    assert names("t/**/*.parquet") == ["_col=1/b.parquet", "a.parquet"]
    assert names("t/*") == names("t/*.parquet") == ["a.parquet"]
    assert names("t/**") == ["_col=1/b.parquet", "a.parquet"]
    assert names("t/.hidden/*.parquet") == ["c.parquet"]
    assert names("t/.h*/*.parquet") == names("t/[.]hidden/*.parquet") == [".hidden/c.parquet"]
    assert names("t/_delta_log/*.parquet") == ["0.parquet"]
    assert names("*/_delta_log/*.parquet") == names("**/_delta_log/*") == ["t/_delta_log/0.parquet"]
    assert names("t/[._]*/*.parquet") == [".hidden/c.parquet", "_col=1/b.parquet", "_delta_log/0.parquet"]
    assert names("t/._*") == ["._a.parquet"]
    assert names("t/{a,._a}.parquet") == ["._a.parquet", "a.parquet"]
    assert names("t/._a.parquet") == ["._a.parquet"]
    assert names("t/_SUCC*") == ["_SUCCESS"]
    with pytest.raises(CappyError, match=r"only files that wildcards skip.* such as _temporary/0/b\.parquet; beg"):
        find("t/*/0/*.parquet", {})


@pytest.mark.parametrize(
    ("path", "pattern", "hidden"),
    [
        ("a/_b/c", "**", True),
        ("a/_b=1/c", "**", False),
        (".b=1/c", "**", True),
        ("_b", "_*", False),
        ("_b", "[!a]*", True),
        ("_b", "[^a]*", True),
        (".b", "[._]*", False),
        (".b", "[_]*", True),
        ("_b/_c", "_b/*", True),
        ("_b/_c", "_*/_*", False),
        ("b_/c.d", "*/*", False),
        ("..b", ".*", False),
    ],
)
def test_what_is_hidden(path: str, pattern: str, hidden: bool) -> None:
    assert is_hidden(path, pattern) is hidden


def test_the_output_below_the_pattern_is_left_out(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(here, "data/a.parquet", "data/out/b.parquet", "data/out/c/d.parquet", "data/outer/e.parquet")
    (here / "link").symlink_to("data")
    monkeypatch.setenv("HOME", str(here))
    for outside in (
        "data/out",
        f"{here}/data/out/",
        "data/./x/../out",
        "link/out",
        f"file://{here}/data/out",
        "~/data/out",
    ):
        assert names("data/**/*.parquet", outside=outside) == ["a.parquet", "outer/e.parquet"]
        assert names("link/**/*.parquet", outside=outside) == ["a.parquet", "outer/e.parquet"]
        assert names("data/out/*.parquet", outside=outside) == ["b.parquet"]
        assert names("data/out/c/*.parquet", outside=outside) == ["d.parquet"]
        assert names("data/out/b.parquet", outside=outside) == ["b.parquet"]
        assert names("data/{out/b,a}.parquet", outside=outside) == ["a.parquet", "out/b.parquet"]
        with pytest.raises(CappyError, match=r"out/b\.parquet: is in the output folder .*/out.*give files outside it"):
            find("data/o?t/*.parquet", {}, outside=outside)
    assert names("data/*.parquet", outside="data/new") == ["a.parquet"]
    assert names("data/*.parquet", outside="memory://b/data") == ["a.parquet"]


def test_a_remote_output_below_the_pattern_is_left_out(remote: dict[str, bytes]) -> None:
    for name in ("/d/a.csv", "/d/out/b.csv", "/d/outer/c.csv"):
        remote[name] = b"x"
    found = find("remote://host/d/**/*.csv", {}, outside="remote://host/d/out")
    assert list(found.values()) == ["a.csv", "outer/c.csv"]
    assert len(find("remote://host/d/**/*.csv", {}, outside="remote://other/d/out")) == 3
    assert len(find("remote://host/d/**/*.csv", {}, outside="/d/out")) == 3
    assert list(find("remote://host/d/out/*.csv", {}, outside="remote://host/d")) == ["remote://host/d/out/b.csv"]


def test_messages(here: Path) -> None:
    make(here, "run v1/a.jsonl", "mixed/a.jsonl.gz", "mixed/b.jsonl.gz", "mixed/c.csv", "parts/x/d.parquet", "empty/_x")
    make(here, "new/a.csv.lz4")
    for pattern, message in (
        (
            "run [v1]/a.jsonl",
            r"/a\.jsonl: no file matches; .*Brackets are wildcards, too: write \[\[\] for a \[",
        ),
        (
            "nothing/*.csv",
            r"\.csv: no file matches; check the path and the working directory\. In a pattern, `\*`",
        ),
        ("mixed", r"mixed: is a folder; give a pattern of files, such as .*/mixed/\*\.jsonl\.gz$"),
        ("mixed/", r"such as .*/mixed/\*\.jsonl\.gz$"),
        ("new", r"such as .*/new/\*\.csv\.lz4$"),
        ("parts", r"such as .*/parts/\*\*/\*\.parquet$"),
        ("empty", r"such as .*/empty/\*\.parquet$"),
        ("{mixed,parts}", r"/mixed: is a folder"),
        ("memory://nowhere/*.csv", "memory:// is the memory of this process, which is empty when a command starts"),
        ("simplecache::memory://nowhere/a.csv", "memory:// is the memory of this process"),
        ("file://relative/x.csv", "three slashes before an absolute path"),
    ):
        with pytest.raises(CappyError, match=message):
            find(pattern, {})


def test_brackets_are_escaped_in_brackets(here: Path) -> None:
    make(here, "run [v1]-2/a.jsonl", "run v-2/a.jsonl")
    assert names("run [[]v1]-?/*.jsonl") == ["run [v1]-2/a.jsonl"]
    assert names("run [v1]-?/*.jsonl") == ["run v-2/a.jsonl"]


def test_folders_that_are_links(here: Path) -> None:
    make(here, "real/deep/a.csv", "data/b/c.csv")
    (here / "data" / "link").symlink_to(here / "real")
    (here / "data" / "loop").symlink_to(here / "data")
    (here / "data" / "d.csv").symlink_to(here / "real/deep/a.csv")
    assert names("data/link/*/a.csv") == ["deep/a.csv"]
    assert names("data/*/*/a.csv") == ["link/deep/a.csv"]
    assert names("data/l*k/deep/*.csv") == ["link/deep/a.csv"]
    assert names("data/**/*.csv") == ["b/c.csv", "d.csv"]
    assert names("data/*") == ["d.csv"]


def test_two_stars_within_a_name_are_one(here: Path) -> None:
    make(here, "a/x.csv", "y.csv")
    assert names("**.csv") == ["y.csv"]
    assert names("**/**.csv") == ["a/x.csv", "y.csv"]


ANY_NAME = st.binary(min_size=1, max_size=60).filter(lambda name: not {0, 47} & set(name) and name not in (b".", b".."))


@settings(max_examples=150, deadline=None)
@given(st.sets(ANY_NAME, min_size=1, max_size=3), ANY_NAME)
def test_every_file_that_linux_can_name_is_read_by_its_name(files: set[bytes], folder: bytes) -> None:
    """Told by path, by URL, and found by wildcards, from a folder of any name."""
    with tempfile.TemporaryDirectory() as top:
        path = os.path.join(top, os.fsdecode(folder))
        os.mkdir(path)
        contents = {os.path.join(path, os.fsdecode(name)): name for name in files}
        for file, name in contents.items():
            with open(file, "wb") as opened:
                opened.write(name)
        for file, name in contents.items():
            ((url, shown),) = find(file, {}).items()
            shown.encode()
            url.encode()
            assert read_bytes(url, {}) == name
            with open_file(url, {}) as reader:
                assert reader.read() == name
        visible = [name for name in files if name[:1] not in (b".", b"_") or (name[:1] == b"_" and b"=" in name)]
        if visible:
            expected = [b"*"] if b"*" in files else sorted(visible)  # what exists by a name is meant by it
            assert sorted(read_bytes(url, {}) or b"" for url in find(f"{path}/*", {})) == expected


def test_names_that_are_no_utf_8(here: Path) -> None:
    for name in (b"caf\xe9.jsonl", b"caf\xc3\xa9.jsonl", b"caf\xe8.jsonl"):
        Path(os.fsdecode(name)).write_bytes(name)
    found = find("*.jsonl", {})
    assert sorted(found.values()) == ["caf\\xe8.jsonl", "caf\\xe9.jsonl", "café.jsonl"]
    assert {url: read_bytes(url, {}) for url in found} == {
        f"file://{here}/caf%E8.jsonl": b"caf\xe8.jsonl",
        f"file://{here}/caf%E9.jsonl": b"caf\xe9.jsonl",
        f"{here}/café.jsonl": b"caf\xc3\xa9.jsonl",
    }
    assert names(f"file://{here}/caf%E9.jsonl") == names(os.fsdecode(b"caf\xe9.jsonl")) == ["caf\\xe9.jsonl"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    make(tmp_path, "d.jsonl", "e f.jsonl", "run::1.jsonl", "in/a.jsonl", "in/b.jsonl", "x,y.jsonl")
    (tmp_path / "links.jsonl").write_text('{"text": "<a href=\'d.jsonl\'>"}\n')
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path))) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_files_of_the_web(server: str) -> None:
    pytest.importorskip("aiohttp", reason="fsspec reads over HTTP with aiohttp, which an extra brings")
    assert find(f"{server}/d.jsonl", {}) == {f"{server}/d.jsonl": "d.jsonl"}
    told = f"{server}/d.jsonl?token=a,b*c[/x.csv#y"
    assert find(told, {}) == {told: "d.jsonl"}
    assert read_bytes(told, {}) == b"d.jsonl"
    assert names(f"{server}/in/*.jsonl") == ["a.jsonl", "b.jsonl"]
    assert names(f"{server}/**/*.jsonl") == [
        *("d.jsonl", "e%20f.jsonl", "in/a.jsonl", "in/b.jsonl", "links.jsonl", "run%3A%3A1.jsonl", "x%2Cy.jsonl")
    ]
    assert names(f"{server}/e *.jsonl") == ["e%20f.jsonl"]
    assert names(f"{server}/e f.jsonl") == ["e f.jsonl"]
    assert names(f"{server}/run::1.jsonl") == ["run::1.jsonl"]
    assert names(f"{server}/x,y.jsonl") == ["x,y.jsonl"]
    assert names(f"{server}/links.jsonl") == ["links.jsonl"]
    assert names(f"{server}/in/{{a,b}}.jsonl") == ["a.jsonl", "b.jsonl"]
    assert names(f"{server}/in/a.jsonl?t=1,{server}/d.jsonl?t=2,3") == ["d.jsonl", "in/a.jsonl"]
    with pytest.raises(CappyError, match="no file matches; check"):
        find(f"{server}/none.jsonl", {})
    with pytest.raises(CappyError, match="a URL with a query names one file"):
        find(f"{server}/*.jsonl?token=abc", {})
    for folder in ("in", "in/"):
        with pytest.raises(CappyError, match=r"is a folder; give a pattern of files, such as http://.*/in/\*\.jsonl"):
            find(f"{server}/{folder}", {})


@pytest.mark.parametrize("pattern", ["*.parquet", "part-*.parquet"])
def test_a_pattern_of_an_output_folder_proposes_that_of_its_table(tmp_path: Path, pattern: str) -> None:
    for name in ("rejects", "rows", ".hidden"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part-0.parquet").touch()
    given = f"{tmp_path}/{pattern}"
    with pytest.raises(CappyError, match=re.escape(f"{given}: no file matches; give {tmp_path}/rows/{pattern}") + "$"):
        find(given, {})
    with pytest.raises(CappyError, match="no file matches; check the path"):
        find(f"{tmp_path}/*.csv", {})
