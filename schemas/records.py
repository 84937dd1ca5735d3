"""Arrow schemas of the records in files and chunks. All text is UTF-8."""

import pyarrow as pa

from schemas.conversion import is_list

_TEXT = pa.string()
_TEXTS = pa.list_(pa.field("item", pa.string(), nullable=False))


def _schema(**columns: pa.DataType | tuple[pa.DataType]) -> pa.Schema:
    """Return a schema of the columns; a type in a one-tuple marks a nullable column."""
    return pa.schema(
        [
            pa.field(name, spec[0] if isinstance(spec, tuple) else spec, nullable=isinstance(spec, tuple))
            for name, spec in columns.items()
        ]
    )


INSTRUCTION = _schema(
    instruction_id=_TEXT,
    dataset=_TEXT,
    subset=(_TEXT,),
    split=(_TEXT,),
    template_id=_TEXT,
    template_name=_TEXT,
    example_id=_TEXT,
    instruction=_TEXT,
    references=_TEXTS,
    choices=(_TEXTS,),
)
"""An instruction rendered from one example by one template, with its correct responses (at least one) and, for
classification, the texts of all answer choices."""

CANDIDATE = _schema(
    instruction_id=_TEXT,
    dataset=(_TEXT,),
    instruction=_TEXT,
    references=(_TEXTS,),
    response=_TEXT,
    generator=_TEXT,
    decoding=_TEXT,
    sample_index=pa.int32(),
    count=(pa.int32(),),
    finish_reason=(_TEXT,),
    log_likelihood_sum=(pa.float32(),),
    log_likelihood_mean=(pa.float32(),),
)
"""A response sampled from a language model."""

LABELLED_PAIR = _schema(
    pair_id=_TEXT,
    instruction_id=_TEXT,
    dataset=_TEXT,
    subset=(_TEXT,),
    split=(_TEXT,),
    template_id=_TEXT,
    instruction=_TEXT,
    response=_TEXT,
    label=pa.float32(),
    label_source=_TEXT,
    generator=(_TEXT,),
)
"""A training pair: `label` in [0, 1] is the correctness of the response, `label_source` one of `LABEL_SOURCES`."""

SELECTION = _schema(
    instruction_id=_TEXT,
    instruction=_TEXT,
    response=_TEXT,
    score=pa.float32(),
    rank=pa.int32(),
    num_candidates=pa.int32(),
)
"""One of the best candidates of a group: its raw `score`, in a column of the name that it has in the input, its `rank`
(1 is the best), and the number of candidates of the group that have a score. The other columns of the row follow."""

REJECT = _schema(
    stage=_TEXT,
    reason=_TEXT,
    source=_TEXT,
    position=_TEXT,
    detail=_TEXT,
    excerpt=(_TEXT,),
)
"""A row that could not be used: a short stable `reason`, its place (`source`, `position`), and an excerpt of it."""

GROUND_TRUTH = "ground_truth"
GENERATED = "generated"
WRONG_CHOICE = "wrong_choice"
MISMATCH = "mismatch"
LABEL_SOURCES = (GROUND_TRUTH, GENERATED, WRONG_CHOICE, MISMATCH)
"""Sources of labels. Ground truth outranks generated, which outranks the two kinds of wrong response."""

OUTCOMES = ("rendered", "sampled_out", "not_applicable", "rejected")
"""Outcomes of a row under a template; each row has exactly one."""

EXCERPT_CHARACTERS = 500


def reject(
    *, stage: str, reason: str, source: str, position: str, detail: str, excerpt: str | None
) -> dict[str, object]:
    """Return one REJECT row; `excerpt` is cut at 500 characters, and both texts are made valid UTF-8."""
    if excerpt is not None:
        excerpt = excerpt[:EXCERPT_CHARACTERS].encode("utf-8", "backslashreplace").decode()
    detail = detail.encode("utf-8", "backslashreplace").decode()
    return {
        "stage": stage,
        "reason": reason,
        "source": source,
        "position": position,
        "detail": detail,
        "excerpt": excerpt,
    }


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds text: string, large_string, string_view or a dictionary of them."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def as_text(kind: pa.DataType, *, floats: bool = False) -> pa.DataType | None:
    """Return the type of a column as text: string, or list of string for lists; None if it has no form as text.

    Text, bytes (which must be UTF-8), integers, decimals, booleans, JSON and UUIDs have one. Floating-point numbers,
    dates and times have one only with `floats`, since Parquet does not say with which digits they were meant.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return pa.string() if kind.extension_name == "arrow.uuid" else as_text(kind.storage_type, floats=floats)
    if pa.types.is_dictionary(kind):
        return as_text(kind.value_type, floats=floats)
    if is_list(kind):
        item = as_text(kind.value_type, floats=floats)
        return pa.list_(item) if item is not None and pa.types.is_string(item) else None
    exact = (
        pa.types.is_null(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind) or pa.types.is_boolean(kind)
    )
    if is_text(kind) or is_binary(kind) or exact:
        return pa.string()
    temporal = pa.types.is_temporal(kind) and not pa.types.is_interval(kind)
    return pa.string() if floats and (pa.types.is_floating(kind) or temporal) else None


def is_binary(kind: pa.DataType) -> bool:
    """Return whether values of this type are bytes, of any layout."""
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return any(test(kind) for test in tests)
