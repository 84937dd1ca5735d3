"""Settling a model in the launcher: device, dtype and batch budget, so that every worker computes alike."""

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from beam_pipelines.io.formats.base import ReadSpec, unit_rows_of
from beam_pipelines.io.inputs import Input
from beam_pipelines.io.storage import StorageOptions, absolute, is_local, join, read_bytes
from beam_pipelines.models.config import LoadingConfig, ModelConfig
from beam_pipelines.models.spec import ModelSpec
from beam_pipelines.report.text import plural
from beam_pipelines.runs.folder import earlier_facts
from beam_pipelines.runs.release import install_command
from cappy_model.work import GENERATING, SCORING, unit_bytes
from schemas.errors import CappyError, UsageError
from schemas.manifest import MANIFEST

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from cappy_model.checkpoints import Checkpoint, ModelSource


def check_named(config: ModelConfig, *, local: bool) -> None:
    """Raise UsageError if a remote runner is to use a device, dtype or batch budget that only its workers know."""
    if local:
        return
    if "auto" in (config.device, config.dtype):
        raise UsageError("--device and --dtype must be named for a remote runner: this machine cannot settle them")
    if not config.tokens_per_batch and not earlier(config, "tokens_per_batch"):
        raise UsageError("--tokens-per-batch must be given for a remote runner: this machine cannot settle it")


@contextmanager
def needing_extra(extra: str, doing: str) -> Iterator[None]:
    """Turn a failed import within the block into a CappyError that names the extra to install for `doing`."""
    try:
        yield
    except ImportError as error:
        raise CappyError(f"{error}; {doing} needs the extra `{extra}`: {install_command(extra)}") from error


def model_source(config: LoadingConfig, model: str) -> "ModelSource":
    """Return the source of a model; a folder by its absolute path, which workers in other working directories find."""
    from cappy_model.checkpoints import ModelSource

    name = absolute(model) if is_local(model) and os.path.isdir(absolute(model)) else model
    return ModelSource(name, config.allow_pickle, config.trust_remote_code, config.storage)


def read_template(name: str, storage: StorageOptions) -> str:
    """Return a template as `settle_template` takes it: auto, none, chat, or the text of the file `name`.

    Raises UsageError for a file that is missing or no UTF-8.
    """
    from cappy_model.score.templates import AUTO, CHAT, NONE

    if name in (AUTO, NONE, CHAT):
        return name
    data = read_bytes(absolute(name), storage)
    if data is None:
        raise UsageError(f"--template {name}: there is no such file; give {AUTO}, {NONE}, {CHAT} or a jinja template")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"--template {name}: is not UTF-8: {error}; save it as UTF-8") from error


def settle(
    config: ModelConfig,
    source: "ModelSource",
    *,
    local: bool,
    tokens: Callable[[str, str], int],
    model_config: "PreTrainedConfig | None" = None,
) -> ModelSpec:
    """Return the model spec sent to workers.

    `tokens` gives the tokens per batch for a device and a dtype, where neither a flag nor an earlier run of the output
    folder names them. Raises UsageError for a device or dtype that this machine lacks, or a model (`model_config`)
    cannot compute in.
    """
    from cappy_model import devices

    device = devices.settle_device(config.device) if local else config.device
    dtype = devices.settle_dtype(config.dtype, device, model_config)
    return ModelSpec(
        model=source.name,
        device=device,
        dtype=dtype,
        tokens_per_batch=config.tokens_per_batch or earlier(config, "tokens_per_batch") or tokens(device, dtype),
        allow_pickle=config.allow_pickle,
        trust_remote_code=config.trust_remote_code,
        storage=json.dumps(config.storage, sort_keys=True),
    )


def settle_unit_bytes(
    config: ModelConfig, checkpoint: "Checkpoint", model_config: "PreTrainedConfig", device: str, *, generates: bool
) -> int:
    """Return the bytes of text of a unit: about a minute's work by the table of `cappy_model.work`.

    A run that is resumed, or grows, keeps those that it was begun with. Raises ModelError for damaged weights,
    UsageError for an unknown device.
    """
    from cappy_model.checkpoints import count_parameters
    from cappy_model.devices import kind_of

    parameters = count_parameters(checkpoint, model_config, generates=generates)
    rates = GENERATING if generates else SCORING
    return earlier(config, "unit_bytes", "settings") or unit_bytes(rates, kind_of(device), parameters)


def describe_units(source: Input, spec: ReadSpec) -> str:
    """Return "about 45 units of at most 512 rows", or "of at most 512 to 1,024 rows" where files differ."""
    sizes = [unit_rows_of(file, spec) for file in source.files if file.rows] or [spec.unit_rows]
    rows = plural(max(sizes), "row") if min(sizes) == max(sizes) else f"{min(sizes):,} to {max(sizes):,} rows"
    return f"about {plural(source.units(spec), 'unit')} of at most {rows}"


def earlier(config: ModelConfig, name: str, part: str = "model") -> int | None:
    """Return a number that the run in the output folder was begun with, by its name: a resumed run keeps it.

    `part` is the part of the fingerprint inputs that has it.
    """
    facts = {} if config.overwrite else earlier_facts(absolute(config.output), config.storage)
    try:
        return int(facts[part][name])
    except (ValueError, KeyError, TypeError):
        return None  # another job's folder, or none


def has_ended(config: ModelConfig, files: int) -> bool:
    """Return whether the output folder holds a finished run over so many files, which is not to be run again."""
    if config.overwrite or read_bytes(join(absolute(config.output), MANIFEST), config.storage) is None:
        return False
    return len(earlier_facts(absolute(config.output), config.storage).get("files", ())) == files


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silence logging while `apache_beam.ml` is imported: it warns of a cloud library that is not installed."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
