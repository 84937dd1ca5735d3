"""A model hub on the loopback, as far as downloads ask for it: revisions, trees, refs and files."""

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

Repository = Mapping[str, Mapping[str, bytes]]
"""The files of each revision, by their path."""

_API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(/(?P<kind>revision|tree|refs)(/(?P<revision>[^/]+))?)?")
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")


def files_in(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder, by their path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def commit_of(files: Mapping[str, bytes]) -> str:
    """Return the name of a commit with these files."""
    state = hashlib.sha1()
    for name, content in sorted(files.items()):
        state.update(name.encode() + b"\0" + content)
    return state.hexdigest()


class _Refused(Exception):
    """An answer without content: its status and the hub's code for the reason."""


class _Hub:
    """The answers of the hub about `repositories`. Those in `gated` show what they have, but give no file."""

    def __init__(self, repositories: Mapping[str, Repository], gated: Collection[str]) -> None:
        self._repositories, self._gated = repositories, gated

    def answer(self, path: str) -> tuple[dict[str, str], bytes]:
        """Return headers and content. Raises _Refused."""
        if asked := _API.fullmatch(path):
            return {"Content-Type": "application/json"}, json.dumps(self._api(**asked.groupdict())).encode()
        if not (asked := _FILE.fullmatch(path)):
            raise _Refused(404, "EntryNotFound")
        if asked["repo"] in self._gated:
            raise _Refused(403, "GatedRepo")
        files, name = self._files(asked["repo"], asked["revision"]), unquote(asked["name"])
        if name not in files:
            raise _Refused(404, "EntryNotFound")
        tag = f'"{hashlib.sha1(files[name]).hexdigest()}"'
        return {"X-Repo-Commit": commit_of(files), "ETag": tag}, files[name]

    def _files(self, repo: str, revision: str | None) -> Mapping[str, bytes]:
        if repo not in self._repositories:
            raise _Refused(401, "RepoNotFound")
        asked, revisions = unquote(revision or "main"), self._repositories[repo]
        for name, files in revisions.items():
            if asked in (name, commit_of(files)):
                return files
        raise _Refused(404, "RevisionNotFound")

    def _api(self, repo: str, kind: str | None, revision: str | None) -> Any:
        files = self._files(repo, revision)
        if kind == "tree":
            return [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
        if kind == "refs":
            refs = [
                {"name": name, "ref": name if "/" in name else f"refs/heads/{name}", "targetCommit": commit_of(files)}
                for name, files in self._repositories[repo].items()
            ]
            branches = [ref for ref in refs if "/" not in ref["name"]]
            return {
                "branches": branches,
                "pullRequests": [ref for ref in refs if ref not in branches],
                "tags": [],
                "converts": [],
            }
        return {"id": repo, "sha": commit_of(files), "siblings": [{"rfilename": name} for name in files]}


@contextmanager
def serving(repositories: Mapping[str, Repository], gated: Collection[str] = ()) -> Iterator[str]:
    """Serve repositories by their names; yield the endpoint."""
    hub = _Hub(repositories, gated)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                headers, content = hub.answer(urlsplit(self.path).path)
                self.send_response(200)
            except _Refused as refused:
                status, code = refused.args
                headers, content = {"X-Error-Code": code}, b""
                self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def use_hub(endpoint: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process, which may have imported the hub's library already, ask `endpoint`."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


def hub_environment(endpoint: str, cache: Path) -> dict[str, str]:
    """Return the environment of a program that asks `endpoint`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    settings = {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(cache), "NO_PROXY": "127.0.0.1"}
    return {**kept, **settings, "CAPPY_CACHE": str(cache / "cappy")}
