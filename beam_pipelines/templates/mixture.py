"""The mixture file: which datasets a corpus is made of, with which templates, and how wrong responses are made.

It may also hold decodings, which `generate` takes from a file of its own or from this one.
"""

import difflib
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from beam_pipelines.io.storage import StorageOptions, absolute, read_bytes
from beam_pipelines.templates.files import PlainLoader, Template, load_templates
from cappy_model.generate.decodings import Decoding
from schemas.errors import CappyError, UsageError

_SHOWN = 60  # characters of a wrong value


class _Section(BaseModel):
    """A mapping of the file: unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Negatives(_Section):
    """How wrong responses are made.

    At most `wrong_choices` other answer choices per instruction; for an instruction without choices, `mismatched`
    responses of other rows whose Rouge-L with each of its references is below `overlap_limit`.
    """

    wrong_choices: Annotated[int, Field(ge=0)] = 5
    mismatched: Annotated[int, Field(ge=0)] = 1
    overlap_limit: Annotated[float, Field(gt=0, le=1)] = 0.5


class DatasetEntry(_Section):
    """One dataset of the file. `templates`: all, original_task, or a list of template names."""

    name: str
    paths: str | Annotated[list[str], Field(min_length=1)]
    subset: str | None = None
    split: str | None = None
    rename: dict[str, str] = {}
    max_examples: Annotated[int, Field(ge=1)] | None = 500_000
    templates: Literal["all", "original_task"] | list[str] = "all"


class DecodingEntry(_Section):
    """One decoding of the file, named by its key; see `cappy_model.decodings.Decoding`."""

    samples: int = 1
    beams: int = 1
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None


class DecodingsFile(_Section):
    """A file of decodings alone."""

    decodings: Annotated[dict[str, DecodingEntry], Field(min_length=1)]


class MixtureFile(_Section):
    """The whole file. `truncate` is in characters per rendered value, `rouge` the tokenizer of Rouge-L.

    `decodings` are for `generate`; a corpus does without them.
    """

    templates: str
    datasets: Annotated[list[DatasetEntry], Field(min_length=1)]
    truncate: Annotated[int, Field(ge=3)] | None = 2048
    rouge: Literal["parity", "unicode"] = "parity"
    negatives: Negatives = Negatives()
    decodings: Annotated[dict[str, DecodingEntry], Field(min_length=1)] | None = None


_File = TypeVar("_File", MixtureFile, DecodingsFile)


@dataclass(frozen=True)
class Dataset:
    """A dataset of a mixture, ready for use: its entry, absolute paths, and the chosen templates."""

    entry: DatasetEntry
    paths: tuple[str, ...]
    templates: tuple[Template, ...]

    @property
    def label(self) -> str:
        """`name[/subset][:split]`, as messages and reports call the dataset."""
        entry = self.entry
        return entry.name + (f"/{entry.subset}" if entry.subset else "") + (f":{entry.split}" if entry.split else "")

    def variable(self, column: str) -> str:
        """The template variable that a source column becomes; hyphens become underscores."""
        return self.entry.rename.get(column, column).replace("-", "_")


@dataclass(frozen=True)
class Mixture:
    """A mixture file as read, with its datasets ready for use."""

    file: MixtureFile
    datasets: tuple[Dataset, ...]


def load_mixture(url: str, storage: StorageOptions) -> Mixture:
    """Reads a mixture file; relative paths in it are relative to it.

    Raises UsageError, naming the file, the dataset and the key, for unknown keys (with the nearest known one), missing
    ones, values of another type or out of range, templates that are not there, two entries with equal name, subset and
    split, and a decoding that makes no sense.
    """
    file = _checked(MixtureFile, _parse(url, storage, flag="--mixture"), url)
    _decodings(file.decodings or {}, url)
    folder = posixpath.dirname(absolute(url))
    datasets = tuple(_dataset(entry, folder, absolute(file.templates, folder), url, storage) for entry in file.datasets)
    labels = [dataset.label for dataset in datasets]
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        raise UsageError(f"{url}: {', '.join(repeated)} stands twice; give one entry several `paths` instead")
    return Mixture(file, datasets)


def load_decodings(url: str, storage: StorageOptions) -> dict[str, Decoding]:
    """The decodings of a file by name: of its key `decodings`, alone or in a mixture file.

    Raises UsageError, naming the file, the decoding and the key, as `load_mixture` does.
    """
    content = _parse(url, storage, flag="--decodings-file")
    if isinstance(content, dict) and not content.keys().isdisjoint(MixtureFile.model_fields.keys() - {"decodings"}):
        entries = _checked(MixtureFile, content, url).decodings
        if entries is None:
            raise UsageError(f"{url}: a mixture file without the key 'decodings', which --decodings-file wants")
        return _decodings(entries, url)
    return _decodings(_checked(DecodingsFile, content, url).decodings, url)


def _decodings(entries: Mapping[str, DecodingEntry], url: str) -> dict[str, Decoding]:
    try:
        return {name: Decoding(name, **entry.model_dump()) for name, entry in entries.items()}
    except UsageError as error:
        raise UsageError(f"{url}: {error}") from error


def _parse(url: str, storage: StorageOptions, *, flag: str) -> Any:
    """What a YAML file holds. Raises UsageError, naming the `flag` that gave it, where it is none."""
    try:
        data = read_bytes(url, storage)
    except CappyError as error:
        raise UsageError(f"{flag} {error}") from error
    if data is None:
        raise UsageError(f"{url}: there is no such file; {flag} wants a YAML file")
    try:
        return yaml.load(data, Loader=PlainLoader)
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        raise UsageError(f"{url}: is not YAML: {error}") from error


def _checked(kind: type[_File], content: Any, url: str) -> _File:
    """The content of a file as what it has to be. Raises UsageError with all that is wrong."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise UsageError(f"{url}: {'; '.join(_faults(error, content, kind))}") from error


