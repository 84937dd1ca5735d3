"""What the jobs with a model share: its flags, where it is, and what the launcher settles of it."""

import argparse
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from beam_pipelines.doctor.findings import install
from beam_pipelines.io.storage import absolute, join, read_bytes
from beam_pipelines.models.spec import ModelSpec
from beam_pipelines.runners.options import JobConfig, positive
from schemas.errors import CappyError, UsageError
from schemas.manifest import RUN

if TYPE_CHECKING:
    from cappy_model.checkpoints import Source


_ACCELERATOR = re.compile(r"type:[\w-]+;count:[1-9]\d*(;[\w.:-]+)*")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(JobConfig):
    """How a model is loaded and where it computes. `tokens_per_batch` None: by the device.

    `accelerator` is what a runner shall give to the machines that compute, in the words of Beam's hint; of no
    consequence for what comes out.
    """

    device: str = "auto"
    dtype: str = "auto"
    tokens_per_batch: int | None = None
    accelerator: str | None = None
    allow_pickle: bool = False
    trust_remote_code: bool = False


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `ModelConfig`."""
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda (all GPUs) or cuda:N")
    parser.add_argument("--dtype", default="auto", metavar="T", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--tokens-per-batch", type=positive, metavar="N", help="(default: by the device)")
    parser.add_argument(
        "--accelerator",
        metavar="A",
        help="for --runner DataflowRunner: type:T;count:N[;machine_type:M];install-nvidia-driver, for the steps that "
        "compute alone",
    )
    parser.add_argument("--allow-pickle", action="store_true", help="load pickled weights, which can run any code")
    parser.add_argument("--trust-remote-code", action="store_true", help="run Python code that comes with the model")


def check_settled(config: ModelConfig, *, local: bool) -> None:
    """Raises UsageError where a remote runner is to use a device that only its own workers could settle, and for an
    accelerator that is none, or that nothing would compute on."""
    _check_accelerator(config)
    if not local and "auto" in (config.device, config.dtype):
        raise UsageError("--device and --dtype must be named for a remote runner: this machine cannot settle them")
    if not local and not config.tokens_per_batch and not _earlier_tokens(config):
        raise UsageError("--tokens-per-batch must be given for a remote runner: this machine cannot settle it")


def _check_accelerator(config: ModelConfig) -> None:
    asked = config.accelerator
    if asked is None:
        return
    if not _ACCELERATOR.fullmatch(asked):
        raise UsageError(
            f"--accelerator {asked!r} must be type:T;count:N and more, such as "
            "'type:nvidia-l4;count:1;machine_type:g2-standard-8;install-nvidia-driver'"
        )
    if config.device == "cpu":
        raise UsageError(f"--accelerator {asked} and --device cpu exclude each other: nothing would compute on it")


@contextmanager
def needing_extra(extra: str, doing: str) -> Iterator[None]:
    """Turns a failed import inside of it into a CappyError that says what to install for `doing` ("scoring", say)."""
    try:
        yield
    except ImportError as error:
        raise CappyError(f"{error}; {doing} needs the extra `{extra}`: {install(extra)}") from error


def model_source(config: ModelConfig, model: str) -> "Source":
    """Where the model is; a folder by its absolute path, which workers of other working directories find too."""
    from cappy_model.checkpoints import Source

    name = absolute(model) if os.path.isdir(model) else model
    return Source(name, config.allow_pickle, config.trust_remote_code, config.storage)


def settle(config: ModelConfig, source: "Source", *, local: bool, tokens: Callable[[str, str], int]) -> ModelSpec:
    """What workers are told of a model.

    `tokens` gives the tokens per batch for a device and a dtype, where neither a flag nor an earlier run of the output
    folder says them. Raises UsageError for a device or dtype that cannot be.
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


def settled_facts(spec: ModelSpec) -> dict[str, Any]:
    """What the fingerprint says of how a model computes."""
    return {"device": spec.device, "dtype": spec.dtype, "tokens_per_batch": spec.tokens_per_batch}


def _earlier_tokens(config: ModelConfig) -> int | None:
    """The tokens per batch of the run that the output folder holds, so that it goes on with other memory free, too."""
    stored = read_bytes(join(absolute(config.output), RUN), config.storage)
    try:
        return int(json.loads(stored)["facts"]["model"]["tokens_per_batch"]) if stored else None
    except (ValueError, KeyError, TypeError):
        return None  # another job's folder, or a damaged one: opening the run says so


@contextmanager
def without_warnings() -> Iterator[None]:
    """Importing `apache_beam.ml` warns of a cloud library that is not there."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
