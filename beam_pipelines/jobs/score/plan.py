"""The plan of a run of score: its input, its columns, and its scorer, all settled before a row is read."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from beam_pipelines.io.formats.base import ReadSpec, UnitWork
from beam_pipelines.io.inputs import NOTHING_KNOWN, Input, Known
from beam_pipelines.jobs.score.config import ScoreConfig
from beam_pipelines.jobs.score.reuse import Reuse, ScoredFolder, check_matched, reuse_of, scored_folders
from beam_pipelines.jobs.score.scoring import ScoreColumns, ScorerSpec, load_scorer
from beam_pipelines.models.check import pick_pairs
from beam_pipelines.models.settle import (
    check_named,
    earlier,
    has_ended,
    model_source,
    needing_extra,
    read_template,
    settle,
    settle_unit_bytes,
)
from beam_pipelines.runners.options import Placement
from beam_pipelines.runners.pipeline_job import Plan
from beam_pipelines.runs.inputs import known_files, open_inputs
from cappy_model.paths import shareable
from cappy_model.work import BYTES_PER_TOKEN
from schemas.chunks import CHUNK_ROWS

if TYPE_CHECKING:
    from cappy_model.score.loading import SettledScorer

_LOG = logging.getLogger("cappy")


@dataclass(frozen=True)
class ScorePlan(Plan):
    """A configuration with the columns and the scorer settled.

    `model` is the fingerprint's entry for the scorer; `meaning` says what its scores are, for the manifest. With
    `positions` the output has the position of each row in place of the input's columns. Scores of identical pairs in
    `reuse` are copied.
    """

    config: ScoreConfig
    columns: ScoreColumns
    scorer: ScorerSpec
    model: Mapping[str, Any]
    meaning: Mapping[str, str | None]
    unit_bytes: int
    positions: bool = False
    reuse: Reuse | None = None

    @property
    def urls(self) -> list[str]:
        """All input files, in order, and the folders whose scores are reused."""
        return [*super().urls, *(scores.url for scores in (self.reuse.known if self.reuse else ()))]

    @property
    def described_model(self) -> dict[str, Any]:
        """The scorer as the manifest describes it."""
        return {"name": shareable(str(self.config.model)), **self.meaning, **self.model}

    @property
    def spec(self) -> ReadSpec:
        """All columns, or those of the pairs for `positions`, in units of `unit_bytes`."""
        schema = self.inputs[0].schema
        if self.positions:
            schema = pa.schema([schema.field(name) for name in self.columns.pair])
        longest = BYTES_PER_TOKEN * int(self.model["max_length"])
        work = UnitWork(self.unit_bytes, (self.columns.instruction, self.columns.response), longest)
        return self.inputs[0].read_spec(schema, CHUNK_ROWS, exact=not self.positions, work=work)

    @property
    def units(self) -> int:
        """The approximate number of units."""
        return self.inputs[0].units(self.spec)


def plan(config: ScoreConfig, placement: Placement) -> ScorePlan:
    """Inspect the input and the model; settle device, dtype and tokens per batch.

    Locally the weights are loaded, too, and the scorer is checked, unless the run has finished. Raises CappyError or
    UsageError for anything that is wrong before a row is read.
    """
    folders = scored_folders(config.reuse, output=config.output, storage=config.storage)
    settled = settle_plan(config, placement, open_pairs(config, known_files(config, "score")), folders=folders)
    check_matched(folders, [settled.described_model])
    load_locally(settled, placement)
    return settled


def settle_plan(
    config: ScoreConfig,
    placement: Placement,
    source: Input,
    *,
    positions: bool = False,
    folders: Sequence[ScoredFolder] = (),
) -> ScorePlan:
    """Return the plan for an input, settled from the files of the model without its weights. Raises as `plan` does.

    Scores are reused from those of the `folders` that have some of this scorer.
    """
    check_named(config, local=placement.local)
    columns = columns_of(config)
    columns.output(source.schema)
    check = pick_pairs(source, columns.instruction, columns.response, config.check_pairs)
    scorer, settled = _settle(config, check, local=placement.local)
    model = {"content": settled.checkpoint.content, **settled.fingerprint_inputs, **scorer.fingerprint_inputs}
    size = settle_unit_bytes(config, settled.checkpoint, settled.config, scorer.device, generates=False)
    settled_plan = ScorePlan(config, (source,), columns, scorer, model, settled.described, size, positions)
    return replace(settled_plan, reuse=reuse_of(folders, settled_plan.described_model, config.storage))


def load_locally(plan: ScorePlan, placement: Placement) -> None:
    """Load and check the scorer in this process if the run is to compute here. Raises CheckFailed."""
    if placement.local and not has_ended(plan.config, len(plan.inputs[0].files)):
        _LOG.info("loading %s", shareable(str(plan.config.model)))
        load_scorer(plan.scorer)


def _settle(
    config: ScoreConfig, check: Sequence[tuple[str, str]], *, local: bool
) -> tuple[ScorerSpec, "SettledScorer"]:
    """Return the model spec sent to workers, and the scorer without its weights."""
    with needing_extra("model", "scoring"):
        from cappy_model import devices
        from cappy_model.checkpoints import find_checkpoint
        from cappy_model.score.loading import settle_scorer
    source = model_source(config, str(config.model))
    length = config.max_length or earlier(config, "max_length")
    template = read_template(config.template, config.storage)
    settled = settle_scorer(find_checkpoint(source), head=config.head, template=template, max_length=length)

    def tokens(device: str, dtype: str) -> int:
        return devices.settle_tokens_per_batch(settled.config, device, dtype)

    model = settle(config, source, local=local, tokens=tokens, model_config=settled.config)
    return ScorerSpec(
        **vars(model), head=config.head, template=template, max_length=length, check=tuple(check)
    ), settled


def columns_of(config: Any) -> ScoreColumns:
    """Return the columns of the pairs, and the names of the new ones, for a configuration of score or rerank."""
    return ScoreColumns(config.instruction_column, config.response_column, config.score_column)


def output_columns(config: Any) -> pa.Schema:
    """Return the columns of the scored rows, for a configuration of score or rerank.

    Raises CappyError for a column that is missing, not text, or would be overwritten.
    """
    return columns_of(config).output(open_pairs(config).schema)


def open_pairs(config: Any, known: Known = NOTHING_KNOWN) -> Input:
    """Open the pairs, all of whose columns are carried. Raises CappyError for a column that cannot be read.

    `known` are the files that a run knows, which keep their numbers.
    """
    texts = (config.instruction_column, config.response_column)
    source = open_inputs(config, config.input, text=texts, known=known)
    source.check_usable()
    return source
