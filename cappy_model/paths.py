"""The meaning of paths and URLs: a path on this machine, or one on a file system of fsspec."""

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from schemas.errors import UsageError

_URL = re.compile(r"[a-z][a-z0-9+.-]+(::[a-z][a-z0-9+.-]+)*://", re.IGNORECASE)
_FILE_URL = re.compile(r"(?:file|local):(?=/)(?://([^/]*))?(.*)", re.IGNORECASE | re.DOTALL)
_NO_UTF_8 = re.compile("[\udc80-\udcff]")  # bytes, as os.fsdecode has them
_WEB = re.compile(r"(?:[a-z0-9+.-]+::)*https?://", re.IGNORECASE)
_QUERY = re.compile(r"(https?://[^\s?#'\"]*)\?[^\s'\"]*[^\s'\".,:;)]", re.IGNORECASE)
_PASSWORD = re.compile(r"(://[^\s:/@]*):[^\s/@]+@")
_TOKEN = re.compile(r"((?:https?|ftp)://)[^\s:/@]+@", re.IGNORECASE)


def local_path(url: str) -> str | None:
    """Return the path that `url` names on this machine, absolute or relative; None for another file system.

    `~` and `~user` are expanded, and `file:` URLs decoded: `file:///a%20b`, `file:/a%20b` and `file://localhost/a%20b`
    are all `/a b`. Bytes that are not UTF-8 are surrogates, as in `os.fsdecode`. Raises UsageError for a `file:` URL
    with a relative path or of another machine.
    """
    if url.startswith("/"):
        return url
    parts = _FILE_URL.match(url)
    if parts:
        return _unquoted(_undecoded(url))
    return None if _URL.match(url) else os.path.expanduser(url)


def is_local(url: str) -> bool:
    """Return whether `url` is on this machine."""
    return url.startswith("/") or bool(_FILE_URL.match(url)) or not _URL.match(url)


def expanded(name: str) -> str:
    """Return the absolute path of a `file:` URL or of a name with `~`; any other name, such as a hub id, as it is."""
    return absolute(name) if _FILE_URL.match(name) or name.startswith("~") else name


def is_web(url: str) -> bool:
    """Return whether `url` is read over HTTP."""
    return bool(_WEB.match(url))


def absolute(url: str, base: str = "") -> str:
    """Resolve a path against the folder `base`, by default the working directory; return other URLs as they are.

    The result for this machine is a plain path (see `local_path`). A `file:` URL is taken as it is written wherever a
    file or folder of that very name exists.
    """
    path = local_path(url)
    if path is None:
        return url
    if _FILE_URL.match(url):
        path = _decoded_where_missing(_undecoded(url))
    elif base and not is_local(base) and not os.path.isabs(path):
        return f"{base.rstrip('/')}/{path}"
    return _normalized(path if os.path.isabs(path) else os.path.join(local_path(base) or os.getcwd(), path))


def _undecoded(url: str) -> str:
    """Return the path of a `file:` URL as it is written. Raises UsageError as `local_path` does."""
    parts = _FILE_URL.match(url)
    assert parts
    if parts[1] not in (None, "", "localhost") or not parts[2]:
        raise UsageError(
            f"{url}: names the machine {parts[1]!r}, since a file URL has three slashes before an absolute path; "
            "give file:///folder/name, or the path without file://"
        )
    return parts[2]


def _decoded_where_missing(path: str) -> str:
    """Decode the percent signs of an absolute path, except in names that exist as they are written."""
    found = ""
    for name in path.split("/")[1:]:
        found += f"/{name if '%' in name and os.path.lexists(f'{found}/{name}') else _unquoted(name)}"
    return found


def _unquoted(name: str) -> str:
    return unquote(name, errors="surrogateescape")


def _normalized(path: str) -> str:
    """Remove `.`, `..` and double slashes from an absolute path; `..` behind a link is the parent of its target."""
    path = "/" + path.lstrip("/")
    end = f"{path}/".rfind("/../")
    if end >= 0:
        above, rest = path[: end + 3], path[end + 3 :]
        if os.path.realpath(above) != os.path.realpath(os.path.normpath(above)):
            path = os.path.realpath(above) + rest
    return os.path.normpath(path)


def path_of(url: str) -> str:
    """Return a URL without its query and fragment, if it is read over HTTP; any other path or URL as it is."""
    return re.split(r"[?#]", url, maxsplit=1)[0] if is_web(url) else url


def encodable(path: str) -> str:
    r"""Return the URL of a path on this machine as text that UTF-8 can encode.

    That is the path itself, or `file:///folder/caf%E9.jsonl` if it has bytes that are not UTF-8.
    """
    return path if _is_utf_8(path) else f"file://{quote(os.fsencode(path))}"


def readable(name: str) -> str:
    r"""Return a file's name as text that UTF-8 can encode: a byte that is not UTF-8 becomes `\xe9`."""
    if _is_utf_8(name):
        return name
    return (
        _NO_UTF_8.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", name).encode("utf-8", "backslashreplace").decode()
    )


def _is_utf_8(text: str) -> bool:
    return text.isascii() or text.encode("utf-8", "replace").decode() == text


def shareable(text: str) -> str:
    """Return a text for files and logs: without the passwords and queries (often tokens) of URLs, and valid UTF-8."""
    return _TOKEN.sub(r"\1***@", _PASSWORD.sub(r"\1:***@", _QUERY.sub(r"\1?***", readable(text))))


def shareable_values(value: Any) -> Any:
    """Return a value of a configuration with all its texts made `shareable`."""
    if isinstance(value, str):
        return shareable(value)
    if isinstance(value, Mapping):
        return {name: shareable_values(item) for name, item in value.items()}
    return [shareable_values(item) for item in value] if isinstance(value, list | tuple) else value


def file_system(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the fsspec file system of `url` and the path on it. Raises whatever the file system raises.

    `::` chains file systems only if the first of them reads from another, as `zip://a.csv::s3://bucket/b.zip`; in
    `s3://bucket/run::1.csv` it is part of a name.
    """
    from inspect import signature

    from fsspec.core import filesystem, get_filesystem_class, url_to_fs

    path = local_path(url)
    if path is not None:
        path = path if os.path.isabs(path) else os.path.join(os.getcwd(), path)
        return url_to_fs("file:///", **options)[0], path.rstrip("/") or "/"
    protocol, _, rest = url.partition("://")
    if "::" not in rest or "::" in protocol:
        return url_to_fs(url, **options)
    kind = get_filesystem_class(protocol)
    if not {"fo", "target_protocol"}.isdisjoint(signature(kind.__init__).parameters):
        return url_to_fs(url, **options)
    own = {name: value for name, value in options.items() if name != protocol}
    given = {**kind._get_kwargs_from_urls(url), **own, **options.get(protocol, {})}
    path = kind._strip_protocol(url)
    rooted = path.startswith(kind.root_marker)  # memory:// leaves paths with `::` as they are
    return filesystem(protocol, **given), path if rooted else kind.root_marker + path
