"""`render_report`: from a run's manifest to its report.html."""

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import UndefinedError

from beam_pipelines.jobs.build_corpus.page import corpus_page
from beam_pipelines.jobs.evaluate.page import evaluate_page
from beam_pipelines.jobs.generate.page import generate_page
from beam_pipelines.jobs.rerank.page import rerank_page
from beam_pipelines.jobs.score.page import score_page
from beam_pipelines.report.frame import Page, draw
from schemas.errors import CappyError

_PAGES: Mapping[str, Callable[[Mapping[str, Any]], Page]] = {
    "build-corpus": corpus_page,
    "generate": generate_page,
    "score": score_page,
    "rerank": rerank_page,
    "evaluate": evaluate_page,
}


def render_report(manifest: Mapping[str, Any]) -> str:
    """The report of a run, one self-contained HTML page: the same bytes for the same manifest.

    Raises CappyError when no report is known for the manifest's job, or when the manifest lacks something it must hold.
    """
    job = str(manifest.get("job"))
    if job not in _PAGES:
        raise CappyError(f"no report is known for the job {job!r}; there is one for: {', '.join(sorted(_PAGES))}")
    try:
        return draw(_PAGES[job](manifest), manifest)
    except (KeyError, UndefinedError) as error:
        raise CappyError(
            f"the manifest lacks something ({error}): it is damaged, or another version of cappy wrote it"
        ) from error
