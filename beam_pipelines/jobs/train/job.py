"""train: labelled pairs -> a scorer. It runs on this machine, or in several processes that a launcher starts."""

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beam_pipelines.io.formats.registry import format_of
from beam_pipelines.io.inputs import Input, open_input
from beam_pipelines.io.storage import absolute, explained, join
from beam_pipelines.jobs.train.config import DTYPES, TrainConfig, check
from beam_pipelines.jobs.train.files import (
    Mirror,
    delete_former,
    held_out_instructions,
    read_weights,
    work_dir,
)
from beam_pipelines.jobs.train.manifest import Made, export
from beam_pipelines.models.config import needing_extra
from beam_pipelines.report.text import plural
from beam_pipelines.runs.folder import described, hold, is_finished, load_manifest, open_run
from schemas.errors import CappyError, UsageError
from schemas.manifest import FORMAT_VERSION

if TYPE_CHECKING:
    from cappy_model.checkpoints import Checkpoint
    from cappy_model.train.data import Stream
    from cappy_model.train.split import Selection
    from cappy_model.train.training import Settings

JOB = "train"
_LOG = logging.getLogger("cappy")
HELP = "labelled pairs -> a scorer, trained on this machine or by torchrun on several"
_EVALUATIONS = 10


@dataclass(frozen=True)
class TrainPlan:
    """A configuration with everything looked up and settled. `processes`: how many there are, `main`: whether this one
    is the first of them."""

    config: TrainConfig
    corpus: Input
    held_out: Sequence[Input]
    rates: Mapping[str, Mapping[str, float]]
    checkpoint: "Checkpoint"
    max_length: int
    device: str
    dtype: str
    processes: int
    main: bool

    @property
    def output(self) -> str:
        """Where everything is written."""
        return absolute(self.config.output)

    @property
    def urls(self) -> list[str]:
        """The files of the corpus, in order."""
        return [file.url for file in self.corpus.files]

    @property
    def reading(self) -> list[str]:
        """The files that must stay: of the corpus, those held out, and what tells a model."""
        files = [file.url for found in (self.corpus, *self.held_out) for file in found.files]
        return [*files, join(self.checkpoint.source.name, "config.json")]


def plan(config: TrainConfig) -> TrainPlan:
    """Looks into the corpus, the model and the other files. Raises CappyError or UsageError for what is wrong there."""
    check(config)
    corpus = open_input([absolute(config.corpus)], config.storage)
    foreign = [file.url for file in corpus.files if format_of(file.url).name != "parquet"]
    if foreign:
        raise UsageError(f"--corpus {foreign[0]}: is no Parquet file; labelled pairs are, as build-corpus writes them")
    if not corpus.rows:
        raise CappyError(f"--corpus {config.corpus}: holds no pairs; give labelled pairs, as build-corpus writes them")
    held_out = [open_input([absolute(pattern)], config.storage) for pattern in config.held_out]
    rates = read_weights(absolute(config.weights), config.storage) if config.weights else {}
    with needing_extra("train", "training"):
        from cappy_model import checkpoints, devices
        from cappy_model.score import encoding
        from cappy_model.train import start as training_start
        from cappy_model.train import training
    training.check_report_to(config.report_to)
    device = devices.settle_device(config.device)
    if ":" in device:
        raise UsageError(f"--device {device}: say CUDA_VISIBLE_DEVICES={device.partition(':')[2]} and --device cuda")
    dtype = devices.settle_dtype(config.dtype, device)
    if dtype not in DTYPES:
        raise UsageError(f"{device} has no bfloat16, and float16 loses small gradients: give --dtype float32")
    name = absolute(config.model) if os.path.isdir(config.model) else config.model
    source = checkpoints.Source(name, config.allow_pickle, config.trust_remote_code, config.storage)
    found = checkpoints.find_checkpoint(source)
    model_config, tokenizer = checkpoints.load_config(found)
    training_start.check_start(found, model_config)
    encoder = encoding.encoder_for(tokenizer, model_config, max_length=config.max_length)
    state = training.processes(device)
    return TrainPlan(
        *(config, corpus, held_out, rates, found, encoder.max_length, device, dtype),
        processes=state.num_processes,
        main=state.is_main_process,
    )


