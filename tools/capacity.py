"""Extrapolate time and storage of each stage to a corpus of any size from finished runs.

    python -m tools.capacity --cores 2 --cluster-cores 400 out/instructions out/corpus out/candidates out/scored

Each folder is the output of an uninterrupted run on a machine with --cores cores, all of them busy. Prints a table:
the measurements of the run, and estimates for --pairs rows of each stage and for --cluster-cores cores of that kind.
GPU hours require a rate: --gpu-tokens-per-second, or --gpu with the file of
`python -m benchmarks.scoring --gpu --json FILE`; without one they are "not measured".
"""

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from beam_pipelines.io.storage import absolute
from beam_pipelines.report.text import compact, size
from beam_pipelines.runners.forecast import Cost, Timing
from beam_pipelines.runs.flags import positive
from beam_pipelines.runs.folder import load_manifest
from schemas.errors import CappyError, UsageError

MILLION = 10**6
HEADER = (
    "| stage | measured | core hours / million | files / million | pairs | core hours | hours | files | GPU hours |"
)
NOT_MEASURED = "not measured"


class Stage(NamedTuple):
    """A finished run: `measured` work of one core, what its rows are called (`unit`), and tokens read by a model."""

    name: str
    unit: str
    seconds: float
    measured: Timing
    tokens: int | None


def stage_of(manifest: Mapping[str, Any], cores: int) -> Stage:
    """Return the stage of a finished run. Raises UsageError if no rate follows from the run."""
    job, totals = manifest["job"], manifest["totals"]
    kinds = {
        "build-corpus": ("label", "pairs"),
        "generate": ("generate", "candidates"),
        "score": ("score", "scored"),
        "rerank": ("rerank", "candidates"),
    }
    if job not in kinds:
        raise UsageError(f"a run of {job} is not a stage; give runs of {', '.join(kinds)}")
    name, counted = kinds[job]
    if job == "build-corpus" and manifest["configuration"]["instructions_only"]:
        name, counted = "instructions", "instructions"
    tokens = manifest.get("tokens")
    if tokens and tokens["this_launch"] != tokens["real"]:
        raise UsageError(f"this run of {job} was resumed: its {manifest['seconds']} s do not cover all its rows")
    rows, written = totals[counted], sum(file["bytes"] for file in manifest["files"])
    if not rows:
        raise UsageError(f"this run of {job} has no {counted}")
    unit = "pairs" if job == "score" else counted
    seconds = manifest["seconds"]
    measured = Timing(rows, Cost(seconds * cores, written))
    return Stage(name, unit, seconds, measured, tokens["real"] if tokens else None)


def table(stages: Sequence[Stage], *, pairs: int, cluster_cores: int, gpu_rate: float | None) -> str:
    """Return a Markdown table with a row for each stage; `gpu_rate` is in tokens per second of one GPU, scoring."""
    lines = [HEADER, "| :--- " + "| ---: " * (HEADER.count("|") - 2) + "|"]
    for stage in stages:
        million, whole = stage.measured.scaled_to(MILLION), stage.measured.scaled_to(pairs)
        cells = (
            stage.name,
            f"{stage.measured.rows:,} {stage.unit} in {stage.seconds:,} s",
            _hours(million.seconds),
            size(round(million.bytes)),
            f"{compact(pairs)} {stage.unit}",
            _hours(whole.seconds),
            _hours(whole.seconds / cluster_cores),
            size(round(whole.bytes)),
            _gpu_hours(stage, pairs, gpu_rate),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.2g}"


def _gpu_hours(stage: Stage, pairs: int, rate: float | None) -> str:
    if stage.tokens is None:
        return ""
    if stage.name != "score" or rate is None:
        return NOT_MEASURED
    return _hours(stage.tokens / stage.measured.rows * pairs / rate)


def rate_in(path: Path) -> float:
    """Read the tokens per second of a GPU from the JSON file of the scoring benchmark. Raises UsageError."""
    try:
        found = json.loads(path.read_text())["rates"]["Scorer"]
        return float(found["tokens"] / statistics.median(found["seconds"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path}: has no rate of a GPU ({type(error).__name__}: {error}); "
            "`python -m benchmarks.scoring --gpu --json FILE` writes one"
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="tools.capacity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="DIR", help="the output folder of a finished job")
    parser.add_argument("--cores", type=positive, required=True, metavar="N", help="cores of the machine of the runs")
    parser.add_argument("--cluster-cores", type=positive, required=True, metavar="N", help="of the planned cluster")
    parser.add_argument(
        "--pairs", type=positive, default=160 * MILLION, metavar="N", help="rows (default: 160 million)"
    )
    gpu = parser.add_mutually_exclusive_group()
    gpu.add_argument("--gpu-tokens-per-second", type=positive, metavar="N", help="scored by one GPU")
    gpu.add_argument("--gpu", type=Path, metavar="FILE", help="JSON file of the scoring benchmark with this rate")
    arguments = parser.parse_args(argv)
    try:
        stages = [stage_of(load_manifest(absolute(run), {}), arguments.cores) for run in arguments.runs]
        rate = rate_in(arguments.gpu) if arguments.gpu else arguments.gpu_tokens_per_second
    except CappyError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print(table(stages, pairs=arguments.pairs, cluster_cores=arguments.cluster_cores, gpu_rate=rate))
    return 0


if __name__ == "__main__":
    sys.exit(main())
