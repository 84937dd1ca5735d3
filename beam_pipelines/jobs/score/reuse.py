"""`--reuse`: scores of identical pairs are copied from finished runs of the same scorer; the rest is computed."""

import json
import logging
import posixpath
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.io.storage import StorageOptions, absolute, join, read_bytes
from beam_pipelines.jobs.score.pair_index import RECORD, SCORED_PAIR, PairIndex
from beam_pipelines.jobs.score.scoring import ScoreColumns, ScorerSpec, load_scorer, release_loaded
from beam_pipelines.report.text import plural, size
from beam_pipelines.runs.data import data_entries
from beam_pipelines.runs.files import describe_lost, lost_files, remedy_for_lost
from beam_pipelines.runs.folder import earlier_facts
from beam_pipelines.runs.job import JOBS
from beam_pipelines.runs.result import open_result
from cappy_model.work import ProgressCallback
from schemas.conversion import convert, is_list
from schemas.errors import CappyError, UsageError
from schemas.ids import digest
from schemas.manifest import MANIFEST

if TYPE_CHECKING:
    from cappy_model.score.scorer import Scored

_LOG = logging.getLogger("cappy")

_FLAGS = {
    "content": "--model",
    "type": "--model",
    "head": "--head",
    "template": "--template",
    "template_hash": "--template",
    "max_length": "--max-length",
    "dtype": "--dtype",
    "device": "--device",
}
"""The flag that decides each part of a scorer. `truncation` follows from the model and the template."""
_SAME = (*_FLAGS, "truncation")

_LOADING = Lock()


@dataclass(frozen=True)
class KnownScores:
    """The scores of one scorer in a finished folder.

    `pairs` is their number, `fingerprint` that of the run, and `rows` a hash of the files with the rows.
    """

    url: str
    columns: ScoreColumns
    pairs: int
    fingerprint: str
    rows: str


@dataclass(frozen=True)
class Reuse:
    """The scores to reuse, sent to workers: of identical pairs the first one counts. `storage` is JSON for fsspec."""

    known: tuple[KnownScores, ...]
    storage: str

    @property
    def fingerprint_inputs(self) -> dict[str, Any]:
        """The part of the fingerprint that says which scores are reused, wherever their folders are."""
        return {"reuse": [{"fingerprint": scores.fingerprint, "rows": scores.rows} for scores in self.known]}

    def describe(self) -> str:
        """Describe the scores to reuse, and the size of their index."""
        pairs = sum(scores.pairs for scores in self.known)
        return (
            f"--reuse: {plural(pairs, 'scored pair')} in {plural(len(self.known), 'folder')}, an index of up to "
            f"{size(pairs * RECORD.itemsize)}"
        )


@dataclass(frozen=True)
class ScoredFolder:
    """A finished run of score: by the column of its scores what the manifest says of each scorer, and the scores."""

    url: str
    models: Mapping[str, Mapping[str, Any]]
    scores: Mapping[str, KnownScores]

    def known(self, model: Mapping[str, Any]) -> KnownScores | None:
        """Return the scores of the scorer that equals `model`; None if the folder has none."""
        return next((self.scores[name] for name, own in self.models.items() if not _differing(own, model)), None)

    def refuse(self, models: Sequence[Mapping[str, Any]]) -> CappyError:
        """Return the error that no scorer of the folder equals one of `models`, with the differences of the closest."""
        pairs = [(column, own, model) for column, own in self.models.items() for model in models]
        column, own, model = min(pairs, key=lambda pair: len(_differing(*pair[1:])))
        differing = _differing(own, model)
        parts = ", ".join(_in_words(name, own, model) for name in differing)
        flags = list(dict.fromkeys(_FLAGS[name] for name in differing if name in _FLAGS))
        remedy = f"give the {' and '.join(flags)} of that run, or leave the folder out" if flags else "leave it out"
        whose = f"the scores in its column {column!r}" if len(self.models) > 1 else "its scores"
        return CappyError(f"--reuse {self.url}: {whose} are those of another scorer: {parts}; {remedy}")