_FACTS = (
    *("seed", "max_pairs", "epochs", "max_steps", "batch_size", "accumulation", "learning_rate", "warm_up"),
    *("shuffle_buffer", "eval_fraction", "max_eval_pairs", "evaluate_every", "save_every", "patience"),
)


def facts(plan: TrainPlan) -> dict[str, Any]:
    """Everything that shapes the weights: what the fingerprint is made of."""
    config = plan.config
    cut = {"max_length": plan.max_length, "truncation": "keep_response"}
    return {
        "job": JOB,
        "format_version": FORMAT_VERSION,
        "settings": {
            **{name: getattr(config, name) for name in _FACTS},
            **cut,
            "weights": plan.rates,
            "dtype": plan.dtype,
            "device": plan.device,
            "processes": plan.processes,
        },
        "model": {"content": plan.checkpoint.content},
        "files": [file.fingerprint_inputs() for file in plan.corpus.files],
        "held_out": [file.fingerprint_inputs() for found in plan.held_out for file in found.files] or None,
    }


def run(config: TrainConfig) -> dict[str, Any]:
    """Trains a scorer; the manifest. Goes on where an earlier run ended, leaves a finished one alone.

    In several processes each one runs this; the first of them writes. Raises CappyError.
    """
    planned = plan(config)
    known = facts(planned)
    told = described(known, config)
    if not config.overwrite and is_finished(planned.output, told, config.storage):
        manifest = load_manifest(planned.output, config.storage)
        _LOG.info("%s: already finished at %s; --overwrite makes it anew", planned.output, manifest["finished"])
        return manifest
    from cappy_model.train.training import processes

    mirror = Mirror(work_dir(planned.output, known), planned.output, config.storage)
    with _claimed(planned, told, mirror.folder):
        started = datetime.now(UTC)
        _train(planned, known, mirror, started)
        processes(planned.device).wait_for_everyone()  # each loads the weights from the last checkpoint
        if planned.main:
            mirror.delete()
    return load_manifest(planned.output, config.storage)


@contextmanager
def _claimed(plan: TrainPlan, told: Mapping[str, Any], folder: Path) -> Iterator[None]:
    """Keeps the output folder for this run, which has its run.json then, and with --overwrite nothing of a former run,
    nor has the work_dir `folder`; in the other processes nothing."""
    if not plan.main:
        yield
        return
    storage = plan.config.storage
    with hold(plan.output, storage):
        if plan.config.overwrite:
            delete_former(plan.output, folder, storage, reading=plan.reading)
        open_run(plan.output, told, overwrite=plan.config.overwrite, storage=storage)
        yield


def _train(plan: TrainPlan, known: Mapping[str, Any], mirror: Mirror, started: datetime) -> None:
    from cappy_model.score.encoding import KEEP_RESPONSE, encoder_for
    from cappy_model.train import training
    from cappy_model.train.assessment import Assessment
    from cappy_model.train.data import Stream, evaluation_pairs
    from cappy_model.train.start import load_to_train

    config, storage, folder = plan.config, plan.config.storage, mirror.folder
    selection = _selection(plan, mirror)
    model, tokenizer = load_to_train(plan.checkpoint, seed=config.seed)
    model.config.cappy = {"truncation": KEEP_RESPONSE, "max_length": plan.max_length}
    encoder = encoder_for(tokenizer, model.config)
    stream = Stream(
        *(selection, encoder, model.config.pad_token_id, config.batch_size),
        *(config.shuffle_buffer, config.seed, storage),
    )
    held = evaluation_pairs(selection, storage) if config.eval_fraction else None
    assessment = Assessment(held, encoder, config.batch_size * plan.max_length) if held else None
    settings = _settings(plan, stream)
    trained = training.train(model, stream, assessment, settings, folder, saved=mirror.push)
    if plan.main:
        export(
            Made(model, tokenizer, trained, settings, selection),
            known,
            init=config.model,
            corpus=absolute(config.corpus),
            output=plan.output,
            folder=folder,
            storage=storage,
            started=started,
        )


