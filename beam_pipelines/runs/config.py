"""Configurations: the options of a job, each declared once with its type, default and help (see `flags`)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from beam_pipelines.runs.flags import character, codec, flag, json_object, names, share


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options shared by every command that fills an output folder."""

    output: str = flag(metavar="DIR", help="output folder: a path or an fsspec URL")
    overwrite: bool = flag(False, help="replace the files of another run in the output folder")

    takes_beam_flags: ClassVar[bool] = True
    """Whether flags that are not ours go to Beam."""

    def check(self) -> None:
        """Raise UsageError for options that exclude each other or make no sense. Reads no file."""


@dataclass(frozen=True, kw_only=True)
class RunConfig(Config):
    """Options shared by every job but demo. `storage` is passed to fsspec and never written to a file."""

    seed: int = flag(0, parse=int, metavar="SEED", help="random seed")
    dry_run: bool = flag(False, help="print what the job would do, and stop")
    storage: dict[str, Any] = flag(
        name="storage-options",
        default_factory=dict,
        parse=json_object,
        metavar="JSON",
        help="options for the file systems of fsspec, as a JSON object",
        repr=False,
    )


@dataclass(frozen=True, kw_only=True)
class TextFileConfig(RunConfig):
    """Options shared by the jobs that read files of their users: how text files are read."""

    csv_delimiter: str | None = flag(
        None,
        parse=character,
        metavar="CHAR",
        help="separator of CSV fields: a character, or tab (default: a comma; a tab in .tsv)",
    )
    encoding: str | None = flag(
        None,
        parse=codec,
        metavar="NAME",
        help="encoding of text files, such as utf-16 or cp1252 (default: UTF-8)",
    )


@dataclass(frozen=True, kw_only=True)
class InputConfig(TextFileConfig):
    """Options shared by the jobs that read all or any columns of their input."""

    text_columns: tuple[str, ...] = flag(
        (), parse=names, metavar="C[,C]", help="columns to read as text, as the file has them, whatever their values"
    )


@dataclass(frozen=True, kw_only=True)
class JobConfig(InputConfig):
    """Options shared by the jobs that are Beam pipelines. `max_reject_rate` is a share in [0, 1]."""

    limit: int | None = flag(None, metavar="N", help="read only the first N rows of each input file")
    max_reject_rate: float = flag(
        0.01,
        parse=share,
        metavar="R",
        help="fail if a larger share is rejected: of row x template renderings and candidates in build-corpus, of "
        "prompts in generate, of rows and pairs in score, of candidates in rerank and evaluate",
    )
