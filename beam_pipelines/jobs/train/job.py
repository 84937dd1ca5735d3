"""The job `train`: how its pairs are selected, and its scorer trained and written."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beam_pipelines.io.storage import explained
from beam_pipelines.jobs.train.config import TrainConfig
from beam_pipelines.jobs.train.files import Mirror, delete_earlier_run, held_out_instructions, work_dir
from beam_pipelines.jobs.train.forecast import forecast_run
from beam_pipelines.jobs.train.manifest import TrainedScorer, write_results
from beam_pipelines.jobs.train.page import page
from beam_pipelines.jobs.train.plan import TrainPlan, fingerprint_inputs, plan
from beam_pipelines.report.text import plural
from beam_pipelines.runs.files import describe_lost, lost_files
from beam_pipelines.runs.folder import describe_run, is_finished, load_manifest, open_run
from beam_pipelines.runs.job import LocalJob
from beam_pipelines.runs.lock import hold
from cappy_model.train.recipe import GROUPED, MINILM_WIDTH, Recipe, dropouts
from schemas.errors import CappyError

if TYPE_CHECKING:
    from cappy_model.train.data import Stream
    from cappy_model.train.selection import Selection
    from cappy_model.train.training import Settings

_LOG = logging.getLogger("cappy")


def run(config: TrainConfig) -> dict[str, Any]:
    """Train a scorer unless the output folder holds the finished run; return the manifest.

    Resumes from the last checkpoint. In several processes each one calls this; the first of them writes. Raises
    CappyError.
    """
    settled = plan(config)
    hashed = fingerprint_inputs(settled)
    described_run = describe_run(hashed, config)
    if not config.overwrite and is_finished(settled.output, described_run, config.storage):
        manifest = load_manifest(settled.output, config.storage)
        lost = lost_files(settled.output, config.storage)
        if lost:
            raise CappyError(
                f"{settled.output}: was finished, but {describe_lost(lost)}; copy the scorer's files back, or give "
                "--overwrite to train it again"
            )
        _LOG.info("%s: already finished at %s; --overwrite runs it again", settled.output, manifest["finished"])
        return manifest
    from cappy_model.train.environment import processes

    mirror = Mirror(work_dir(settled.output, hashed), settled.output, config.storage)
    with _claimed(settled, described_run, mirror.folder):
        _train(settled, hashed, mirror)
        processes(settled.device).wait_for_everyone()  # each loads the weights from the last checkpoint
        if settled.main:
            mirror.delete()
    return load_manifest(settled.output, config.storage)


@contextmanager
def _claimed(plan: TrainPlan, described_run: Mapping[str, Any], folder: Path) -> Iterator[None]:
    """Hold the output folder for this run and write its run.json; with --overwrite delete an earlier run first.

    `folder` is where checkpoints are written. Does nothing in processes other than the first.
    """
    if not plan.main:
        yield
        return
    overwrite, storage = plan.config.overwrite, plan.config.storage
    with hold(plan.output, storage):
        if overwrite:
            delete_earlier_run(plan.output, folder, storage, reading=plan.files_read)
        open_run(plan.output, described_run, overwrite=overwrite, storage=storage)
        yield


def _train(plan: TrainPlan, hashed: Mapping[str, Any], mirror: Mirror) -> None:
    """Train, and write the results in the first process. `hashed` are the fingerprint inputs."""
    from cappy_model.score.encoding import KEEP_RESPONSE, encoder_for
    from cappy_model.score.templates import template_block
    from cappy_model.train import training
    from cappy_model.train.assessment import Assessment
    from cappy_model.train.data import Stream, evaluation_pairs
    from cappy_model.train.start import load_to_train

    started = datetime.now(UTC)
    config, storage = plan.config, plan.config.storage
    selection = _shared_selection(plan, mirror)
    recipe = _settle_recipe(plan, selection.counts["training"])
    if plan.main:
        note = "; begun before there were groups, so it goes on with random batches" * plan.begun_before_groups
        _LOG.info("%s: %s%s", plan.output, recipe.describe(), note)
    model, tokenizer = load_to_train(
        plan.checkpoint, seed=config.seed, new_head=config.new_head, dropout=recipe.dropout
    )
    template = template_block(plan.template, model.config)
    model.config.cappy = {"truncation": KEEP_RESPONSE, "max_length": plan.max_length, **template}
    encoder = encoder_for(tokenizer, model.config, template=plan.template)
    stream = Stream(
        *(selection, encoder, model.config.pad_token_id, recipe.batch_size),
        *(config.shuffle_buffer, config.seed, storage),
    )
    held_out = evaluation_pairs(selection, storage) if config.eval_fraction else None
    assessment = Assessment(held_out, encoder, recipe.batch_size * plan.max_length) if held_out else None
    settings = _settings(plan, recipe, stream)
    trained = training.train(model, stream, assessment, settings, mirror.folder, saved=mirror.push)
    model.config.update(dropouts(plan.model_config))
    if plan.main:
        scorer = TrainedScorer(model, tokenizer, trained, settings, selection)
        write_results(scorer, plan, hashed, folder=mirror.folder, started=started)


def _settle_recipe(plan: TrainPlan, pairs: int) -> Recipe:
    """Return the recipe for an epoch of `pairs` pairs."""
    config, width = plan.config, getattr(plan.model_config, "hidden_size", MINILM_WIDTH)
    if config.max_steps is None:
        return config.recipe(plan.batches, config.pairs_seen or pairs * config.epochs, width)
    few = config.recipe(plan.batches, 0)
    return config.recipe(plan.batches, config.max_steps * few.batch_size * few.accumulation * plan.processes, width)


def _shared_selection(plan: TrainPlan, mirror: Mirror) -> "Selection":
    """Return the selection of pairs, made by the first process or an earlier launch, and read by all processes."""
    from cappy_model.train.environment import processes
    from cappy_model.train.selection import ARRANGED, Selection

    folder = mirror.folder
    if plan.main:
        with explained(str(folder), "made"):
            folder.mkdir(parents=True, exist_ok=True)
        mirror.fetch()
        if Selection.load(folder, plan.urls, plan.columns) is None:
            selection = _select(plan, folder / ARRANGED)
            with explained(str(folder), "written"):
                selection.save(folder, plan.urls)
    processes(plan.device).wait_for_everyone()
    found = Selection.load(folder, plan.urls, plan.columns)
    if found is None:
        raise CappyError(f"{folder}: the processes of a run must share this folder, and one of them does not see it")
    return found


def _select(plan: TrainPlan, folder: Path) -> "Selection":
    from cappy_model.train.split import Policy, select

    config = plan.config
    policy = Policy(
        seed=config.seed,
        grouped=plan.batches == GROUPED,
        grouped_evaluation=not plan.begun_before_groups,
        held_out=frozenset().union(*map(held_out_instructions, plan.held_out)),
        evaluation_share=config.eval_fraction,
        rates=plan.rates,
        max_pairs=config.max_pairs,
        max_evaluation_pairs=config.max_eval_pairs,
    )
    return select(
        *(plan.urls, policy, plan.columns, folder),
        storage=config.storage,
        rows_per_range=config.shuffle_buffer,
    )


def _settings(plan: TrainPlan, recipe: Recipe, stream: "Stream") -> "Settings":
    """Settle the number of steps, and how often to evaluate and to save."""
    from cappy_model.train.training import Settings

    config = plan.config
    steps = config.max_steps
    if steps is None:
        whole = sum(map(stream.batches_of_epoch, range(config.epochs)))
        batches = stream.batches_for(config.pairs_seen) if config.pairs_seen else whole
        steps = -(-batches // (recipe.accumulation * plan.processes))
    evaluate_every = config.evaluation_interval(steps)
    return Settings(
        recipe=recipe.name,
        batches=recipe.batches,
        loss=recipe.loss,
        dropout=recipe.dropout,
        steps=steps,
        batch_size=recipe.batch_size,
        accumulation=recipe.accumulation,
        learning_rate=recipe.learning_rate,
        warm_up=config.warm_up,
        dtype=plan.dtype,
        device=plan.device,
        seed=config.seed,
        evaluate_every=evaluate_every,
        save_every=config.save_every or evaluate_every,
        patience=config.patience,
        report_to=config.report_to,
    )


def dry_run(config: TrainConfig) -> str:
    """Describe the corpus, the model, the recipe, and the number of steps and their duration, about."""
    settled = plan(config)
    rows = settled.rows
    pairs = min(rows, config.max_pairs or rows)
    recipe = _settle_recipe(settled, pairs)
    per_step = recipe.batch_size * recipe.accumulation * settled.processes
    steps = config.max_steps or -(-(config.pairs_seen or pairs * config.epochs) // per_step)
    return (
        f"{plural(len(settled.corpus.files), 'file')}, {plural(rows, 'pair')}; at most {pairs:,} of them in an epoch\n"
        f"{config.model} in {settled.dtype} on {settled.device}, processes: {settled.processes}, "
        f"pairs of {settled.max_length} tokens\n{recipe.describe()}\n"
        f"at least {plural(steps, 'step')} over at most {per_step:,} pairs each\n{forecast_run(settled, recipe, steps)}"
    )


def summarise(manifest: Mapping[str, Any]) -> str:
    """Summarise a manifest in a line."""
    pairs, metrics = manifest["pairs"], manifest["metrics"]
    evaluation, learned = metrics["evaluation"], ""
    if evaluation:
        learned = (
            f"; on {plural(pairs['evaluation'], 'held-out pair')} loss {evaluation['loss']:.4f} "
            f"({evaluation['constant_loss']:.4f} by the mean label), correlation {evaluation['pearson']:.3f}"
        )
        if evaluation.get("accuracy") is not None:
            learned += (
                f", accuracy of choosing {evaluation['accuracy']:.3f} ({evaluation['random_accuracy']:.3f} at random) "
                f"for {plural(evaluation['groups'], 'instruction')}"
            )
    seen = ""  # earlier manifests do not tell
    if "pairs_seen" in metrics:
        seen = (
            f" over {plural(metrics['pairs_seen'], 'pair')} ({metrics['epochs']:.2f} epochs of {pairs['training']:,})"
        )
    return (
        f"{plural(metrics['steps'], 'step')}{seen}, weights of step {metrics['step']:,}{learned}; "
        f"{plural(pairs['held_out'], 'pair')} dropped for held-out instructions, in {manifest['seconds']} s"
    )


JOB = LocalJob(
    name="train",
    run=lambda config, options: run(config),
    dry_run=lambda config, options: dry_run(config),
    summary=lambda config, manifest: summarise(manifest),
    page=page,
)
