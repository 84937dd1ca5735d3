"""The mixture file: the datasets of a corpus, their templates, and how wrong responses are made.

It may also hold decodings for `generate`, which reads them from a file of their own or from this one.
"""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from beam_pipelines.io.dialect import parse_delimiter, parse_encoding
from beam_pipelines.io.patterns import absolute_pattern
from beam_pipelines.io.storage import StorageOptions, absolute
from beam_pipelines.templates.files import Template, load_templates
from beam_pipelines.templates.sections import Place, Section, parse_yaml, validate
from cappy_model.generate.decodings import Decoding
from schemas.errors import UsageError


class Negatives(Section):
    """How wrong responses are made.

    Args:
      wrong_choices: largest number of wrong answer choices per instruction.
      mismatched: number of responses of other rows, for an instruction without choices.
      overlap_limit: largest Rouge-L, in (0, 1], of such a response with any reference of the instruction (exclusive).
    """

    wrong_choices: Annotated[int, Field(ge=0)] = 5
    mismatched: Annotated[int, Field(ge=0)] = 1
    overlap_limit: Annotated[float, Field(gt=0, le=1)] = 0.5


class DatasetEntry(Section):
    """One dataset in the file.

    Args:
      name: name in PromptSource's layout, as `subset`.
      paths: URLs or patterns of its files.
      subset: subset of the dataset, if it has any.
      split: split of the dataset, recorded in the corpus.
      rename: source column -> template variable.
      max_examples: T0's cap on examples (`docs/semantics.md`); None for no cap.
      templates: "all", "original_task", or a list of template names.
      csv_delimiter: separator of CSV fields; None: that of --csv-delimiter.
      encoding: encoding of its text files; None: that of --encoding.
      text_columns: columns to read as text; None: those of --text-columns.
    """

    name: str
    paths: str | Annotated[list[str], Field(min_length=1)]
    subset: str | None = None
    split: str | None = None
    rename: dict[str, str] = Field(default_factory=dict)
    max_examples: Annotated[int, Field(ge=1)] | None = 500_000
    templates: Literal["all", "original_task"] | list[str] = "all"
    csv_delimiter: Annotated[str, AfterValidator(parse_delimiter)] | None = None
    encoding: Annotated[str, AfterValidator(parse_encoding)] | None = None
    text_columns: list[str] | None = None

    @property
    def reading(self) -> dict[str, Any]:
        """How its text files are read, where that differs from what the flags of the job say."""
        given = {"csv_delimiter": self.csv_delimiter, "encoding": self.encoding, "text_columns": self.text_columns}
        return {name: value for name, value in given.items() if value is not None}


class DecodingEntry(Section):
    """One decoding in the file, named by its key; see `cappy_model.generate.decodings.Decoding`."""

    samples: int = 1
    beams: int = 1
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None


class DecodingsFile(Section):
    """A file that holds only decodings."""

    decodings: Annotated[dict[str, DecodingEntry], Field(min_length=1)]


class MixtureFile(Section):
    """The whole file.

    Args:
      templates: folder or URL in PromptSource's layout.
      datasets: the datasets.
      truncate: characters per rendered value on the input side; None for no truncation.
      rouge: tokenizer of Rouge-L.
      negatives: how wrong responses are made.
      decodings: decodings for `generate`; build-corpus ignores them.
    """

    templates: str
    datasets: Annotated[list[DatasetEntry], Field(min_length=1)]
    truncate: Annotated[int, Field(ge=3)] | None = 2048
    rouge: Literal["parity", "unicode"] = "parity"
    negatives: Negatives = Negatives()
    decodings: Annotated[dict[str, DecodingEntry], Field(min_length=1)] | None = None


@dataclass(frozen=True)
class Dataset:
    """A dataset of a mixture: its entry in the file, its absolute paths, and the selected templates."""

    entry: DatasetEntry
    paths: tuple[str, ...]
    templates: tuple[Template, ...]

    @property
    def label(self) -> str:
        """`name[/subset][:split]`, the name of the dataset in messages and reports."""
        entry = self.entry
        return entry.name + (f"/{entry.subset}" if entry.subset else "") + (f":{entry.split}" if entry.split else "")

    def variable(self, column: str) -> str:
        """Return the template variable for a source column: renamed as the entry says, hyphens as underscores."""
        return self.entry.rename.get(column, column).replace("-", "_")


