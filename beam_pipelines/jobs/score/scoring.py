"""The scoring of a unit: rows with two text columns -> the same rows with a score."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.io.units import Unit
from beam_pipelines.models.spec import ModelSpec
from beam_pipelines.transforms.results import Result, unreadable_rows
from cappy_model.work import ProgressCallback
from schemas.errors import CappyError
from schemas.ids import seed_for
from schemas.records import is_text
from schemas.stats import REAL_TOKENS, SAMPLES_PER_KEY, Stats, count_scores

if TYPE_CHECKING:
    from cappy_model.score.scorer import Scored, Scorer

TOKENS_PER_BIN = 16
"""Width of the bins that the lengths of pairs are counted in."""
POSITION = pa.field("position", pa.int64(), nullable=False)
"""The place of a row in its input file, as `Unit.positions` has it."""
SAMPLE_CHARACTERS = 4_000
"""Most characters of each text in a sample; a report shows no more."""

_LOADING = Lock()


@dataclass(frozen=True)
class ScorerSpec(ModelSpec):
    """Everything that a worker needs to load a scorer. `template` is auto, none, chat or a jinja text.

    `check` holds pairs (instruction, response) on which each process compares the scorer with the plain forward pass.
    """

    head: str | None
    template: str
    max_length: int | None
    check: tuple[tuple[str, str], ...] = ()


def load_scorer(spec: ScorerSpec) -> "Scorer":
    """Load the scorer of `spec`, once in a process. Raises CheckFailed if it fails its check."""
    with _LOADING:
        return _load_scorer(spec)


@cache
def _load_scorer(spec: ScorerSpec) -> "Scorer":
    from cappy_model.score.scorer import Scorer

    settings = {"head": spec.head, "template": spec.template, "max_length": spec.max_length, **spec.settings}
    return Scorer.from_pretrained(spec.model, check_pairs=spec.check, **settings)


def release_loaded() -> None:
    """Free the memory of this machine and its devices that loaded scorers take."""
    _load_scorer.cache_clear()
    from cappy_model.devices import free_memory

    free_memory()


@dataclass(frozen=True)
class ScoreColumns:
    """Column roles of the pairs, and the names of the new columns.

    Where a response is a list of texts, such as the choices of a row, the new columns are lists of the same lengths.
    """

    instruction: str
    response: str
    score: str

    @property
    def error(self) -> str:
        """The column with the reason for a missing score."""
        return f"{self.score}_error"

    @property
    def num_tokens(self) -> str:
        """The column with the tokens of the pair as the model reads it, `num_tokens` where the score is `score`."""
        return "num_tokens" if self.score == "score" else f"{self.score}_num_tokens"

    @property
    def truncated(self) -> str:
        """The column that tells whether a text was cut, `truncated` where the score is `score`."""
        return "truncated" if self.score == "score" else f"{self.score}_truncated"

    def lists(self, schema: pa.Schema) -> bool:
        """Return whether the responses of a row are a list."""
        return pa.types.is_list(schema.field(self.response).type)

    @property
    def pair(self) -> tuple[str, ...]:
        """The columns of the input that a pair is read from."""
        return tuple(dict.fromkeys((self.instruction, self.response)))

    @property
    def new(self) -> tuple[str, ...]:
        """The new columns, in order."""
        return (self.score, self.error, self.num_tokens, self.truncated)

    def output(self, schema: pa.Schema) -> pa.Schema:
        """Return the schema of scored rows: the columns of the input, then four new ones.

        Raises CappyError for a column that is missing, not text, or would be overwritten.
        """
        for name, flag in ((self.instruction, "--instruction-column"), (self.response, "--response-column")):
            _check_text(schema, name, flag, lists=name == self.response)
        for name in self.new:
            if name in schema.names:
                raise CappyError(
                    f"column {name!r} exists already and would be overwritten; --score-column names another one"
                )
        return pa.schema([*schema, *self.new_fields(lists=self.lists(schema))])

    def new_fields(self, *, lists: bool) -> list[pa.Field]:
        """Return the fields of the new columns, in order."""
        kinds = (pa.float32(), pa.string(), pa.int32(), pa.bool_())
        if lists:
            return [pa.field(name, pa.list_(kind)) for name, kind in zip(self.new, kinds, strict=True)]
        nullable = (self.score, self.error)
        return [pa.field(name, kind, nullable=name in nullable) for name, kind in zip(self.new, kinds, strict=True)]


def _check_text(schema: pa.Schema, name: str, flag: str, *, lists: bool) -> None:
    if name not in schema.names:
        raise CappyError(f"{flag} {name}: there is no such column; there are {', '.join(schema.names)}")
    kind = schema.field(name).type
    if not (is_text(kind) or (lists and pa.types.is_list(kind) and is_text(kind.value_type))):
        raise CappyError(f"{flag} {name}: is {kind}, not text")


def score_unit(
    unit: Unit, scorer: "Scorer", columns: ScoreColumns, *, on_progress: ProgressCallback | None = None
) -> Result:
    """Score the pairs of a unit. Rows keep their order; a row that cannot be scored has an error instead of a score.

    `on_progress` is called with the number of pairs done.
    """
    schema, stats = columns.output(unit.rows.schema), Stats()
    instructions, responses = unit.rows[columns.instruction], unit.rows[columns.response]
    if columns.lists(unit.rows.schema):
        instructions = instructions.take(pc.list_parent_indices(responses))
        responses = pc.list_flatten(responses)
    new = _score_texts(instructions, responses, partial(scorer.score_pairs, on_progress=on_progress), stats)
    if columns.lists(unit.rows.schema):
        new = [_as_lists(array, unit.rows[columns.response]) for array in new]
    rows = pa.RecordBatch.from_arrays([*unit.rows.columns, *new], schema=schema)
    rejects = unreadable_rows(unit)
    stats.counts["rows", "read"] += rows.num_rows + len(rejects)
    stats.counts["rows", "rejected"] += len(rejects)
    _sample(rows, columns, unit, stats)
    return Result(f"part-{unit.name}", [rows], schema, rejects, stats)


def score_positions(
    unit: Unit,
    scorer: "Scorer",
    *,
    score: Callable[..., Result],
    columns: ScoreColumns,
    on_progress: ProgressCallback | None = None,
) -> Result:
    """Score a unit by `score`; return the position of each row in place of the columns of the input."""
    result = score(unit, scorer, on_progress=on_progress)
    (rows,) = result.rows
    schema = pa.schema([POSITION, *columns.new_fields(lists=columns.lists(unit.rows.schema))])
    arrays = [pa.array(unit.positions), *(rows[name] for name in columns.new)]
    return result._replace(rows=[pa.RecordBatch.from_arrays(arrays, schema=schema)], schema=schema)


def _score_texts(
    instructions: pa.Array, responses: pa.Array, score_pairs: Callable[..., "Scored"], stats: Stats
) -> list[pa.Array]:
    """Return the score, error, tokens and truncation of n pairs, as four columns of length n."""
    errors: list[str | None] = [None] * len(instructions)
    for name, texts in (("instruction", instructions), ("response", responses)):
        for row in np.flatnonzero(pc.is_null(texts).to_numpy(zero_copy_only=False)).tolist():
            errors[row] = f"null {name}"
    valid = np.array([row for row, error in enumerate(errors) if error is None], dtype=np.int64)
    texts = (array.take(pa.array(valid)).to_pylist() for array in (instructions, responses))
    scored = score_pairs(*texts)
    for place, error in scored.errors.items():
        errors[int(valid[place])] = error
    _count(scored, errors, stats)
    found = np.isfinite(scored.scores)
    return [
        _spread(len(errors), valid[found], pa.array(scored.scores[found])),
        pa.array(errors, pa.string()),
        _spread(len(errors), valid, pa.array(scored.num_tokens)).fill_null(0),
        _spread(len(errors), valid, pa.array(scored.truncated)).fill_null(False),
    ]


def _spread(length: int, places: np.ndarray, values: pa.Array) -> pa.Array:
    """Return a column of `length` with `values` at `places`, null elsewhere."""
    index = np.full(length, -1)
    index[places] = np.arange(len(places))
    return values.take(pa.array(index, mask=index < 0))


def _as_lists(values: pa.Array, like: pa.Array) -> pa.Array:
    """Return `values` cut into lists of the lengths of `like`, null where `like` is null."""
    lengths = pc.list_value_length(like).fill_null(0).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pc.is_null(like))


def _count(scored: "Scored", errors: list[str | None], stats: Stats) -> None:
    """Count pairs, errors, tokens, scores and lengths."""
    found = np.isfinite(scored.scores)
    stats.counts["pairs", "scored"] += int(found.sum())
    stats.counts["pairs", "distinct"] += scored.work.distinct
    if scored.work.reused:
        stats.counts["pairs", "reused"] += scored.work.reused
    stats.counts["pairs", "truncated"] += int(scored.truncated.sum())
    for error in filter(None, errors):
        stats.counts["errors", error.split(":")[0].replace(" ", "_")] += 1
    stats.counts[REAL_TOKENS] += scored.work.tokens
    stats.counts["tokens", "padding"] += scored.work.padding
    stats.counts["tokens", "out_of_memory"] += scored.work.out_of_memory
    count_scores(stats, ("scores",), scored.scores[found])
    for number, count in zip(*np.unique(scored.num_tokens // TOKENS_PER_BIN, return_counts=True), strict=True):
        stats.counts["lengths", f"{number:05d}"] += int(count)


def _sample(rows: pa.RecordBatch, columns: ScoreColumns, unit: Unit, stats: Stats) -> None:
    """Sample rows for the report: any, and those with the highest and lowest scores. Rows with lists are left out."""
    if columns.lists(unit.rows.schema):
        return
    hashes = [seed_for(0, unit.file.name, str(place)) for place in unit.positions.tolist()]
    scores = rows[columns.score].to_numpy(zero_copy_only=False)
    scored = np.flatnonzero(np.isfinite(scores)).tolist()
    fixed = {row: round(float(scores[row]) * 2**20) for row in scored}
    # The hash orders rows of equal scores, whatever the order in which they are sampled.
    names = {"instruction": columns.instruction, "response": columns.response}
    names |= {"score": columns.score, "error": columns.error, "num_tokens": columns.num_tokens}
    shown = rows.select(list(names.values()))  # the other columns never become Python objects
    ranks = {
        "any": dict(enumerate(hashes)),
        "highest": {row: (-score << 64) + hashes[row] for row, score in fixed.items()},
        "lowest": {row: (score << 64) + hashes[row] for row, score in fixed.items()},
    }
    for key, rank in ranks.items():
        for row in heapq.nsmallest(SAMPLES_PER_KEY, rank, key=rank.__getitem__):
            sample = dict(zip(names, shown.slice(row, 1).to_pylist()[0].values(), strict=True))
            cut = {name: sample[name] and sample[name][:SAMPLE_CHARACTERS] for name in ("instruction", "response")}
            stats.sample(key, rank[row], {**sample, **cut, "position": f"{unit.file.name}{unit.position(row)}"})