def _faults(error: ValidationError, content: Any, kind: type[_Section]) -> Iterator[str]:
    """What is wrong with the `content` of a file of some kind, one sentence for each key."""
    said: dict[str, list[str]] = {}
    for fault in error.errors():
        section, path, place = _section_of(fault["loc"], content, kind)
        key = str(fault["loc"][len(path)]) if len(fault["loc"]) > len(path) else ""
        if fault["type"] == "extra_forbidden":
            sentence = f"unknown key {key!r}; {_near(key, section)}"
        elif fault["type"] == "missing":
            sentence = f"the key {key!r} is missing"
        else:
            sentence = f"{f'{key!r} is ' if key else ''}{repr(fault['input'])[:_SHOWN]}: {fault['msg']}"
        known = said.setdefault(f"{place}.{key}", [])
        known.append(fault["msg"] if known else f"{place}: {sentence}" if place else sentence)
    for sentences in said.values():
        yield " or ".join(sentences)


def _section_of(
    loc: tuple[int | str, ...], content: Any, kind: type[_Section]
) -> tuple[type[_Section], tuple[int | str, ...], str]:
    """The section of the file that a place in it belongs to: its class, its own place, and what a reader calls it."""
    if loc[:1] == ("negatives",):
        return Negatives, loc[:1], "negatives"
    if loc[:1] == ("datasets",) and len(loc) > 1:
        number = int(loc[1])
        entry = content["datasets"][number]
        name = f" ({entry['name']})" if isinstance(entry, dict) and "name" in entry else ""
        return DatasetEntry, loc[:2], f"dataset {number + 1}{name}"
    if loc[:1] == ("decodings",) and len(loc) > 1:
        return DecodingEntry, loc[:2], f"decoding {loc[1]}"
    return kind, (), ""


def _near(key: str, section: type[_Section]) -> str:
    near = difflib.get_close_matches(key, section.model_fields, 1)
    return f"did you mean {near[0]!r}?" if near else f"the keys here are {', '.join(section.model_fields)}"


def _dataset(entry: DatasetEntry, folder: str, root: str, url: str, storage: StorageOptions) -> Dataset:
    paths = [entry.paths] if isinstance(entry.paths, str) else entry.paths
    templates = load_templates(root, entry.name, entry.subset, storage_options=storage)
    chosen = _choose(templates, entry.templates, f"{url}: dataset {entry.name}")
    return Dataset(entry, tuple(absolute(path, folder) for path in paths), chosen)


def _choose(templates: tuple[Template, ...], wanted: str | list[str], where: str) -> tuple[Template, ...]:
    chosen = templates
    if wanted == "original_task":
        chosen = tuple(template for template in templates if template.original_task)
    elif isinstance(wanted, list):
        names = [template.name for template in templates]
        missing = [name for name in wanted if name not in names]
        if missing:
            raise UsageError(f"{where}: has no template {missing[0]!r}; there are {', '.join(map(repr, names))}")
        chosen = tuple(template for template in templates if template.name in wanted)
    if not chosen:
        raise UsageError(f"{where}: `templates: {wanted}` chooses none of its {len(templates)} templates")
    return chosen
