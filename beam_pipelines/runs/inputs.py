"""Open the inputs of a job as its options say."""

import logging
import posixpath
from collections.abc import Sequence
from typing import Any

from beam_pipelines.io.dialect import parse_delimiter, parse_encoding
from beam_pipelines.io.formats.base import Dialect
from beam_pipelines.io.inputs import NOTHING_KNOWN, Input, Known, open_input
from beam_pipelines.io.patterns import find
from beam_pipelines.io.resolve import Roles
from beam_pipelines.io.storage import StorageOptions, absolute, join, read_bytes
from beam_pipelines.report.text import plural
from beam_pipelines.runs.folder import earlier_run
from beam_pipelines.runs.growth import known_in, name_new
from beam_pipelines.runs.job import JOBS
from schemas.errors import CappyError, UsageError
from schemas.manifest import MANIFEST, RUN

_LOG = logging.getLogger("cappy")


def open_inputs(
    config: Any,
    patterns: str | Sequence[str],
    *,
    text: Sequence[str] = (),
    numbers: Sequence[str] = (),
    templates: bool = False,
    group: int = 0,
    first: int = 0,
    known: Known = NOTHING_KNOWN,
) -> Input:
    """Find and inspect the files of one input of a job. Raises CappyError as `open_input` does.

    Args:
      config: the job's options (`TextFileConfig`), or those of a check, which has no output folder.
      patterns: the files.
      text, numbers, templates: as in `Roles`.
      group, first, known: as in `open_input`.
    """
    source = open_input(
        [patterns] if isinstance(patterns, str) else patterns,
        config.storage,
        dialect=_dialect(config),
        roles=Roles(text, numbers, getattr(config, "text_columns", ()), templates),
        outside=absolute(config.output) if hasattr(config, "output") else None,
        group=group,
        first=first,
        limit=getattr(config, "limit", None),
        known=known,
    )
    _warn_of_unfinished([file.url for file in source.files], config.storage)
    return source


def _warn_of_unfinished(urls: Sequence[str], storage: StorageOptions) -> None:
    """Warn if files are the table of a run that has not finished, which may not have all of its rows yet."""
    tables = {folder for entry in JOBS.values() for folder in entry.data if folder}
    folders = dict.fromkeys(map(posixpath.dirname, urls))
    for output in dict.fromkeys(posixpath.dirname(url) for url in folders if posixpath.basename(url) in tables):
        begun, ended = (read_bytes(join(output, name), storage) is not None for name in (RUN, MANIFEST))
        if begun and not ended:
            _LOG.warning(
                "%s: holds an unfinished run, whose table may lack rows; run its command again to finish it", output
            )


def known_files(config: Any, job: str) -> Known:
    """Return the files that the run of a job in the output folder knows; none where it is to be overwritten."""
    run = {} if config.overwrite else earlier_run(absolute(config.output), config.storage)
    return known_in(run) if run.get("job") == job else NOTHING_KNOWN


def _dialect(config: Any) -> Dialect:
    """Return the dialect of a configuration, whose options may come from Python. Raises UsageError for a wrong one."""
    delimiter, encoding = config.csv_delimiter, config.encoding
    try:
        return Dialect(delimiter and parse_delimiter(delimiter), encoding and parse_encoding(encoding))
    except ValueError as error:
        raise UsageError(str(error)) from error


def reading_inputs(config: Any) -> dict[str, Any]:
    """Return the fingerprint inputs of how files are read: what differs from the defaults, under `reading`."""
    dialect = _dialect(config)
    given = {
        "text_columns": sorted(getattr(config, "text_columns", ())),
        "csv_delimiter": dialect.delimiter,
        "encoding": dialect.encoding,
    }
    changed = {name: value for name, value in given.items() if value}
    return {"reading": changed} if changed else {}


def rows_to_come(config: Any, job: str, source: Input) -> int:
    """Return the rows of the files that are new to a finished run; all rows where there is no such run."""
    known = set(known_files(config, job).names)
    new = [file.rows for file in source.files if file.name not in known]
    finished = read_bytes(join(absolute(config.output), MANIFEST), config.storage) is not None
    return sum(new) if new and known and finished else source.rows


def check_not_grown(config: Any, job: str, results: str, remedy: str) -> None:
    """Raise CappyError if a run would take in new files while the folder `results` holds what was made of its rows.

    Args:
      config: the options of the run.
      job: its job.
      results: a folder.
      remedy: what to do, a clause.
    """
    known = known_files(config, job).names
    if not known or not earlier_run(results, config.storage):
        return
    names = find(config.input, config.storage, outside=absolute(config.output)).values()
    added = sorted(set(names) - set(known))
    if added:
        raise CappyError(f"{results}: is made of {plural(len(known), 'file')}, and {name_new(added)}; {remedy}")
