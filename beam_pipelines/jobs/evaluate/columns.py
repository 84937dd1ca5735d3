"""Column roles of scored rows in an evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from beam_pipelines.jobs.evaluate.config import CLASSIFICATION, GENERATION, RANKING
from beam_pipelines.transforms.candidates import check_present, check_types, default_group, is_group, is_number
from cappy_model.metrics.evaluation import SCORER, SELF_SCORES
from schemas.errors import CappyError
from schemas.records import is_text

DATASET = ("dataset", "subset", "split")
"""The columns that name a dataset."""

_TEMPLATES = ("template_name", "template_id")
_EXAMPLE = "example_id"
_GENERATED = ("generator", "decoding")
NAMES = (*DATASET, *_TEMPLATES, _EXAMPLE, *_GENERATED)
"""The columns that name things, read as text."""


@dataclass(frozen=True)
class EvaluatedColumns:
    """Column roles of an input; `schema` has only these columns.

    `methods` names the methods that go by a column of scores, with their columns: the scorers, then the language
    model's own scores. The value of a candidate is its `label`, or is computed from `references`; one of them is None.
    """

    schema: pa.Schema
    task: str
    group: str
    instruction: str
    response: str
    methods: Mapping[str, str]
    references: str | None
    label: str | None
    generator: str | None
    decoding: str | None
    sample_index: str | None
    dataset: Sequence[str]
    template: str | None
    example: str | None

    @property
    def lists(self) -> Sequence[str]:
        """The columns that hold lists; none where a row is one candidate."""
        return self.of_candidates if pa.types.is_list(self.schema.field(self.response).type) else ()

    @property
    def of_candidates(self) -> Sequence[str]:
        """The columns of candidates, the response first."""
        # A row with lists may name one generator for all its candidates.
        listed = self.generator is not None and pa.types.is_list(self.schema.field(self.generator).type)
        optional = (self.label, self.generator if listed else None, self.decoding, self.sample_index)
        return tuple(dict.fromkeys((self.response, *self.methods.values(), *filter(None, optional))))

    @property
    def used(self) -> Sequence[str]:
        """All columns that have a role, without duplicates."""
        optional = (self.references, self.template, self.example, self.generator)
        rest = (self.group, self.instruction, *self.dataset, *filter(None, optional))
        return tuple(dict.fromkeys((*self.of_candidates, *rest)))

    @property
    def scorers(self) -> list[str]:
        """The methods that are compared with baselines."""
        return [method for method in self.methods if method.startswith(SCORER)]


def evaluated_columns(
    schema: pa.Schema,
    *,
    task: str,
    group: str | None,
    instruction: str,
    response: str,
    scores: Sequence[str],
    reference: str,
    label: str | None,
) -> EvaluatedColumns:
    """Return the column roles of an input with this schema.

    `group` None: `instruction_id` where the input has it, else the instruction. Raises CappyError, naming the flag and
    the column, for a column that is missing or has an unsuitable type.
    """
    needed = [("--instruction-column", instruction), ("--response-column", response)]
    needed += [("--score-column", name) for name in scores]
    needed += [("--group-column", group)] if group is not None else []
    needed += [_value_column(schema, task, reference, label)]
    check_present(schema, needed)

    def known(name: str) -> str | None:
        return name if name in schema.names and not pa.types.is_null(schema.field(name).type) else None

    own = {method: name for method, name in SELF_SCORES.items() if known(name) and name not in scores}
    decoding = known("decoding") if task == GENERATION else None
    columns = EvaluatedColumns(
        schema=schema,
        task=task,
        group=group or default_group(schema, instruction),
        instruction=instruction,
        response=response,
        methods={f"{SCORER}{name}": name for name in scores} | own,
        references=reference if label is None else None,
        label=label,
        generator=known("generator") if decoding else None,
        decoding=decoding,
        sample_index=known("sample_index") if decoding else None,
        dataset=[name for name in DATASET if known(name)],
        template=next(filter(known, _TEMPLATES), None) if task == CLASSIFICATION else None,
        example=known(_EXAMPLE),
    )
    _check_types(columns)
    return replace(columns, schema=pa.schema([schema.field(name) for name in columns.used]))


def _value_column(schema: pa.Schema, task: str, reference: str, label: str | None) -> tuple[str, str]:
    """Return the flag and the column that the values of candidates come from."""
    if label is not None:
        return "--label-column", label
    there = ", ".join(schema.names)
    if task == RANKING:
        raise CappyError(f"--task ranking compares scores with labels: name their --label-column; there are {there}")
    if task == CLASSIFICATION and reference not in schema.names:
        raise CappyError(
            f"--task classification needs the right choices: the input has no column {reference!r} with the right "
            f"texts, and no --label-column is named; there are {there}"
        )
    return "--reference-column", reference


def _check_types(columns: EvaluatedColumns) -> None:
    schema = columns.schema
    listed = pa.types.is_list(schema.field(columns.response).type)
    for name in columns.of_candidates:
        kind = schema.field(name).type
        if pa.types.is_list(kind) != listed:
            raise CappyError(
                f"column {name!r} is {kind} and column {columns.response!r} is {schema.field(columns.response).type}; "
                "the columns of candidates are all lists, or none is"
            )

    def of(name: str) -> pa.DataType:
        kind = schema.field(name).type
        return kind.value_type if pa.types.is_list(kind) else kind

    checks = [
        ("--instruction-column", columns.instruction, is_text(schema.field(columns.instruction).type), "text"),
        ("--response-column", columns.response, is_text(of(columns.response)), "text, or lists of it"),
        ("--group-column", columns.group, is_group(schema.field(columns.group).type), "text, integers or booleans"),
    ]
    for method, name in columns.methods.items():
        flag = "--score-column" if method.startswith(SCORER) else "score of the language model"
        checks.append((flag, name, is_number(of(name)), "numbers, or lists of them"))
    if columns.references is not None:
        checks.append(
            ("--reference-column", columns.references, is_text(of(columns.references)), "text, or lists of it")
        )
    if columns.label is not None:
        kind = of(columns.label)
        checks.append(("--label-column", columns.label, is_number(kind) or pa.types.is_boolean(kind), "numbers"))
    if columns.generator is not None:
        checks.append(("language model", columns.generator, is_text(of(columns.generator)), "text"))
    if columns.decoding is not None:
        checks.append(("decoding", columns.decoding, is_text(of(columns.decoding)), "text"))
    if columns.sample_index is not None:
        kind = of(columns.sample_index)
        fits = pa.types.is_integer(kind) or pa.types.is_floating(kind)  # pandas makes floats of integers with nulls
        checks.append(("sample index", columns.sample_index, fits, "integers"))
    for name in (*columns.dataset, *filter(None, [columns.template, columns.example])):
        checks.append(("identity of an example", name, is_group(schema.field(name).type), "text, integers or booleans"))
    check_types(schema, checks)
