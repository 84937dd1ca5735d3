"""Settling a model in the launcher: device, dtype and batch budget, so that every worker computes alike."""

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from beam_pipelines.io.storage import absolute, join, read_bytes
from beam_pipelines.models.config import LoadingConfig, ModelConfig
from beam_pipelines.models.spec import ModelSpec
from beam_pipelines.runs.release import install_command
from schemas.errors import CappyError, UsageError
from schemas.manifest import RUN

if TYPE_CHECKING:
    from cappy_model.checkpoints import ModelSource


def check_named(config: ModelConfig, *, local: bool) -> None:
    """Raise UsageError if a remote runner is to use a device, dtype or batch budget that only its workers know."""
    if local:
        return
    if "auto" in (config.device, config.dtype):
        raise UsageError("--device and --dtype must be named for a remote runner: this machine cannot settle them")
    if not config.tokens_per_batch and not _earlier_tokens(config):
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

    name = absolute(model) if os.path.isdir(model) else model
    return ModelSource(name, config.allow_pickle, config.trust_remote_code, config.storage)


def settle(config: ModelConfig, source: "ModelSource", *, local: bool, tokens: Callable[[str, str], int]) -> ModelSpec:
    """Return the model spec sent to workers.

    `tokens` gives the tokens per batch for a device and a dtype, where neither a flag nor an earlier run of the output
    folder names them. Raises UsageError for a device or dtype that this machine lacks.
    """
    from cappy_model import devices

    device = devices.settle_device(config.device) if local else config.device
    dtype = devices.settle_dtype(config.dtype, device)
    return ModelSpec(
        model=source.name,
        device=device,
        dtype=dtype,
        tokens_per_batch=config.tokens_per_batch or _earlier_tokens(config) or tokens(device, dtype),
        allow_pickle=config.allow_pickle,
        trust_remote_code=config.trust_remote_code,
        storage=json.dumps(config.storage, sort_keys=True),
    )


def _earlier_tokens(config: ModelConfig) -> int | None:
    """Return the tokens per batch of the run in the output folder: a resumed run keeps them."""
    stored = read_bytes(join(absolute(config.output), RUN), config.storage)
    try:
        return int(json.loads(stored)["facts"]["model"]["tokens_per_batch"]) if stored else None
    except (ValueError, KeyError, TypeError):
        return None  # another job's folder, or a damaged one: opening the run says so


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silence logging while `apache_beam.ml` is imported: it warns of a cloud library that is not installed."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
