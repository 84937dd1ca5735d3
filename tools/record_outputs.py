"""Record what the code of a checkout does, and compare two recordings, to show that a refactoring changes nothing.

    python tools/record_outputs.py record TREE OUT.json [--runners inprocess1,inprocess2,portable,prism,flink]
    python tools/record_outputs.py compare A.json B.json
    python tools/record_outputs.py both OLD_TREE NEW_TREE

A recording holds, for every job on every runner, the digests of its data files, its run.json, and its manifest without
times and versions; the flags of every subcommand without help texts; and the Flex templates without help texts. The
jobs run in subprocesses with TREE on the PYTHONPATH, in the Python that runs this script, with a fixed seed of hashes.
Inputs and models are made once in `--work` and serve all recordings (see `record_inputs.py`); both recordings of a
comparison belong on one machine, since the outputs of models differ between processors.

Cards (README.md) are recorded and their differences printed, but they do not fail a comparison. Of report.html only the
presence is compared.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from record_inputs import make_candidates, make_inputs

COMMANDS = (
    *("build-corpus", "generate", "score", "rerank", "evaluate", "train", "adapt", "demo"),
    *("report", "verify", "doctor"),
)
RUNNERS = ("inprocess1", "inprocess2", "portable", "prism", "flink")
SECONDS = 900  # limit of one job
NOT_COMPARED = ("started", "finished", "seconds", "versions")  # keys of a manifest
CPU = ("--device=cpu", "--dtype=float32", "--tokens-per-batch=1024")
TRAINING = ("--device=cpu", "--dtype=float32", "--max-length=60", "--batch-size=8", "--accumulation=2", "--max-steps=4")

DUMP_FLAGS = """
import argparse, json, sys
from beam_pipelines.program import main

def plain(value):
    return [plain(each) for each in value] if isinstance(value, (list, tuple)) else repr(value)

def dump(parser, file=None):
    for action in parser._actions:
        flags[",".join(action.option_strings) or action.dest] = {
            "dest": action.dest, "default": plain(action.default), "nargs": action.nargs, "const": plain(action.const),
            "choices": sorted(map(str, action.choices)) if action.choices else None, "required": action.required,
        }

argparse.ArgumentParser.print_help = dump
found = {}
for command in sys.argv[1:]:
    flags = found[command] = {}
    try:
        main([command, "--help"])
    except SystemExit:
        pass
print(json.dumps(found))
"""


def prepare(folder: Path, tree: Path) -> None:
    """Make the inputs in `folder`, unless they exist; `tree` renders instructions for the candidates."""
    source = Path(__file__).with_name("record_inputs.py").read_bytes()
    version, made = hashlib.blake2b(source, digest_size=16).hexdigest(), folder / "version"
    if made.exists() and made.read_text() == version:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make_inputs(folder)
    command = [*jobs(folder, folder)["instructions"], "--direct_num_workers=1", "--output", folder / "rendered"]
    failure = run(tree, command)
    if failure:
        sys.exit(f"record_outputs: the instructions cannot be rendered: {failure}")
    make_candidates(folder)
    made.write_text(version)


def jobs(inputs: Path, out: Path) -> dict[str, list[Any]]:
    """Return the commands of the Beam jobs by name, in an order in which each finds what it reads."""
    mixture = ["--mixture", inputs / "mixture.yaml", "--limit=30", "--max-reject-rate=1"]
    prompts = ["--input", out / "instructions" / "instructions" / "*.parquet", "--max-new-tokens=8", *CPU]
    scorer = ["--model", inputs / "scorer", *CPU, "--max-reject-rate=1"]
    texts = ["--input", inputs / "texts" / "*"]
    sparse = ["--prompt-template", inputs / "prompt.txt", "--distinct", "--fraction=0.05", "--unit-rows=50"]
    listed = ["--response-column=choices", "--max-reject-rate=1"]
    two = ["--group-column=instruction", "--top-k=2", "--shards=2", "--max-reject-rate=1"]
    choices, scored = out / "score-choices" / "rows" / "*.parquet", inputs / "scored-*.parquet"
    return {
        "instructions": ["build-corpus", *mixture, "--instructions-only"],
        "corpus": ["build-corpus", *mixture, "--candidates", inputs / "candidates.parquet", "--shards=3", "--seed=5"],
        "generate-llama": ["generate", *prompts, "--model", inputs / "llama", "--chat", "--per-template=1"],
        "generate-t5": ["generate", *prompts, "--model", inputs / "t5", "--decodings=greedy,topk40", *sparse],
        "score-texts": ["score", *texts, *scorer],
        "score-choices": ["score", "--input", inputs / "choices.parquet", *scorer, *listed],
        "score-generated": [
            "score",
            "--input",
            out / "generate-llama" / "candidates" / "*.parquet",
            *scorer,
            "--score-column=other",
        ],
        "rerank-scored": ["rerank", "--input", out / "score-texts" / "rows" / "*.parquet", *two],
        "rerank-model": ["rerank", *texts, *scorer],
        "evaluate-generation": ["evaluate", "--input", scored, "--score-column=score,other", "--shards=2"],
        "evaluate-classification": ["evaluate", "--input", choices, "--task=classification", *listed],
        "evaluate-ranking": ["evaluate", "--input", scored, "--task=ranking", "--label-column=is_correct"],
    }


def training_jobs(inputs: Path, out: Path) -> dict[str, list[Any]]:
    """Return the commands of train, on the corpus of the in-process runner, and of adapt."""
    train = ["--corpus", out / "corpus" / "pairs" / "*.parquet", "--model", inputs / "scorer", *TRAINING]
    train += ["--eval-fraction=0.2", "--weights", inputs / "weights.yaml", "--held-out", inputs / "held.jsonl"]
    sides = ["--train", inputs / "train.jsonl", "--validation", inputs / "validation.jsonl"]
    return {
        "train": ["train", *train, "--max-eval-pairs=50", "--shuffle-buffer=100"],
        "adapt": ["adapt", *sides, "--model", inputs / "scorer", *TRAINING, "--direct_num_workers=1"],
    }


def run(tree: Path, arguments: Sequence[Any]) -> str | None:
    """Run a command of the code in `tree`; return None, or the end of what it printed where it failed."""
    command = [sys.executable, "-m", "beam_pipelines.program", *map(str, arguments)]
    cwd = tempfile.gettempdir()  # outside of any checkout: Python looks for modules in it first
    try:
        done = subprocess.run(command, cwd=cwd, env=environment(tree), capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return f"not finished within {SECONDS} s"
    return f"exit status {done.returncode}: {done.stderr[-2000:]}" if done.returncode else None


def environment(tree: Path) -> dict[str, str]:
    """Return the environment in which Python imports the code of `tree`, computes in one thread, and is offline."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    settings = {
        "PYTHONHASHSEED": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return {**os.environ, **threads, **settings, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}


