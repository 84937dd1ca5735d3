"""Configuration of the jobs with a model: where the model is, and where and how it computes."""

import re
from dataclasses import dataclass

from beam_pipelines.runs.config import JobConfig, RunConfig
from beam_pipelines.runs.flags import flag
from schemas.errors import UsageError

_ACCELERATOR = re.compile(r"type:[\w-]+;count:[1-9]\d*(;[\w.:-]+)*")


@dataclass(frozen=True, kw_only=True)
class LoadingConfig(RunConfig):
    """Options shared by all that loads a model."""

    allow_pickle: bool = flag(False, help="load pickled weights, which can run any code")
    trust_remote_code: bool = flag(False, help="run Python code that comes with the model")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(LoadingConfig, JobConfig):
    """Options shared by the jobs with a model.

    `tokens_per_batch` None: by the device. `accelerator` is Beam's resource hint for the workers that compute; the
    output does not depend on it.
    """

    device: str = flag("auto", metavar="D", help="auto, cpu, cuda (all GPUs) or cuda:N")
    dtype: str = flag("auto", metavar="T", help="number format: auto, float32, bfloat16 or float16")
    tokens_per_batch: int | None = flag(
        None, metavar="N", help="tokens of a batch with padding (default: by the device)"
    )
    accelerator: str | None = flag(
        None,
        metavar="A",
        help="GPU of the Dataflow workers that compute: type:T;count:N[;machine_type:M];install-nvidia-driver",
    )

    def check(self) -> None:
        """Raise UsageError for an invalid accelerator, or one that nothing would compute on."""
        if self.accelerator is None:
            return
        if not _ACCELERATOR.fullmatch(self.accelerator):
            raise UsageError(
                f"--accelerator {self.accelerator!r} must be type:T;count:N and more, such as "
                "'type:nvidia-l4;count:1;machine_type:g2-standard-8;install-nvidia-driver'"
            )
        if self.device == "cpu":
            raise UsageError(
                f"--accelerator {self.accelerator} and --device cpu exclude each other: nothing would use the GPU"
            )
