"""Fixtures of the tests of the jobs' parts."""

import fsspec
import pytest

from tests.beam_pipelines.io.remote_files import Remote


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The files of `remote://`, by path."""
    fsspec.register_implementation("remote", Remote, clobber=True)
    monkeypatch.setattr(Remote, "files", {})
    return Remote.files
