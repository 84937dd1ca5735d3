"""Write templates/JOB.json, which describes the parameters of a flex template to Dataflow, from the job's flags."""

import argparse
import json
from pathlib import Path
from typing import Any

from submit import PIPELINES
from template import parameters

from beam_pipelines.runs.job import JOBS

TEMPLATES = Path(__file__).parent / "templates"
# No launcher can settle these for its workers; and a template is one pipeline, so that it scores by one model.
_ALSO_REQUIRED = {"score": ("model", "device", "dtype", "tokens_per_batch")}
_REPEATED = "; may be repeated"  # a parameter of a template is given once


def metadata(job: str) -> dict[str, Any]:
    """Return the metadata of a job's template, required parameters first."""
    required = _ALSO_REQUIRED.get(job, ())
    found = [_parameter(name, action, required=name in required) for name, action in parameters(job).items()]
    return {
        "name": f"cappy {job}",
        "description": JOBS[job].help,
        "parameters": sorted(found, key=lambda parameter: parameter["isOptional"]),
    }


def _parameter(name: str, action: argparse.Action, *, required: bool) -> dict[str, Any]:
    help_text = (action.help or "").replace("%%", "%").removesuffix(_REPEATED)
    parameter: dict[str, Any] = {
        "name": name,
        "label": name.replace("_", " "),
        "helpText": help_text,
        "isOptional": not (action.required or required),
    }
    allowed = ("true", "false") if action.nargs == 0 else action.choices
    return {**parameter, "regexes": [f"^({'|'.join(allowed)})$"]} if allowed else parameter


def text(job: str) -> str:
    """Return the content of a job's file."""
    return json.dumps(metadata(job), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for job in PIPELINES:
        (TEMPLATES / f"{job}.json").write_text(text(job), encoding="utf-8")
