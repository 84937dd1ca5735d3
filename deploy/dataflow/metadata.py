"""Writes templates/JOB.json, which tell Dataflow the parameters of the flex templates, from the jobs' own flags."""

import argparse
import json
from pathlib import Path
from typing import Any

from submit import JOBS
from template import job_named, parameters

TEMPLATES = Path(__file__).parent / "templates"
# What no launcher can settle for its workers.
_ALSO_REQUIRED = {"score": ("device", "dtype", "tokens_per_batch")}


def metadata(name: str) -> dict[str, Any]:
    """The metadata of a job's template."""
    job = job_named(name)
    required = _ALSO_REQUIRED.get(name, ())
    found = [_parameter(each, action, required=each in required) for each, action in parameters(job).items()]
    return {
        "name": f"cappy {name}",
        "description": job.help,
        "parameters": sorted(found, key=lambda parameter: parameter["isOptional"]),
    }


def _parameter(name: str, action: argparse.Action, *, required: bool) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": name,
        "label": name.replace("_", " "),
        "helpText": (action.help or "").replace("%%", "%"),
        "isOptional": not (action.required or required),
    }
    allowed = ("true", "false") if action.nargs == 0 else action.choices
    return {**told, "regexes": [f"^({'|'.join(allowed)})$"]} if allowed else told


def text(name: str) -> str:
    """The content of a job's file."""
    return json.dumps(metadata(name), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for each in JOBS:
        (TEMPLATES / f"{each}.json").write_text(text(each), encoding="utf-8")
