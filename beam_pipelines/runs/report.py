"""Reports: from a run's manifest to its report.html."""

from collections.abc import Mapping
from typing import Any

from jinja2 import UndefinedError

from beam_pipelines.report.frame import draw
from beam_pipelines.runs.job import JOBS, load_job
from schemas.errors import CappyError


def render_report(manifest: Mapping[str, Any]) -> str:
    """Render the report of a run as one self-contained HTML page: the same bytes for the same manifest.

    Raises CappyError if the manifest's job has no report, or if the manifest lacks a key that its page shows.
    """
    name = str(manifest.get("job"))
    page = load_job(name).page if name in JOBS else None
    if page is None:
        known = ", ".join(sorted(each for each in JOBS if load_job(each).page))
        raise CappyError(f"there is no report for the job {name!r}; there is one for: {known}")
    try:
        return draw(page(manifest), manifest)
    except (KeyError, UndefinedError) as error:
        raise CappyError(f"the manifest lacks {error}: it is damaged, or another version of cappy wrote it") from error
