"""Options of build-corpus."""

from dataclasses import dataclass

from beam_pipelines.runs.config import JobConfig
from beam_pipelines.runs.flags import flag
from schemas.errors import UsageError

CANDIDATE_COLUMNS = ("instruction_id", "instruction", "response", "generator", "decoding", "sample_index")
"""Columns that files of candidates must have."""


@dataclass(frozen=True, kw_only=True)
class BuildCorpusConfig(JobConfig):
    """Options specific to build-corpus. `shards` None: a function of the size of the inputs."""

    mixture: str = flag(metavar="FILE", help="YAML file of datasets and their templates")
    candidates: str | None = flag(
        None,
        metavar="PATTERN",
        help="files of responses sampled from models, labelled too: a path or fsspec URL with wildcards, relative to "
        f"the working directory; their columns include {', '.join(CANDIDATE_COLUMNS)}",
    )
    instructions_only: bool = flag(False, help="write the instructions and no pairs")
    shards: int | None = flag(None, metavar="N", help="number of files of pairs (default: by the size of the inputs)")

    show: int | None = flag(
        None, metavar="N", help="print N rendered examples of each template, and stop; nothing is written"
    )

    def check(self) -> None:
        """Raise UsageError for options of pairs given together with --instructions-only."""
        if self.instructions_only and self.candidates:
            raise UsageError("--candidates and --instructions-only exclude each other: candidates make pairs")
        if self.instructions_only and self.shards:
            raise UsageError("--shards and --instructions-only exclude each other: shards are files of pairs")
