"""A run of `cappy score` of very many units: its messages, its manifest, and the commands that read its folder."""

import json
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam import coders
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.jobs.score.config import ScoreConfig
from beam_pipelines.jobs.score.job import JOB
from beam_pipelines.runners.options import DRY_RUN
from beam_pipelines.runs.finish import FinishRun, MergeStats
from benchmarks.machine import Usage, markdown_table, measure, megabytes, timed
from schemas.stats import FileEntry, Stats

_PARTS = 100
"""Accumulators that a runner merges at the end."""


def many_units_table(folder: Path, model: Path, units: int) -> dict[str, Any]:
    """Run `cappy score` over `units` files of one row each, and all that reads its folder; print and return a table."""
    inputs, output = folder / "in", folder / "out"
    inputs.mkdir()
    for number in range(units):
        row = {"instruction": f"say word {number}", "response": f"word {number}"}
        (inputs / f"{number:07d}.jsonl").write_text(json.dumps(row) + "\n")
    given = ["score", "--input", f"{inputs}/*.jsonl", "--model", str(model), "--output", str(output)]
    given += ["--device", "cpu", "--check-pairs", "0"]
    found: dict[str, dict[str, Any]] = {}

    def run(title: str, *words: str) -> None:
        usage = measure(["-m", "beam_pipelines.program", *words], folder / "log")
        found[title] = _row(usage)

    run("cappy score, all units", *given)
    found["manifest.json"] = {"bytes": (output / "manifest.json").stat().st_size}
    (output / "manifest.json").rename(folder / "manifest.json")
    run("cappy score again, all units there", *given)
    run("cappy score again, finished", *given)
    run("cappy verify", "verify", str(output))
    run("cappy report", "report", str(output))
    manifest = json.loads((output / "manifest.json").read_text())
    before = json.loads((folder / "manifest.json").read_text())
    if manifest["files"] != before["files"] or len(manifest["files"]) != units:
        raise SystemExit(f"{len(manifest['files']):,} files of {units:,} units, or other ones than before")
    found |= _messages({FileEntry(**entry) for entry in manifest["files"]})
    found["pipeline graph"] = _graph(inputs, model, folder / "new")
    shutil.rmtree(output)
    titles = {"seconds": "s", "runner": "peak MB", "bytes": "MB"}
    shown = [{"": name, **{t: _show(key, row.get(key)) for key, t in titles.items()}} for name, row in found.items()]
    print(markdown_table(shown))
    return found


def _show(key: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if key == "seconds" else megabytes(value) if key == "runner" else f"{value / 1e6:.1f}"


def _row(usage: Usage) -> dict[str, Any]:
    return {"seconds": usage.seconds, "cpu": usage.cpu, "runner": usage.runner}


def _messages(files: set[FileEntry]) -> dict[str, dict[str, Any]]:
    """Measure the statistics of these files between the steps of a pipeline, as runners merge and encode them."""
    merge, coder = MergeStats(), coders.registry.get_coder(Stats)
    entries = sorted(files)

    def accumulate(part: int) -> Stats:
        total = merge.create_accumulator()
        for entry in entries[part::_PARTS]:
            total = merge.add_input(total, Stats(files={entry}))
        return total

    adding, parts = timed(lambda: [accumulate(part) for part in range(_PARTS)])
    sent, messages = timed(lambda: [coder.encode(part) for part in parts])
    merging, whole = timed(lambda: merge.merge_accumulators(map(coder.decode, messages)))
    encoding, message = timed(lambda: coder.encode(whole))
    decoding, again = timed(lambda: coder.decode(message))
    if again != Stats(files=files):
        raise SystemExit("the statistics of the merged accumulators differ")
    plain = len(pickle.dumps(whole.files))
    return {
        f"adding up in {_PARTS} accumulators": {"seconds": adding, "bytes": max(map(len, messages))},
        "merging these": {"seconds": sent + merging},
        "message of the whole": {"seconds": encoding + decoding, "bytes": len(message)},
        "(its files, pickled as they are)": {"bytes": plain},
    }


def _graph(inputs: Path, model: Path, output: Path) -> dict[str, Any]:
    """Measure the pipeline that is sent to a runner, with all its input files."""
    pattern, folder = f"{inputs}/*.jsonl", str(output)
    config = ScoreConfig(input=pattern, model=str(model), output=folder, device="cpu", check_pairs=0)
    plan = JOB.plan(config, DRY_RUN)
    own = {"job": JOB.name, "format_version": 2, **JOB.fingerprint_inputs(plan)}
    started = time.perf_counter()
    pipeline = beam.Pipeline(options=PipelineOptions([]))
    JOB.build(pipeline, plan, FinishRun(plan.output, JOB.manifest(plan, own), JOB.card, 0.1))
    size = len(pipeline.to_runner_api().SerializeToString())
    return {"seconds": time.perf_counter() - started, "bytes": size}
