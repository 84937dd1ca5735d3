"""PromptSource template files: find, read and validate them.

The format is PromptSource's (github.com/bigscience-workshop/promptsource, commit 7dab96a3).
"""

import difflib
from dataclasses import dataclass
from typing import Any

import yaml

from beam_pipelines.io.storage import StorageOptions, explained, file_system, join, read_bytes
from schemas.errors import CappyError

_FILE = "templates.yaml"


class TemplateError(CappyError):
    """A template file or a template that cannot be used. The message names it, the line and the remedy."""


@dataclass(frozen=True)
class Template:
    """One PromptSource template, as in its file. `file` is the URL of that file, for messages."""

    id: str
    name: str
    jinja: str
    answer_choices: str | None = None
    original_task: bool = False
    reference: str = ""
    languages: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    choices_in_prompt: bool = False
    file: str = ""


class PlainLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A loader of plain YAML data. Reads PromptSource's two tags as mappings, and refuses duplicate keys."""


def _construct(loader: Any, node: yaml.MappingNode) -> Any:
    return loader.construct_mapping(node, deep=True)


def _construct_unique(loader: Any, node: yaml.MappingNode) -> Any:
    """Construct a mapping. Raises an error for a duplicate key, of which PyYAML silently keeps the last value."""
    seen: set[str] = set()
    for key, _ in node.value:
        if key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key.value!r}", key.start_mark)
        seen.add(key.value)
    return loader.construct_mapping(node, deep=True)


PlainLoader.add_constructor("!Template", _construct)
PlainLoader.add_constructor("!TemplateMetadata", _construct)
PlainLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_unique)


def load_templates(
    path_or_url: str, dataset: str, subset: str | None, *, storage_options: StorageOptions | None = None
) -> tuple[Template, ...]:
    """Load the templates of `<path_or_url>/<dataset>[/<subset>]/templates.yaml`, in the order of the file.

    `path_or_url` is a folder in PromptSource's layout, local or any fsspec URL. Fields unknown to PromptSource are
    ignored; names are kept to the character.

    Raises TemplateError if the root or the file is missing (near names are listed), if the file is not valid YAML, not
    a template file, or one of another dataset or subset, if an id is repeated, or if a field is missing or of the wrong
    type; CappyError if the file system cannot be used.
    """
    storage = storage_options or {}
    folder = f"{dataset}/{subset}" if subset else dataset
    file = join(path_or_url, folder, _FILE)
    data = read_bytes(file, storage)
    if data is None:
        raise TemplateError(_describe_missing(path_or_url, folder, storage))
    try:
        content = yaml.load(data.decode(), Loader=PlainLoader)
    except UnicodeDecodeError as error:
        raise TemplateError(f"{file}: not UTF-8 ({error}); save it as UTF-8") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise TemplateError(f"{file}: not a valid template file: {error}") from error
    return _read_content(content, file, (dataset, subset))


def _read_content(content: Any, file: str, expected: tuple[str, str | None]) -> tuple[Template, ...]:
    entries = content.get("templates") if isinstance(content, dict) else None
    if not isinstance(entries, dict):
        raise TemplateError(f"{file}: no mapping `templates`; a PromptSource file has dataset, subset and templates")
    actual = (content.get("dataset"), content.get("subset"))
    if actual != expected:
        raise TemplateError(f"{file}: is for dataset and subset {actual}, not {expected}; correct the file or move it")
    templates = tuple(_read_template(key, entry, file) for key, entry in entries.items())
    names_by_id: dict[str, str] = {}
    for template in templates:
        if template.id in names_by_id:
            other = names_by_id[template.id]
            raise TemplateError(
                f"{file}: {other!r} and {template.name!r} have the same id {template.id}; change one of them"
            )
        names_by_id[template.id] = template.name
    return templates


def _read_template(key: Any, entry: Any, file: str) -> Template:
    name = entry.get("name") if isinstance(entry, dict) else None
    where = f"{file}: template {key if name is None else name!r}"
    if not isinstance(entry, dict):
        raise TemplateError(f"{where} is not a mapping tagged !Template")
    for field in ("id", "name", "jinja"):
        if not isinstance(entry.get(field), str):
            raise TemplateError(f"{where}: field {field} must be text, not {entry.get(field)!r}; quote it")
    choices = entry.get("answer_choices")
    if choices is not None and not isinstance(choices, str):
        raise TemplateError(f"{where}: field answer_choices must be text or null, not {choices!r}; quote it")
    metadata = entry.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise TemplateError(f"{where}: field metadata must be a mapping tagged !TemplateMetadata, not {metadata!r}")
    return Template(
        id=entry["id"],
        name=entry["name"],
        jinja=entry["jinja"],
        answer_choices=choices if choices and choices.strip() else None,
        original_task=metadata.get("original_task") is True,
        reference=str(entry.get("reference") or ""),
        languages=tuple(map(str, metadata.get("languages") or ())),
        metrics=tuple(map(str, metadata.get("metrics") or ())),
        choices_in_prompt=metadata.get("choices_in_prompt") is True,
        file=file,
    )


def _describe_missing(url: str, folder: str, storage: StorageOptions) -> str:
    """Return the message for a missing template file: the names near `folder` that exist below `url`."""
    fs, path = file_system(url, storage)
    root = path.rstrip("/") + "/"
    with explained(url, "listed"):
        if not fs.isdir(path):
            return f"no folder of templates at {url}: give a folder that holds <dataset>/[<subset>/]{_FILE}"
        # Names nest at most three deep: <user>/<dataset>/<subset>.
        files = fs.find(path, maxdepth=4)
    known = sorted(name[len(root) : -len(_FILE) - 1] for name in files if name.endswith(f"/{_FILE}"))
    same = [name for name in known if name.startswith(f"{folder}/") or folder.startswith(f"{name}/")]
    near = same or difflib.get_close_matches(folder, known, n=5, cutoff=0.5)
    hint = f"near: {', '.join(near[:10])}" if near else f"none of the {len(known)} others has a near name"
    return f"no templates for {folder!r} in {url} ({hint}); check name and subset, or add {folder}/{_FILE}"