@contextmanager
def runner_flags(runner: str, tree: Path) -> Iterator[list[str] | None]:
    """Yield the flags of a runner, or None where it is not there; a Flink cluster of `tree` is up in the meantime.

    A cluster that somebody else has started may run other code: it is left alone and not used.
    """
    if runner == "flink":

        def act(action: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "tools.flink", action]
            return subprocess.run(command, cwd=tree, env=environment(tree), capture_output=True, text=True)

        if act("flags").returncode == 0:
            print("flink: a cluster is running already; end it first", flush=True)
            yield None
            return
        try:
            up = act("up")
            print(up.stderr, end="", flush=True)
            yield up.stdout.splitlines()[-1].split() if up.returncode == 0 else None
        finally:
            act("down")
        return
    prism = shutil.which("prism", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    known = {
        "inprocess1": ["--direct_num_workers=1"],
        "inprocess2": ["--direct_num_workers=2"],
        "portable": ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"],
        "prism": ["--runner=PrismRunner", f"--prism_location={prism}"] if prism else None,
    }
    yield known[runner]


def record_runner(tree: Path, runner: str, inputs: Path, out: Path) -> dict[str, Any] | None:
    """Run the jobs on a runner, each into a folder below `out`; return their recordings, or None without the runner."""
    started, found = time.monotonic(), {}
    with runner_flags(runner, tree) as flags:
        if flags is None:
            print(f"{runner}: is not there, and is left out", flush=True)
            return None
        commands = {name: [*command, *flags] for name, command in jobs(inputs, out).items()}
        if runner == "inprocess1":
            commands |= training_jobs(inputs, out)
        for name, command in commands.items():
            failure = run(tree, [*command, "--output", out / name])
            if failure:
                print(f"{runner}: {name}: {failure}", flush=True)
            found[name] = {"failure": failure} if failure else record_folder(out / name, {out: "OUT", inputs: "INPUTS"})
    print(f"{runner}: {len(found)} jobs in {time.monotonic() - started:.0f} s", flush=True)
    return found


def record_folder(folder: Path, places: dict[Path, str]) -> dict[str, Any]:
    """Return what a job has written, by file: JSON of manifests and run.json, texts of cards, digests of all others."""
    found: dict[str, Any] = {"files": {}, "cards": {}}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, data = str(path.relative_to(folder)), path.read_bytes()
        text = data.decode(errors="replace")
        for place, sign in places.items():
            text = text.replace(str(place), sign)
        if path.name in ("manifest.json", "run.json"):
            found["files"][name] = without(json.loads(text), NOT_COMPARED)
        elif path.name == "README.md":
            found["cards"][name] = text
        elif path.name == "report.html":
            found["files"][name] = "drawn"
        else:
            found["files"][name] = hashlib.blake2b(data, digest_size=16).hexdigest()
    return found


def without(value: Any, keys: Sequence[str]) -> Any:
    """Return a JSON value without some keys, on every level."""
    if isinstance(value, dict):
        return {name: without(each, keys) for name, each in value.items() if name not in keys}
    return [without(each, keys) for each in value] if isinstance(value, list) else value


def record_flags(tree: Path) -> dict[str, Any]:
    """Return the flags of every subcommand, as argparse has them when it is asked for help."""
    command = [sys.executable, "-c", DUMP_FLAGS, *COMMANDS]
    cwd, env = tempfile.gettempdir(), environment(tree)
    done = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, text=True, check=True, timeout=SECONDS)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    empty = [name for name, flags in found.items() if not flags]
    if empty:
        sys.exit(f"record_outputs: `{empty[0]} --help` shows no flags in {tree}")
    return found