def _selection(plan: TrainPlan, mirror: Mirror) -> "Selection":
    """Which pairs are learned from: decided by the first process, or by an earlier launch; read by all."""
    from cappy_model.train.split import Selection
    from cappy_model.train.training import processes

    folder = mirror.folder
    if plan.main:
        with explained(str(folder), "made"):
            folder.mkdir(parents=True, exist_ok=True)
        mirror.fetch()
        if Selection.load(folder, plan.urls) is None:
            selection = _select(plan)
            with explained(str(folder), "written"):
                selection.save(folder, plan.urls)
    processes(plan.device).wait_for_everyone()
    found = Selection.load(folder, plan.urls)
    if found is None:
        raise CappyError(f"{folder}: the processes of a run must share this folder, and one of them does not see it")
    return found


def _select(plan: TrainPlan) -> "Selection":
    from cappy_model.train.split import Policy, select

    config = plan.config
    policy = Policy(
        seed=config.seed,
        held_out=frozenset().union(*map(held_out_instructions, plan.held_out)),
        evaluation_share=config.eval_fraction,
        rates=plan.rates,
        max_pairs=config.max_pairs,
        max_evaluation_pairs=config.max_eval_pairs,
    )
    return select(plan.urls, policy, storage=config.storage, piece_rows=config.shuffle_buffer)


def _settings(plan: TrainPlan, stream: "Stream") -> "Settings":
    from cappy_model.train.training import Settings

    config = plan.config
    batches = sum(map(stream.batches_of_epoch, range(config.epochs)))
    steps = config.max_steps or -(-batches // (config.accumulation * plan.processes))
    every = config.evaluate_every or max(1, steps // _EVALUATIONS)
    return Settings(
        steps=steps,
        batch_size=config.batch_size,
        accumulation=config.accumulation,
        learning_rate=config.learning_rate,
        warm_up=config.warm_up,
        dtype=plan.dtype,
        device=plan.device,
        seed=config.seed,
        evaluate_every=every,
        save_every=config.save_every or every,
        patience=config.patience,
        report_to=config.report_to,
    )


def dry_run(config: TrainConfig) -> str:
    """What would be trained: the corpus, the model, and how many steps at most."""
    planned = plan(config)
    pairs = min(planned.corpus.rows, config.max_pairs or planned.corpus.rows)
    per_step = config.batch_size * config.accumulation * planned.processes
    steps = config.max_steps or -(-pairs * config.epochs // per_step)
    return (
        f"{plural(len(planned.corpus.files), 'file')}, {plural(planned.corpus.rows, 'pair')}; at most {pairs:,} of "
        f"them in an epoch\n{config.model} in {planned.dtype} on {planned.device}, processes: {planned.processes}, "
        f"pairs of {planned.max_length} tokens\nabout {plural(steps, 'step')} over {per_step:,} pairs each"
    )


def summary(manifest: Mapping[str, Any]) -> str:
    """A line about a finished run."""
    found = manifest["metrics"]["evaluation"]
    told = (
        f"; loss {found['loss']:.4f} on {plural(manifest['pairs']['evaluation'], 'pair')} held out "
        f"({found['constant_loss']:.4f} by the mean label), correlation {found['pearson']:.3f}"
        if found
        else ""
    )
    return (
        f"{plural(manifest['metrics']['step'], 'step')} over {plural(manifest['pairs']['training'], 'pair')}{told}; "
        f"{plural(manifest['pairs']['held_out'], 'pair')} dropped for held-out instructions, in {manifest['seconds']} s"
    )


if __name__ == "__main__":
    from beam_pipelines.program import main

    sys.exit(main(["train", *sys.argv[1:]]))