@dataclass(frozen=True)
class Mixture:
    """A mixture file, and its datasets with their templates loaded."""

    file: MixtureFile
    datasets: tuple[Dataset, ...]


def load_mixture(url: str, storage: StorageOptions) -> Mixture:
    """Read a mixture file. Relative paths in it are resolved against its folder.

    Raises UsageError, naming the file, the dataset and the key, for an unknown key (with the nearest known one), a
    missing key, a value of another type or out of range, missing templates, two entries with equal name, subset and
    split, and an invalid decoding.
    """
    file = validate(MixtureFile, parse_yaml(url, storage, flag="--mixture"), url, _section_of)
    _make_decodings(file.decodings or {}, url)
    folder = posixpath.dirname(absolute(url))
    datasets = tuple(
        _load_dataset(entry, folder, absolute(file.templates, folder), url, storage) for entry in file.datasets
    )
    labels = [dataset.label for dataset in datasets]
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        raise UsageError(f"{url}: duplicate entry {', '.join(repeated)}; give one entry several `paths` instead")
    return Mixture(file, datasets)


def load_decodings(url: str, storage: StorageOptions) -> dict[str, Decoding]:
    """Read the decodings of a file by name, from its key `decodings`; the file may also be a mixture file.

    Raises UsageError, naming the file, the decoding and the key, as `load_mixture` does.
    """
    content = parse_yaml(url, storage, flag="--decodings-file")
    if isinstance(content, dict) and not content.keys().isdisjoint(MixtureFile.model_fields.keys() - {"decodings"}):
        entries = validate(MixtureFile, content, url, _section_of).decodings
        if entries is None:
            raise UsageError(f"{url}: this mixture file lacks the key 'decodings', which --decodings-file requires")
        return _make_decodings(entries, url)
    return _make_decodings(validate(DecodingsFile, content, url, _section_of).decodings, url)


def _make_decodings(entries: Mapping[str, DecodingEntry], url: str) -> dict[str, Decoding]:
    try:
        return {name: Decoding(name, **entry.model_dump()) for name, entry in entries.items()}
    except UsageError as error:
        raise UsageError(f"{url}: {error}") from error


def _section_of(loc: tuple[int | str, ...], content: Any) -> Place | None:
    """Return the section that a location in the file belongs to; None for the file itself."""
    if loc[:1] == ("negatives",):
        return Place(Negatives, loc[:1], "negatives")
    if loc[:1] == ("datasets",) and len(loc) > 1:
        number = int(loc[1])
        entry = content["datasets"][number]
        name = f" ({entry['name']})" if isinstance(entry, dict) and "name" in entry else ""
        return Place(DatasetEntry, loc[:2], f"dataset {number + 1}{name}")
    if loc[:1] == ("decodings",) and len(loc) > 1:
        return Place(DecodingEntry, loc[:2], f"decoding {loc[1]}")
    return None


def _load_dataset(entry: DatasetEntry, folder: str, root: str, url: str, storage: StorageOptions) -> Dataset:
    paths = [entry.paths] if isinstance(entry.paths, str) else entry.paths
    templates = load_templates(root, entry.name, entry.subset, storage_options=storage)
    selected = _select(templates, entry.templates, f"{url}: dataset {entry.name}")
    return Dataset(entry, tuple(absolute_pattern(path, storage, folder) for path in paths), selected)


def _select(templates: tuple[Template, ...], names: str | list[str], where: str) -> tuple[Template, ...]:
    """Return the templates that an entry's key `templates` selects, in the order of their file."""
    selected = templates
    if names == "original_task":
        selected = tuple(template for template in templates if template.original_task)
    elif isinstance(names, list):
        known = [template.name for template in templates]
        missing = [name for name in names if name not in known]
        if missing:
            raise UsageError(f"{where}: has no template {missing[0]!r}; there are {', '.join(map(repr, known))}")
        selected = tuple(template for template in templates if template.name in names)
    if not selected:
        raise UsageError(f"{where}: `templates: {names}` selects none of its {len(templates)} templates")
    return selected
