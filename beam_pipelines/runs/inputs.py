"""Open the inputs of a job as its options say."""

from collections.abc import Sequence
from typing import Any

from beam_pipelines.io.formats.base import Dialect
from beam_pipelines.io.inputs import Input, open_input
from beam_pipelines.io.resolve import Roles
from beam_pipelines.io.storage import absolute


def open_inputs(
    config: Any,
    patterns: str | Sequence[str],
    *,
    text: Sequence[str] = (),
    numbers: Sequence[str] = (),
    templates: bool = False,
    **place: Any,
) -> Input:
    """Find and inspect the files of one input of a job. Raises CappyError as `open_input` does.

    Args:
      config: the job's options (`InputConfig`), or those of a check, which has no output folder.
      patterns: the files.
      text, numbers, templates: as in `Roles`.
      place: `group`, `first` and `limit` of `open_input`.
    """
    return open_input(
        [patterns] if isinstance(patterns, str) else patterns,
        config.storage,
        dialect=Dialect(config.csv_delimiter, config.encoding),
        roles=Roles(text, numbers, config.text_columns, templates),
        outside=absolute(config.output) if hasattr(config, "output") else None,
        **{"limit": getattr(config, "limit", None), **place},
    )


def reading_inputs(config: Any) -> dict[str, Any]:
    """Return the fingerprint inputs of how files are read: what differs from the defaults, under `reading`."""
    given = {
        "text_columns": sorted(config.text_columns),
        "csv_delimiter": config.csv_delimiter,
        "encoding": config.encoding,
    }
    changed = {name: value for name, value in given.items() if value}
    return {"reading": changed} if changed else {}
