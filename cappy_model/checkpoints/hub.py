"""Models on the hub: downloads, and what else a repository holds."""

import re
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from cappy_model.checkpoints.files import CHAT_TEMPLATES, MODULES, TEMPLATE, matches, module_folders, patterns
from cappy_model.checkpoints.source import ModelError, ModelSource
from schemas.manifest import CARD

_HUB_ID = re.compile(r"(?P<id>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?")
_REFS_ASKED = 10
_LOGIN = "log in (`hf auth login`, or HF_TOKEN)"


def split_id(source: ModelSource) -> tuple[str, str | None]:
    """Return the repository and the revision of a hub id. Raises ModelError for a name that is no hub id."""
    match = _HUB_ID.fullmatch(source.name)
    if not match:
        raise ModelError(f"{source.name}: no such folder, and not a hub id (name/model[@revision])")
    return match["id"], match["revision"]


def download(source: ModelSource) -> Path:
    """Download the files of a model and return their folder, which is named by the commit. Raises ModelError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, revision = split_id(source)
    wanted = list(patterns(source))
    try:
        patterns_here = [*wanted, CARD]  # the card names the license
        folder = Path(
            snapshot_download(repository, revision=revision, allow_patterns=patterns_here, ignore_patterns=["*/*"])
        )
        here = [path.name for path in folder.glob("*")]
        below = [f"{CHAT_TEMPLATES}/{TEMPLATE}"]
        if MODULES in here:
            parts = module_folders(source, (folder / MODULES).read_bytes())
            below += [f"{part}/{pattern}" for part in parts for pattern in wanted]
        if here:  # named again below, since the library warns if no file matches
            snapshot_download(repository, revision=folder.name, allow_patterns=[*below, *here], tqdm_class=_NoBar)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise ModelError(
            f"{source.name}: no such folder here, and it cannot be fetched from the model hub: {_reason(error)}"
        ) from error
    return folder


class _NoBar(tqdm):  # type: ignore[type-arg]
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "disable": True})


def _reason(error: Exception) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return f"its makers ask for an agreement; accept it on the page of the model, then {_LOGIN}"
    if isinstance(error, RepositoryNotFoundError):
        return f"it has no public model of this name; for a private one, {_LOGIN}"
    if isinstance(error, RevisionNotFoundError):
        return "the model has no such revision"
    return str(error).strip().split("\n")[0].rstrip(".")


def list_files(source: ModelSource) -> list[str]:
    """Return the names of all files of a repository; none if the hub cannot be asked."""
    from huggingface_hub import HfApi

    repository, revision = split_id(source)
    try:
        return list(HfApi().list_repo_files(repository, revision=revision))
    except Exception:  # this is for a message alone, whatever fails
        return []


def revision_with(source: ModelSource, pattern: str) -> str | None:
    """Return the hub id, with its revision, of a branch or pull request with a file that matches; None if unknown.

    Branches are asked first, then pull requests, the newest first, up to ten of each.
    """
    from huggingface_hub import HfApi

    repository, revision = split_id(source)
    api = HfApi()
    try:
        refs = api.list_repo_refs(repository, include_pull_requests=True)
        branches = [branch.name for branch in refs.branches if branch.name != (revision or "main")]
        requests = sorted((one.ref for one in refs.pull_requests or ()), key=_number, reverse=True)
        for ref in [*branches[:_REFS_ASKED], *requests[:_REFS_ASKED]]:
            names = api.list_repo_files(repository, revision=ref)
            if any("/" not in name and matches(name, (pattern,)) for name in names):
                return f"{repository}@{ref}"
    except Exception:  # this is for a message alone, whatever fails
        return None
    return None


def _number(ref: str) -> int:
    return int(ref.rpartition("/")[2])