def _in_words(name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    if name == "content":
        return f"the files of its model, {one['name']}, differ"
    if name == "template_hash":
        return "the text of its template differs"
    return f"its {name} is {one.get(name)}, and here it is {other.get(name)}"


def scored_folders(urls: Sequence[str], *, output: str, storage: StorageOptions) -> tuple[ScoredFolder, ...]:
    """Open the folders whose scores are to be reused, each once.

    Raises CappyError, naming the folder, for one that holds no finished run of score or has lost files, and UsageError
    for the `output` itself.
    """
    return tuple(_open(url, absolute(output), storage) for url in dict.fromkeys(map(absolute, urls)))


def _open(url: str, output: str, storage: StorageOptions) -> ScoredFolder:
    if url.rstrip("/") == output.rstrip("/"):
        raise UsageError(f"--reuse {url}: is the output itself, whose rows are kept anyway; leave it out")
    try:
        result = open_result(url, storage)
        lost = lost_files(url, storage)
    except CappyError as error:
        raise CappyError(f"--reuse {error}{_without_it(output, storage)}") from error
    if lost:
        raise CappyError(f"--reuse {url}: {describe_lost(lost)}; {remedy_for_lost(result.manifest)}")
    try:
        return _described(url, result.manifest)
    except (KeyError, TypeError, AttributeError) as error:
        raise CappyError(f"--reuse {url}: its manifest.json is damaged ({type(error).__name__}: {error})") from error


def _without_it(output: str, storage: StorageOptions) -> str:
    """Return what to do where a folder to reuse is gone, for the run in the output folder; "" if there is none."""
    facts = earlier_facts(output, storage)
    if facts and read_bytes(join(output, MANIFEST), storage) is not None:
        return f". The run in {output} has finished, and keeps its scores without it: leave --reuse out"
    if "reuse" in facts:
        return f". The run in {output} reuses its scores: bring it back, or --overwrite that run"
    return ""


def _described(url: str, manifest: Mapping[str, Any]) -> ScoredFolder:
    """Return what a manifest says of a folder of scores. Raises CappyError for one of another kind."""
    if manifest["job"] != "score":
        raise CappyError(
            f"--reuse {url}: holds a run of {manifest['job']}; give an output folder of score (rerank with a model has "
            "one, scored, in its own)"
        )
    if manifest["format_version"] > JOBS["score"].format_version:
        raise CappyError(f"--reuse {url}: was written by a later version of cappy; install that version")
    settings = manifest["configuration"]
    if "carries" in settings:
        table = posixpath.dirname(posixpath.dirname(url))
        raise CappyError(f"--reuse {url}: holds scores without their pairs; give the folder of the table, {table}")
    scorers = manifest.get("scorers", {settings.get("score_column"): manifest})
    texts, rows = (settings["instruction_column"], settings["response_column"]), _rows_hash(manifest)
    scores = {
        name: KnownScores(url, ScoreColumns(*texts, name), own["totals"]["scored"], manifest["fingerprint"], rows)
        for name, own in scorers.items()
    }
    return ScoredFolder(url, {name: own["model"] for name, own in scorers.items()}, scores)


def check_matched(folders: Sequence[ScoredFolder], models: Sequence[Mapping[str, Any]]) -> None:
    """Raise CappyError, naming the difference, for a folder that has scores of none of the scorers `models`.

    They are as the manifest of this run will describe them.
    """
    for folder in folders:
        if not any(folder.known(model) for model in models):
            raise folder.refuse(models)


def reuse_of(folders: Sequence[ScoredFolder], model: Mapping[str, Any], storage: StorageOptions) -> Reuse | None:
    """Return the scores of the scorer `model` that folders hold; None if they hold none."""
    known = tuple(scores for folder in folders if (scores := folder.known(model)))
    return Reuse(known, json.dumps(storage, sort_keys=True)) if known else None


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the parts in which two scorers differ, so that their scores of a pair may differ, too."""
    found = [name for name in _SAME if _part(one, name) != _part(other, name)]
    return [name for name in found if not (name == "template_hash" and "template" in found)]


def _part(model: Mapping[str, Any], name: str) -> Any:
    """Return a part of a scorer; of a device its kind, as all of a kind compute alike."""
    return str(model.get(name)).partition(":")[0] if name == "device" else model.get(name)


def _rows_hash(manifest: Mapping[str, Any]) -> str:
    return digest(*(text for entry in data_entries(manifest) for text in (entry["path"], entry["digest"])))


def scored_pairs(scores: KnownScores, storage: StorageOptions) -> Iterator[pa.RecordBatch]:
    """Yield the pairs of a folder in the order of its files, as SCORED_PAIR. The responses of a row may be a list.

    Raises CappyError if the folder is not the one that `scores` describes any more, or if a file is damaged.
    """
    if not scores.pairs:
        return
    try:
        result = open_result(scores.url, storage)
    except CappyError as error:
        raise CappyError(f"--reuse {error} (on {socket.gethostname()}); give folders that all workers see") from error
    columns = scores.columns
    if _rows_hash(result.manifest) != scores.rows:
        raise CappyError(f"{scores.url}: has changed since this run started; run the command again")
    names = (columns.instruction, columns.response, columns.score, columns.num_tokens, columns.truncated)
    for batch in result.reader(names):
        instructions, responses, *new = (batch[name] for name in names)
        instructions = convert(instructions, pa.string())
        if is_list(responses.type):
            responses = convert(responses, pa.list_(pa.string()))
            instructions = instructions.take(pc.list_parent_indices(responses))
            responses, *new = (pc.list_flatten(lists) for lists in (responses, *new))
        arrays = [instructions, convert(responses, pa.string()), *new]
        yield pa.RecordBatch.from_arrays(arrays, schema=SCORED_PAIR)


class ReusingScorer:
    """A scorer that copies known scores, and loads its model for the first pair that is not known."""

    def __init__(self, spec: ScorerSpec, index: PairIndex) -> None:
        self._spec, self._index = spec, index

    def score_pairs(
        self, instructions: Sequence[str], responses: Sequence[str], *, on_progress: ProgressCallback | None = None
    ) -> "Scored":
        """Score pairs as `Scorer.score_pairs` does. Of the work only `distinct` counts the known pairs, too."""
        from cappy_model.score.scorer import Scored, ScoringWork

        count = len(instructions)
        scores, errors, work = np.full(count, np.nan, np.float32), dict[int, str](), ScoringWork()
        num_tokens, truncated = np.zeros(count, np.int32), np.zeros(count, np.bool_)
        hits = self._index.find(instructions, responses)
        for values, name in ((scores, "score"), (num_tokens, "num_tokens"), (truncated, "truncated")):
            values[hits.places] = hits.records[name]
        rest = np.setdiff1d(np.arange(count), hits.places)
        if len(rest):
            texts = ([column[place] for place in rest.tolist()] for column in (instructions, responses))
            scored = load_scorer(self._spec).score_pairs(
                *texts, on_progress=_after(len(hits.places), count, on_progress)
            )
            scores[rest], num_tokens[rest], truncated[rest] = scored.scores, scored.num_tokens, scored.truncated
            errors, work = {int(rest[place]): error for place, error in scored.errors.items()}, scored.work
        work.reused = len(hits.places)
        work.distinct += len(np.unique(hits.records["key"]))
        return Scored(scores, num_tokens, truncated, errors, work)


def _after(known: int, count: int, on_progress: ProgressCallback | None) -> ProgressCallback | None:
    """Return a callback that counts the computed pairs after those that are `known`, of `count` in all."""
    return None if on_progress is None else lambda done, of: on_progress(known + done, count)


def load_reusing(spec: ScorerSpec, reuse: Reuse) -> ReusingScorer:
    """Index the scores to reuse, once in a process; return the scorer that looks pairs up there first."""
    with _LOADING:
        return _load_reusing(spec, reuse)


@lru_cache(maxsize=1)  # an index takes space on the disk as long as it is held
def _load_reusing(spec: ScorerSpec, reuse: Reuse) -> ReusingScorer:
    _LOG.info("reading known scores (%s)", reuse.describe())
    storage = json.loads(reuse.storage)
    pairs = (batch for scores in reuse.known for batch in scored_pairs(scores, storage))
    return ReusingScorer(spec, PairIndex.build(pairs))


def release_scorers() -> None:
    """Free the memory of this machine and its devices that loaded scorers take, and the disk of their indexes."""
    _load_reusing.cache_clear()
    release_loaded()