def record_templates(tree: Path) -> dict[str, Any]:
    """Return the Flex templates by name, their parameters by name and without labels and help texts."""
    found = {}
    for path in sorted((tree / "deploy" / "dataflow" / "templates").glob("*.json")):
        content = without(json.loads(path.read_text()), ("helpText", "label", "description"))
        found[path.stem] = {**content, "parameters": {each["name"]: each for each in content["parameters"]}}
    return found


def record(tree: Path, target: Path, work: Path, runners: Sequence[str]) -> bool:
    """Write the recording of a tree to `target`; return whether every job succeeded. Outputs stay in `work`."""
    tree, work = tree.resolve(), work.resolve()  # the jobs run in another working directory
    inputs, out = work / "inputs", work / "outputs" / target.stem
    prepare(inputs, tree)
    shutil.rmtree(out, ignore_errors=True)
    with ThreadPoolExecutor(2) as pool:  # a Flink cluster needs the machine to itself
        small = {
            name: pool.submit(record_runner, tree, name, inputs, out / name) for name in runners if name != "flink"
        }
    found = {name: recorded for name, future in small.items() if (recorded := future.result()) is not None}
    if "flink" in runners and (recorded := record_runner(tree, "flink", inputs, out / "flink")) is not None:
        found["flink"] = recorded
    content = {"flags": record_flags(tree), "templates": record_templates(tree), "runners": found}
    target.write_text(json.dumps(content, indent=1, sort_keys=True))
    return not any("failure" in job for jobs in found.values() for job in jobs.values())


def differences(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield path and description of every difference between two JSON values."""
    if isinstance(a, dict) and isinstance(b, dict):
        for name in sorted(a.keys() | b.keys()):
            if name not in a or name not in b:
                yield f"{path}/{name}", f"only in {'B' if name in b else 'A'}"
            else:
                yield from differences(a[name], b[name], f"{path}/{name}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, pair in enumerate(zip(a, b, strict=True)):
            yield from differences(*pair, f"{path}/{index}")
    elif a != b or type(a) is not type(b):
        yield path, f"{json.dumps(a)[:300]} -> {json.dumps(b)[:300]}"


def compare(a: Path, b: Path) -> bool:
    """Print every difference between two recordings; return whether they are equal, cards aside, and no job failed."""
    recordings = [json.loads(path.read_text()) for path in (a, b)]
    found = list(differences(*recordings))
    cards = [each for each in found if "/cards/" in each[0]]
    for path, what in cards:
        print(f"for information: {path}: {what}")
    faults = [each for each in found if each not in cards]
    for recording, name in zip(recordings, "AB", strict=True):
        for runner, jobs_of in recording["runners"].items():
            faults += [(f"/{runner}/{job}", f"failed in {name}") for job, of in jobs_of.items() if "failure" in of]
    for path, what in faults:
        print(f"{path}: {what}")
    print(f"{len(faults)} differences, and {len(cards)} in cards")
    return not faults


def main() -> None:
    """Record, compare, or both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, places in (("record", ("tree", "target")), ("compare", ("a", "b")), ("both", ("old", "new"))):
        command = commands.add_parser(name)
        for place in places:
            command.add_argument(place, type=Path)
        if name != "compare":
            default = Path(tempfile.gettempdir()) / "cappy-recordings"
            command.add_argument("--work", type=Path, default=default, help=f"inputs and outputs (default: {default})")
            command.add_argument("--runners", type=lambda text: text.split(","), default=RUNNERS)
    given = parser.parse_args()
    if unknown := set(getattr(given, "runners", ())) - set(RUNNERS):
        parser.error(f"unknown runner {min(unknown)}; there are {', '.join(RUNNERS)}")
    if given.command == "compare":
        sys.exit(not compare(given.a, given.b))
    if given.command == "record":
        sys.exit(not record(given.tree, given.target, given.work, given.runners))
    given.work.mkdir(parents=True, exist_ok=True)
    old, new = given.work / "old.json", given.work / "new.json"
    well = [record(tree, path, given.work, given.runners) for tree, path in ((given.old, old), (given.new, new))]
    sys.exit(not (compare(old, new) and all(well)))


if __name__ == "__main__":
    main()
