"""Start-up: CPU seconds of commands that compute nothing, and of each job over one row.

    python -m benchmarks.startup [--repeat 3] [--jobs score train] [--json startup.json]

`--help`, `--version` and an error in our own flags are compared with a Python process that does nothing; each job, with
one in-process worker and tiny models, with a bare import of the libraries it cannot do without. Shows user and system
time of the process and its children, the minimum of all repeats, in which the contenders take turns.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from transformers.utils import logging

from benchmarks.machine import Usage, describe, exiting_on_failure, make_parser, markdown_table, measure, take_turns
from schemas.records import GROUND_TRUTH, LABELLED_PAIR
from tests.cappy_model.models import save_tiny_generator, save_tiny_scorer
from tools.demo.make_data import DATA, DEMO

GOAL = 0.3
COMMANDS = {"--help": 0, "--version": 0, "score --tokens-per-batch x": 2}  # and their exit status
LIBRARIES = {
    "build-corpus": "apache_beam, pyarrow, jinja2, yaml, nltk, rapidfuzz",
    "generate": "apache_beam, pyarrow, torch, transformers",
    "score": "apache_beam, pyarrow, torch, transformers",
    "rerank": "apache_beam, pyarrow",
    "evaluate": "apache_beam, pyarrow, numpy, rapidfuzz",
    "train": "torch, transformers, accelerate, pyarrow",
}
PACKAGES = ("apache-beam", "pyarrow", "torch", "transformers", "accelerate")
_CPU = ("--device", "cpu", "--dtype", "float32")
_ONE_WORKER = "--direct_num_workers=1"


def job_flags(folder: Path) -> dict[str, list[str]]:
    """Write one row and tiny models for each job below `folder`; return the flags of the jobs."""
    row = {
        "pair_id": "p",
        "instruction_id": "i",
        "dataset": "d",
        "template_id": "t",
        "instruction": "Is water wet?",
        "response": "yes",
        "label": 1.0,
        "label_source": GROUND_TRUTH,
    }
    texts = {name: row[name] for name in ("instruction_id", "instruction", "response")} | {"references": ["yes"]}
    tables = {
        "news": pq.read_table(DATA / "town_news" / "train.parquet").slice(0, 1),
        "candidates": pa.Table.from_pylist([texts]),
        "scored": pa.Table.from_pylist([{**texts, "score": 0.5}]),
        "pairs": pa.Table.from_pylist([row], schema=LABELLED_PAIR),
    }
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    dataset = {"name": "town_news", "split": "train", "paths": str(folder / "news.parquet")}
    mixture = {"templates": str(DEMO / "templates"), "datasets": [dataset]}
    (folder / "mixture.yaml").write_text(yaml.safe_dump(mixture))
    scorer, generator = (str(save(folder / save.__name__)) for save in (save_tiny_scorer, save_tiny_generator))
    candidates, scored, pairs = (str(folder / f"{name}.parquet") for name in ("candidates", "scored", "pairs"))
    drawing = ["--decodings", "beam4", "--max-new-tokens", "2"]
    training = [
        "--max-length",
        "64",
        "--max-steps",
        "1",
        "--batch-size",
        "1",
        "--accumulation",
        "1",
        "--eval-fraction",
        "0",
    ]
    return {
        "build-corpus": ["--mixture", str(folder / "mixture.yaml"), _ONE_WORKER],
        "generate": ["--input", candidates, "--model", generator, *drawing, *_CPU, _ONE_WORKER],
        "score": ["--input", candidates, "--model", scorer, *_CPU, _ONE_WORKER],
        "rerank": ["--input", scored, _ONE_WORKER],
        "evaluate": ["--input", scored, "--task", "generation", _ONE_WORKER],
        "train": ["--corpus", pairs, "--model", scorer, *training, *_CPU],
    }


def run_job(folder: Path, job: str, flags: Sequence[str]) -> Usage:
    """Run a job into a new folder."""
    output = folder / "output"
    shutil.rmtree(output, ignore_errors=True)
    return run(folder, ["-m", "beam_pipelines.program", job, "--output", str(output), *flags])


def run(folder: Path, command: Sequence[str], status: int = 0) -> Usage:
    """Run `python COMMAND` with a log in `folder`."""
    return measure(command, folder / "log", status=status)


def compare(runs: dict[str, Callable[[], Usage]], bare: dict[str, str], repeat: int) -> dict[str, dict[str, float]]:
    """Print the table of `runs` against the baselines that `bare` names; return the CPU seconds of both."""
    usages = take_turns(runs, repeat, reduce=min_cpu)
    found = {name: {"cpu": usages[name].cpu, "bare": usages[bare[name]].cpu} for name in bare}
    rows = [
        {
            "": f"cappy {name}",
            "CPU, s": f"{each['cpu']:.2f}",
            "baseline": f"`{bare[name]}`",
            "its CPU, s": f"{each['bare']:.2f}",
            "ratio": f"x{each['cpu'] / each['bare']:.2f}",
        }
        for name, each in found.items()
    ]
    print(f"\n{markdown_table(rows)}", flush=True)
    return found


def min_cpu(usages: Sequence[Usage]) -> Usage:
    """Return the usage with the least CPU time."""
    return min(usages, key=lambda usage: usage.cpu)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = make_parser(__doc__, repeat=3)
    parser.add_argument("--jobs", nargs="*", choices=LIBRARIES, default=list(LIBRARIES), help="(default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements to this file")
    arguments = parser.parse_args(argv)
    logging.disable_progress_bar()
    print(f"{describe(*PACKAGES)} CPU seconds, minimum of {arguments.repeat} runs.")
    with TemporaryDirectory(prefix="startup-") as name, exiting_on_failure():
        folder = Path(name)

        def import_of(statement: str) -> Callable[[], Usage]:
            return partial(run, folder, ["-c", statement])

        runs = {"pass": import_of("pass")}
        for words, status in COMMANDS.items():
            runs[words] = partial(run, folder, ["-m", "beam_pipelines.program", *words.split()], status)
        found = {"commands": compare(runs, dict.fromkeys(COMMANDS, "pass"), arguments.repeat)}
        print(f"\nThe goal is {GOAL} s for each of these.")
        bare = {job: f"import {LIBRARIES[job]}" for job in arguments.jobs}
        flags = job_flags(folder)
        runs = {statement: import_of(statement) for statement in bare.values()}
        runs |= {job: partial(run_job, folder, job, flags[job]) for job in bare}
        found["jobs"] = compare(runs, bare, arguments.repeat) if bare else {}
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
