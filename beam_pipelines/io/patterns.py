"""Patterns of files: `*`, `**`, `?`, `[...]`, `{a,b}`, and lists with commas. What exists by a name is meant by it."""

import fnmatch
import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import takewhile
from typing import NamedTuple
from urllib.parse import unquote

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from beam_pipelines.io.braces import expand_braces, top_level
from beam_pipelines.io.formats.base import COMPRESSIONS
from beam_pipelines.io.storage import StorageOptions, explained, file_system
from cappy_model.paths import absolute, encodable, is_local, is_web, path_of, readable
from schemas.errors import CappyError

_SPECIAL = re.compile(r"[*?\[{]")
_WILDCARD = re.compile(r"[*?\[]")
_WEB_WILDCARD = re.compile(r"[*\[]")  # `?` begins the query
_URL = re.compile(r"\s*[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
_ENDING = re.compile(rf"\.[a-z]\w*({'|'.join(map(re.escape, COMPRESSIONS))})?$", re.IGNORECASE)
_REJECTS = "rejects"  # the folder of a run, below its own, that is no input of another
_MEMORY = re.compile(r"(\w+::)*memory://")
_SYNTAX = (
    "`*`, `?` and `[...]` stand for parts of a name, `**` for folders of any depth, `{a,b}` for alternatives, and a "
    "comma separates patterns"
)


class _Matches(NamedTuple):
    """Files found on one file system: their paths, the fixed part of these, and what their URLs have before them."""

    before: str
    fixed: str
    paths: Sequence[str]


def find(pattern: str, options: StorageOptions, *, outside: str | None = None) -> dict[str, str]:
    """Find the files that match a pattern; return URL -> name, sorted by URL.

    A pattern, or leading folders of it, that exist by that very name are meant literally. Else commas outside braces
    and brackets separate patterns, braces are expanded as in shells, and the wildcards of each are matched. They skip
    files and folders whose names begin with `.` or `_`, except partitions such as `_a=1`, unless the pattern has a
    name that begins so. Names are relative to the part that is fixed in all patterns.

    Args:
      pattern: a path or URL.
      options: options for fsspec.
      outside: a folder; wildcards do not match the files in it, unless all that they could match lies in it.

    Raises CappyError if a part of the pattern matches no file, if it is a folder, or if two parts match the same file.
    """
    outside = outside and absolute(outside)
    found = [_match(alternative, options, outside) for alternative in alternatives(pattern, options)]
    names: dict[str, str] = {}
    for matches in found:
        fixed = _common([other.fixed for other in found if _place(other) == _place(matches)])
        for path in matches.paths:
            url = matches.before + path if matches.before or is_web(path) else encodable(path)
            if url in names:
                raise CappyError(f"{url}: matches two parts of {pattern}; its rows would count twice")
            names[url] = readable(path_of(path).removeprefix(fixed))
    return dict(sorted(names.items()))


def absolute_pattern(pattern: str, options: StorageOptions, base: str) -> str:
    """Resolve every pattern of a list against the folder `base`, see `absolute`. Raises CappyError as `find` does."""
    return ",".join(_list(pattern, options, base))


def alternatives(pattern: str, options: StorageOptions) -> list[str]:
    """Return the absolute patterns, without commas and braces, that a pattern stands for."""
    found = []
    for part in _list(pattern, options):
        fs, path = file_system(part, options)
        start = 0
        if "{" in path:
            with explained(part, "listed"):
                start = len(path) if _kind(fs, path) else _literal(fs, path)
        before = part.removesuffix(path)
        found += [part] if before == part else [before + path[:start] + tail for tail in expand_braces(path[start:])]
    return found


def _list(pattern: str, options: StorageOptions, base: str = "") -> list[str]:
    """Return the absolute patterns of a list with commas."""
    commas = [place for place, character in top_level(pattern) if character == ","]
    if path_of(pattern) != pattern:  # a query may have commas: one that separates comes before another URL
        end = next((place for place in commas if _URL.match(pattern, place + 1)), len(pattern))
    else:
        end = _end_of_first(pattern, commas, options, base)
    first, comma, rest = pattern[:end], pattern[end : end + 1], pattern[end + 1 :].lstrip()
    if comma and not (first and rest):
        raise CappyError(f"{pattern}: has nothing before or after a comma; a comma separates patterns")
    return [absolute(first, base), *(_list(rest, options, base) if comma else [])]


def _end_of_first(pattern: str, commas: Sequence[int], options: StorageOptions, base: str) -> int:
    """Return where the first pattern of a list ends: at the first comma that is no part of a name that exists."""

    def kind(end: int) -> str | None:
        url = absolute(pattern[:end], base)
        with explained(url, "listed"):
            return _kind(*file_system(url, options))

    names = [match.span() for match in re.finditer("[^/]+", pattern) if "," in match[0]] if commas else []
    literal = next((end for _, end in reversed(names) if end < len(pattern) and kind(end) == "folder"), -1)
    left = [place for place in commas if place > literal]
    if not left:
        return len(pattern)
    ends = [end for end in (len(pattern), *reversed(left[1:])) if "/" not in pattern[left[0] : end]]
    return next((end for end in ends if kind(end)), left[0])


def _match(pattern: str, options: StorageOptions, outside: str | None) -> _Matches:
    """Return the files of a pattern without commas and braces. Raises CappyError for a folder, and if it has none."""
    fs, path = file_system(pattern, options)
    # fsspec strips the protocol from paths, and for some file systems the host; the pattern has both as its prefix.
    before = "" if is_local(pattern) else pattern.removesuffix(path)
    if before == pattern:
        raise CappyError(f"{pattern}: its file system names this path {path}; write it the same way in the URL")
    with explained(pattern, "listed"):
        fs.invalidate_cache()  # an earlier job of this process may have written there since the last listing
        kind = _kind(fs, path)
        if kind == "folder":
            proposal = before + path.rstrip("/") + _proposal(fs, path)
            raise CappyError(f"{pattern}: is a folder; give a pattern of files, such as {proposal}")
        start = len(path) if kind else _literal(fs, path)
        wildcard = (_WEB_WILDCARD if is_web(path) else _WILDCARD).search(path, start)
        fixed = path[: path.rfind("/", 0, wildcard.start() if wildcard else len(path_of(path))) + 1]
        matching = sorted(_glob(fs, fixed, path[len(fixed) :])) if wildcard else [path] if kind else []
        hidden = {name for name in matching if wildcard and is_hidden(name[len(fixed) :], path[len(fixed) :])}
        paths = [name for name in matching if name not in hidden]
        if not paths:
            below = [before + other for other in _deeper(fs, fixed, path[len(fixed) :])] if wildcard else []
            raise CappyError(f"{pattern}: {_nothing(pattern, min(hidden, default='')[len(fixed) :], below)}")
        if wildcard and outside:
            paths = _leave_out(paths, fixed, fs, outside, options)
    return _Matches(before, fixed, paths)


def _glob(fs: fsspec.AbstractFileSystem, fixed: str, rest: str) -> Iterator[str]:
    """Yield the files below the folder `fixed` whose path relative to it matches `rest`.

    Folders that are links are entered by a name or `*`, but not by `**`, as in bash.
    """
    parts = [part if part == "**" else re.sub(r"\*+", "*", part) for part in rest.split("/")]
    if isinstance(fs, LocalFileSystem) and "**" not in parts:
        yield from _glob_here(fixed, parts)
        return
    matches = re.compile(glob_translate("/".join(parts))).match
    web = is_web(fixed)
    for name, info in fs.find(fixed, maxdepth=None if "**" in parts else len(parts), detail=True).items():
        below = name.removeprefix(fixed)
        if below == name or not (matches(below) or (web and matches(unquote(below)))):
            continue
        if info.get("type") == "file" or not fs.isdir(name):
            yield name


def _glob_here(folder: str, parts: Sequence[str]) -> Iterator[str]:
    """Yield the files below a folder on this machine whose path relative to it has names that match `parts`."""
    matches = re.compile(glob_translate(parts[0])).match
    if not os.path.isdir(folder):
        return
    for entry in os.scandir(folder):
        if not matches(entry.name):
            continue
        if len(parts) > 1:
            yield from _glob_here(f"{entry.path}/", parts[1:])
        elif not entry.is_dir():
            yield entry.path


def _leave_out(
    paths: list[str], fixed: str, fs: fsspec.AbstractFileSystem, outside: str, options: StorageOptions
) -> list[str]:
    """Return the paths that are not below the folder `outside`, which may not exist; all if `fixed` is below it.

    Raises CappyError if none is left.
    """
    other, folder = file_system(outside, options)
    resolve: Callable[[str], str] = cache(os.path.realpath) if is_local(outside) else str
    inside = resolve(folder).rstrip("/") + "/"

    def lies_inside(path: str) -> bool:
        return f"{resolve(posixpath.dirname(path))}/".startswith(inside)

    if fs != other or lies_inside(fixed):
        return paths
    left = [path for path in paths if not lies_inside(path)]
    if not left:
        raise CappyError(
            f"{paths[0]}: is in the output folder {outside}, and the pattern matches no other file; give files outside "
            "it, or another output"
        )
    return left


def is_hidden(path: str, pattern: str) -> bool:
    """Return whether the wildcards of a relative pattern skip a path that they match: see `find`."""
    parts = pattern.split("/")
    return any(
        (name.startswith(".") or (name.startswith("_") and "=" not in name))
        and not any(_spells(part, name[0]) and fnmatch.fnmatchcase(name, part) for part in parts)
        for name in path.split("/")
    )


def _spells(part: str, first: str) -> bool:
    """Return whether a part of a pattern asks for names that begin with the character `first`."""
    return part.startswith(first) or (
        part[:1] == "[" and part[1:2] not in "!^" and first in part[1 : part.find("]", 2)]
    )


def _kind(fs: fsspec.AbstractFileSystem, path: str) -> str | None:
    """Return "file" or "folder" for what exists at a path; None if nothing does."""
    if is_web(path):  # whose folders are pages of links: whether a page is one cannot be told without reading it
        plain = path_of(path)
        if plain.endswith("/") or ("." not in posixpath.basename(plain) and fs.isdir(path)):
            return "folder"
        return "file" if "*" not in plain and fs.exists(path) else None
    if fs.isdir(path):
        return "folder"
    return "file" if fs.exists(path) else None


def _literal(fs: fsspec.AbstractFileSystem, path: str) -> int:
    """Return where the first name begins that has special characters and is no folder of that name."""
    start = path.find("/", path.find("://") + 3) + 1 if "://" in path else 0
    while (end := path.find("/", start)) >= 0:
        if _SPECIAL.search(path, start, end) and not fs.isdir(path[:end]):
            break
        start = end + 1
    return start


def _place(matches: _Matches) -> str:
    """Return the file system of files, to tell whether their paths have a part in common."""
    return matches.before or "/".join(matches.fixed.split("/")[:3] if is_web(matches.fixed) else "")


def _common(folders: Sequence[str]) -> str:
    """Return the folder, with its `/`, that all folders lie in."""
    names = zip(*(folder.split("/")[:-1] for folder in folders), strict=False)
    return "".join(f"{same[0]}/" for same in takewhile(lambda same: len(set(same)) == 1, names))


def _proposal(fs: fsspec.AbstractFileSystem, path: str) -> str:
    """Return a pattern for the files of a folder, by the most frequent ending of those that lie in it."""
    below = {posixpath.basename(info["name"].rstrip("/")): info["type"] for info in fs.ls(path, detail=True)}
    shown = [name for name in below if not is_hidden(name, "*")]
    endings = Counter(ending[0] for name in shown if (ending := _ENDING.search(name)))
    if endings:
        return f"/*{endings.most_common(1)[0][0]}"
    return "/**/*.parquet" if any(below[name] == "directory" for name in shown) else "/*.parquet"


def _deeper(fs: fsspec.AbstractFileSystem, fixed: str, rest: str) -> list[str]:
    """Return the patterns one folder below `fixed` that have files, where that is cheap to find out."""
    if is_web(fixed) or "/" in rest:
        return []
    folders = {name[len(fixed) :].split("/")[0] for name in _glob(fs, fixed, f"*/{rest}")}
    return [
        f"{fixed}{folder}/{rest}" for folder in sorted(folders) if not is_hidden(folder, "*") and folder != _REJECTS
    ]


def _nothing(pattern: str, hidden: str, below: Sequence[str]) -> str:
    """Return why a pattern has no files.

    `hidden` is one that wildcards skip, or "" for none; `below` are patterns of folders below that have files.
    """
    if hidden:
        return (
            "matches only files that wildcards skip, as they do in other tools: names of files and folders that begin "
            f"with `.` or `_`, such as {readable(hidden)}; begin that part of the pattern with the same character"
        )
    if below:
        return f"no file matches; give {' or '.join(readable(name) for name in below[:3])}"
    if _MEMORY.match(pattern):
        return (
            "no file matches: memory:// is the memory of this process, which is empty when a command starts; give "
            "files on a disk or an object store"
        )
    if is_web(pattern) and path_of(pattern) != pattern and _WEB_WILDCARD.search(path_of(pattern)):
        return "no file matches: a URL with a query names one file; give the files one by one, separated by commas"
    brackets = ". Brackets are wildcards, too: write [[] for a [ as such" if "[" in pattern else ""
    return f"no file matches; check the path and the working directory. In a pattern, {_SYNTAX}{brackets}"
