"""The plan of a training run: its inputs inspected, its model and device settled; and its fingerprint."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from beam_pipelines.io.formats.registry import format_of
from beam_pipelines.io.inputs import Input
from beam_pipelines.io.storage import absolute, join
from beam_pipelines.jobs.train.config import DTYPES, RAW, TrainConfig
from beam_pipelines.jobs.train.files import read_weights
from beam_pipelines.models.settle import model_source, needing_extra, read_template
from beam_pipelines.runs.folder import earlier_facts
from beam_pipelines.runs.inputs import open_inputs, reading_inputs
from beam_pipelines.runs.job import JOBS
from cappy_model.paths import local_path, readable
from cappy_model.train.recipe import GROUPED, LISTWISE, OLDER, RANDOM, VERSION
from schemas.errors import CappyError, UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from cappy_model.checkpoints import Checkpoint
    from cappy_model.score.templates import Template
    from cappy_model.train.corpus import Columns

_FINGERPRINTED = (
    *("seed", "max_pairs", "epochs", "max_steps", "warm_up"),
    *("shuffle_buffer", "eval_fraction", "max_eval_pairs", "evaluate_every", "save_every", "patience"),
)
_BY_RECIPE = ("batch_size", "accumulation", "learning_rate")


@dataclass(frozen=True)
class TrainPlan:
    """A configuration with its inputs inspected, and its model and device settled.

    `rates` are the shares to keep, by column and value; `batches` is `grouped` or `random`. `processes` is the number
    of processes that train together, `main` is true in the first of them, which writes the results.
    """

    config: TrainConfig
    corpus: Input
    held_out: Sequence[Input]
    rates: Mapping[str, Mapping[str, float]]
    begun_before_groups: bool  # and goes on as it was begun
    batches: str
    columns: "Columns"
    checkpoint: "Checkpoint"
    model_config: "PreTrainedConfig"
    template: "Template"
    max_length: int
    device: str
    dtype: str
    processes: int
    main: bool

    @property
    def output(self) -> str:
        """The URL of the output folder."""
        return absolute(self.config.output)

    @property
    def rows(self) -> int:
        """The pairs of the corpus; a preference is two, equal responses included."""
        return self.corpus.rows * (2 if self.columns.preferences else 1)

    @property
    def urls(self) -> list[str]:
        """The files of the corpus, in order."""
        return [file.url for file in self.corpus.files]

    @property
    def files_read(self) -> list[str]:
        """All files that must not be deleted: the corpus, the held-out files, and the config.json of the model."""
        files = [file.url for found in (self.corpus, *self.held_out) for file in found.files]
        return [*files, join(self.checkpoint.source.name, "config.json")]


def plan(config: TrainConfig) -> TrainPlan:
    """Inspect the corpus, the model and the other files; settle device and dtype.

    Raises CappyError or UsageError for anything that is wrong before a pair is read.
    """
    config.check()
    _check_output(config.output)
    begun_before = begun_before_groups(config)
    batches = _settle_batches(config, begun_before=begun_before)
    corpus = _open_corpus(config)
    held_out = [open_inputs(config, pattern, text=["instruction"]) for pattern in config.held_out]
    rates = read_weights(absolute(config.weights), config.storage) if config.weights else {}
    with needing_extra("train", "training"):
        from cappy_model import checkpoints
        from cappy_model.score import encoding
        from cappy_model.train import environment, start
    environment.check_report_to(config.report_to)
    device, dtype = _settle_device(config)
    checkpoint = checkpoints.find_checkpoint(model_source(config, config.model))
    model_config, tokenizer = checkpoints.load_config(checkpoint)
    start.check_start(checkpoint, model_config, new_head=config.new_head)
    template = _settle_template(config, checkpoint, model_config, tokenizer)
    encoder = encoding.encoder_for(tokenizer, model_config, template=template, max_length=config.max_length)
    state = environment.processes(device)
    return TrainPlan(
        config,
        corpus,
        held_out,
        rates,
        begun_before and batches == RANDOM,
        batches,
        _columns(config),
        checkpoint,
        model_config,
        template,
        encoder.max_length,
        device,
        dtype,
        processes=state.num_processes,
        main=state.is_main_process,
    )


def _check_output(output: str) -> None:
    """Raise UsageError for a local folder that safetensors cannot write to."""
    path = local_path(absolute(output))
    if path is not None and readable(path) != path:
        raise UsageError(
            f"--output {readable(path)}: its path holds bytes that are not UTF-8, where safetensors cannot write; give "
            "another folder"
        )


def begun_before_groups(config: TrainConfig) -> bool:
    """Return whether the output folder has a run that was begun when all batches were random."""
    facts = {} if config.overwrite else earlier_facts(absolute(config.output), config.storage)
    return facts.get("job") == "train" and "settings" in facts and "batches" not in facts["settings"]


def _settle_batches(config: TrainConfig, *, begun_before: bool) -> str:
    """Return how pairs are put into batches: an older run goes on with random batches."""
    batches = config.batches or (RANDOM if begun_before else GROUPED)
    if batches == RANDOM and config.loss == LISTWISE:
        raise UsageError("--loss mse+listwise compares the responses to an instruction; it needs --batches grouped")
    return batches


def _columns(config: TrainConfig) -> "Columns":
    from cappy_model.train.corpus import Columns

    names = (config.instruction_column, config.response_column, config.label_column)
    return Columns(*names, config.chosen_column, config.rejected_column, raw=config.labels == RAW)


def _settle_template(config: TrainConfig, checkpoint: "Checkpoint", model_config: Any, tokenizer: Any) -> "Template":
    """Return the template of the trained model. Raises UsageError for one that its folder could not say."""
    from cappy_model.score.cross_encoder import is_cross_encoder, stored_template
    from cappy_model.score.templates import AUTO, Template, settle_template

    asked = read_template(config.template, config.storage)
    folder = checkpoint.folder_of("modules.json", "config_sentence_transformers.json")
    stored = stored_template(folder) if is_cross_encoder(folder) else None
    if stored not in (None, Template()) and asked == AUTO:
        raise UsageError(
            f"--model {config.model}: stores a prompt of sentence-transformers, which a trained model does not keep; "
            "give --template none, or a file with that prompt"
        )
    return settle_template(asked, tokenizer, model_config, stored=None, answers=False, model=config.model)


def _open_corpus(config: TrainConfig) -> Input:
    corpus = open_inputs(config, config.corpus)
    other = next((file.url for file in corpus.files if format_of(file.url).name != "parquet"), None)
    if other is not None:
        raise UsageError(f"--corpus {other}: is not a Parquet file; give labelled pairs as build-corpus writes them")
    if not corpus.rows:
        raise CappyError(f"--corpus {config.corpus}: holds no pairs; give labelled pairs, as build-corpus writes them")
    return corpus


def _settle_device(config: TrainConfig) -> tuple[str, str]:
    """Return the device, `cpu` or `cuda`, and the dtype, `float32` or `bfloat16`."""
    from cappy_model import devices

    device = devices.settle_device(config.device)
    if ":" in device:
        number = device.partition(":")[2]
        raise UsageError(f"--device {device}: set CUDA_VISIBLE_DEVICES={number} and give --device cuda")
    dtype = devices.settle_dtype(config.dtype, device)
    if dtype not in DTYPES:
        raise UsageError(f"{device} has no bfloat16, and float16 loses small gradients: give --dtype float32")
    return device, dtype


def fingerprint_inputs(plan: TrainPlan) -> dict[str, Any]:
    """Return everything that shapes the weights."""
    config = plan.config
    return {
        "job": "train",
        "format_version": JOBS["train"].format_version,
        "settings": {
            **{name: getattr(config, name) for name in _FINGERPRINTED},
            **_recipe_inputs(plan),
            "max_length": plan.max_length,
            "truncation": "keep_response",
            "weights": plan.rates,
            "dtype": plan.dtype,
            "device": plan.device,
            "processes": plan.processes,
        },
        "model": {"content": plan.checkpoint.content, **plan.template.fingerprint_inputs},
        "files": [file.fingerprint_inputs() for file in plan.corpus.files],
        "held_out": [file.fingerprint_inputs() for found in plan.held_out for file in found.files] or None,
        **reading_inputs(config),
    }


def _recipe_inputs(plan: TrainPlan) -> dict[str, Any]:
    """Return the settings that the recipe gives or flags replace.

    Those of a run that was begun before there were groups are named as they were then, so that it goes on.
    """
    from cappy_model.train.corpus import DEFAULT

    config, random = plan.config, plan.batches == RANDOM
    given = {name: getattr(config, name) for name in (*_BY_RECIPE, "loss", "dropout")}
    inputs = {name: given[name] or (getattr(OLDER, name) if random else None) for name in _BY_RECIPE}
    if not plan.begun_before_groups:
        inputs |= {"batches": plan.batches, "recipe": VERSION, "loss": given["loss"], "dropout": given["dropout"]}
    elif given["dropout"] not in (None, "model"):
        inputs["dropout"] = given["dropout"]
    if config.pairs_seen is not None:
        inputs["pairs_seen"] = config.pairs_seen
    if plan.columns != DEFAULT:
        inputs["columns"] = asdict(plan.columns)
    if config.new_head:
        inputs["new_head"] = True
    return inputs
