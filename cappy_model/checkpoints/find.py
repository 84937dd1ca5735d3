"""Finding a model: a folder, an fsspec URL, a hub id, or a PEFT adapter over one of these; and what it lacks."""

import json
import posixpath
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cappy_model.checkpoints import hub
from cappy_model.checkpoints.files import RemoteFolder, content_hash, is_weights, matches
from cappy_model.checkpoints.source import CONFIG, Checkpoint, ModelError, ModelSource
from cappy_model.paths import readable
from schemas.ids import digest

ADAPTER = "adapter_config.json"
_ADAPTER_WEIGHTS = "adapter_model.*"
_PICKLED = "*.bin"
_NAMED = 3


def find_checkpoint(source: ModelSource) -> Checkpoint:
    """Find a model's files, and fetch them if they are remote; those of an adapter's base, too. Raises ModelError."""
    checkpoint = _located(source)
    if not _has(checkpoint, ADAPTER):
        return _checked(checkpoint)
    whole = [name for name in _loadable(checkpoint) if not matches(name, (_ADAPTER_WEIGHTS,))]
    if whole:
        raise ModelError(
            f"{source.name}: holds an adapter ({ADAPTER}) beside the weights of a whole model ({whole[0]}): "
            "give a folder with one of them"
        )
    _check_weights(checkpoint)
    base = _base_of(checkpoint)
    return replace(checkpoint, content=digest(checkpoint.content, base.content), base=base)


def _located(source: ModelSource) -> Checkpoint:
    if Path(source.name).is_dir():
        folder = Path(source.name)
        if readable(source.name) != source.name:
            raise ModelError(
                f"{readable(source.name)}: its path holds bytes that are not UTF-8, which safetensors cannot open; "
                "rename the folder, or give a link to it"
            )
    elif "://" in source.name:
        with _at_url(source) as remote:
            folder = remote.copy()
    else:
        folder = hub.download(source)
        return Checkpoint(source, folder, folder.name)
    return Checkpoint(source, folder, content_hash(source, folder))


@contextmanager
def _at_url(source: ModelSource) -> Iterator[RemoteFolder]:
    """Open the folder of a URL. Raises ModelError for whatever fails within."""
    try:
        yield RemoteFolder(source)
    except ModelError:
        raise
    except Exception as error:  # file systems raise errors of their own types
        raise ModelError(f"{source.name}: cannot be fetched: {type(error).__name__}: {error}") from error


def _base_of(checkpoint: Checkpoint) -> Checkpoint:
    """Find the base of an adapter. Raises ModelError if it names none, or one that is missing or an adapter itself."""
    name = checkpoint.source.name
    try:
        stored = json.loads((checkpoint.folder / ADAPTER).read_bytes())
        base, revision = stored["base_model_name_or_path"], stored.get("revision")
    except (ValueError, KeyError, TypeError, AttributeError):
        base, revision = None, None
    if not isinstance(base, str) or not base:
        raise ModelError(f"{name}: its {ADAPTER} names no base: set base_model_name_or_path to the model it adapts")
    remedy = (
        f"set base_model_name_or_path in its {ADAPTER} to where the base is, or give the adapter merged into its base "
        "(`merge_and_unload` of PEFT, then save_pretrained)"
    )
    try:
        found = _located(replace(checkpoint.source, name=_base_name(checkpoint, base, revision)))
        if _has(found, ADAPTER):
            raise ModelError(f"{base}: is an adapter itself")
        return _checked(found)
    except ModelError as error:
        raise ModelError(f"{name}: is an adapter, whose base {base} cannot be used: {error}; {remedy}") from error


def _base_name(checkpoint: Checkpoint, base: str, revision: str | None) -> str:
    """Return the name of an adapter's base as a source has it; a relative path counts from the adapter's folder."""
    beside, name = checkpoint.folder / base, checkpoint.source.name
    if beside.is_dir():
        return str(beside)
    if "://" in name and base.startswith("."):
        protocol, _, path = name.partition("://")
        return f"{protocol}://{posixpath.normpath(posixpath.join(path, base))}"
    if revision and not Path(base).is_dir() and "://" not in base:
        return f"{base}@{revision}"
    return base


def _has(checkpoint: Checkpoint, name: str) -> bool:
    return (checkpoint.folder / name).is_file()


def _checked(checkpoint: Checkpoint) -> Checkpoint:
    if not _has(checkpoint, CONFIG):
        others = _listed([name for name in _names(checkpoint.source) if is_weights(name)])
        raise ModelError(
            f"{checkpoint.source.name}: has no {CONFIG}{others and f', only {others}'}; "
            "give a folder that save_pretrained has written"
        )
    _check_weights(checkpoint)
    return checkpoint


def _loadable(checkpoint: Checkpoint) -> list[str]:
    """Return the names of the files in the folder itself with weights that may be loaded."""
    wanted = ("*.safetensors", _PICKLED) if checkpoint.source.allow_pickle else ("*.safetensors",)
    return sorted(
        path.name for path in checkpoint.folder.glob("*") if matches(path.name, wanted) and is_weights(path.name)
    )


def _check_weights(checkpoint: Checkpoint) -> None:
    """Raise ModelError without weights that may be loaded; it says which weights there are, and what may be done."""
    source = checkpoint.source
    if _loadable(checkpoint):
        return
    names = [name for name in _names(source) if is_weights(name)]
    pickled = [name for name in names if "/" not in name and matches(name, (_PICKLED,))]
    others = _listed([name for name in names if name not in pickled])
    if pickled:
        besides = f" (there is {others}, too)" if others else ""
        problem = f"its weights are pickled ({_listed(pickled)}), which can run any code{besides}"
    else:
        problem = f"has no weights (*.safetensors){others and f', only {others}'}"
    revision = hub.revision_with(source, "*.safetensors") if _is_on_hub(source) else None
    if revision:
        caution = " (a pull request, so see who has opened it)" if "/pr/" in revision else ""
        remedies = [f"give {revision}, which has safetensors{caution}"]
    else:
        remedies = ["give a model with safetensors, as save_pretrained of transformers writes them"]
    if pickled:
        remedies.append("give --allow-pickle (allow_pickle=True) if you trust their source")
    raise ModelError(f"{source.name}: {problem}; {', or '.join(remedies)}")


def _is_on_hub(source: ModelSource) -> bool:
    return not Path(source.name).is_dir() and "://" not in source.name


def _names(source: ModelSource) -> list[str]:
    """Return the names of all files of a model, relative to its folder, those of its folders included."""
    folder = Path(source.name)
    if folder.is_dir():
        return sorted(
            path.relative_to(folder).as_posix() for part in ("*", "*/*") for path in folder.glob(part) if path.is_file()
        )
    if "://" not in source.name:
        return hub.list_files(source)
    with _at_url(source) as remote:
        return remote.below("", 2)


def _listed(names: Iterable[str]) -> str:
    """Return up to three names in a sentence, and how many more there are; "" for none."""
    several = list(names)
    more = len(several) - _NAMED
    return ", ".join(several[:_NAMED]) + (f" and {more} more" if more > 0 else "")
