"""The datasets of a mixture: which columns of their files are read, how they are rendered, and how large they are."""

from dataclasses import dataclass

import pyarrow as pa

from beam_pipelines.io.columns import UnreadableFile
from beam_pipelines.io.formats.base import ReadSpec
from beam_pipelines.io.inputs import Input
from beam_pipelines.jobs.build_corpus.render import RenderSpec, threshold
from beam_pipelines.templates.compile import CompiledTemplate
from beam_pipelines.templates.mixture import Dataset, MixtureFile, Negatives
from schemas.chunks import CHUNK_ROWS
from schemas.errors import CappyError


@dataclass(frozen=True)
class DatasetPlan:
    """A dataset with its files inspected: how its units are read and rendered."""

    render: RenderSpec
    input: Input
    read: ReadSpec

    @property
    def dataset(self) -> Dataset:
        """The dataset of the mixture."""
        return self.render.dataset

    @property
    def instructions(self) -> int:
        """The approximate number of instructions: an upper bound, as if every template applied to every row kept."""
        return self._kept(self.input.rows)

    def pair_bytes(self, negatives: Negatives) -> int:
        """Return the approximate bytes of text in all pairs, of references and of wrong responses."""
        pairs = 1 + max(negatives.wrong_choices, negatives.mismatched)
        return self._kept(self.input.bytes * pairs)

    def _kept(self, amount: int) -> int:
        """Return what is left under all templates of an `amount` in the source rows, after T0's cap."""
        return amount * len(self.dataset.templates) * self.render.keep // 2**64


def plan_dataset(dataset: Dataset, source: Input, *, mixture: MixtureFile, seed: int) -> DatasetPlan:
    """Settle how a dataset is read and rendered. Raises CappyError for a variable that no column gives."""
    keep = threshold(dataset.entry.max_examples, len(dataset.templates), source.rows)
    read = _read_spec(dataset, source)
    as_written = {dataset.variable(column): how for column, how in read.as_written.items()}
    return DatasetPlan(RenderSpec(dataset, mixture.truncate, seed, keep, as_written), source, read)


def _read_spec(dataset: Dataset, source: Input) -> ReadSpec:
    """Return the columns that the templates of a dataset use, and the rows of a unit."""
    used_by: dict[str, str] = {}
    for template in dataset.templates:
        for variable in CompiledTemplate(template, truncate=None, seed=0).variables:
            used_by.setdefault(variable, template.name)
    names = [*source.schema.names, *source.unusable]
    present = f"the columns are {', '.join(names)}"
    for key, columns in (("rename", dataset.entry.rename), ("text_columns", dataset.entry.text_columns or ())):
        unknown = sorted(set(columns) - set(names))
        if unknown:
            raise CappyError(f"dataset {dataset.label}: `{key}` names {unknown[0]!r}; {present}")
    for variable, template_name in sorted(used_by.items()):
        use = f"dataset {dataset.label}: template {template_name!r} uses {variable!r}"
        origins = [name for name in names if dataset.variable(name) == variable]
        if not origins:
            raise CappyError(
                f"{use}; {present}. `rename` maps columns to variables, and `templates` can leave a template out."
            )
        if len(origins) > 1:
            raise CappyError(
                f"{use}, which two columns become: {' and '.join(map(repr, origins))}; `rename` gives one another name"
            )
        if origins[0] in source.unusable:
            raise UnreadableFile(f"{use}: {source.unusable[origins[0]]}")
    fields = [field for field in source.schema if dataset.variable(field.name) in used_by]
    if not source.schema.names:
        source.check_usable()
    # A template may use no column at all; one is read for the number of rows.
    schema = pa.schema(fields or [source.schema.field(0)])
    return source.read_spec(schema, max(1, CHUNK_ROWS // len(dataset.templates)))
