"""Taking over known scores: `cappy score --reuse` against a merge of the same files in memory.

    python -m benchmarks.reuse [--pairs 1000000] [--repeat 1] [--tiny] [--json reuse.json]

Makes pairs up, and a finished folder of them: score runs as it is, with MiniLM's files, but its scorer makes scores up.
Then the same pairs in another order are scored with this folder, each contender in a process of its own: by `cappy
score --reuse`, by pandas (`merge`), and by a dict of Python. Their scores are compared with those of the folder.
Start-up is the time of the same command over one pair. `--tiny` is for the tests: 2,000 pairs and a tiny model.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from beam_pipelines.program import main as cappy
from benchmarks.machine import (
    Usage,
    describe,
    exiting_on_failure,
    make_parser,
    markdown_table,
    measure,
    megabytes,
    ratio,
    take_turns,
    work_seconds,
)
from benchmarks.reuse_peers import PAIR, PEERS
from benchmarks.scoring_inputs import save_minilm
from cappy_model.score.scorer import Scored, Scorer, ScoringWork
from schemas.ids import pair_keys
from tests.cappy_model.models import save_tiny_scorer

OURS = "cappy score --reuse"
PACKAGES = ("apache-beam", "pyarrow", "pandas")
TINY_PAIRS = 2_000
FILES = 4
RESPONSES = 26  # to an instruction, as in a comparison of systems
SETTLED = ("--device=cpu", "--dtype=float32", "--tokens-per-batch=2048", "--check-pairs=0", "--direct_num_workers=1")


def made_up_pairs(count: int) -> pa.Table:
    """Return `count` distinct pairs: instructions of 100 to 400 characters, responses of 100 to 1,400."""
    rng = np.random.default_rng(0)
    words = np.array(["".join(rng.choice(list("etaoinshrdlu"), length)) for length in rng.integers(2, 10, 5_000)])
    text = " ".join(rng.choice(words, 200_000))
    starts, lengths = rng.integers(0, len(text) - 1_500, count), rng.integers(100, 1_400, count)
    responses = [
        f"{number}. {text[start : start + length]}"
        for number, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True))
    ]
    firsts = rng.integers(0, len(text) - 500, -(-count // RESPONSES)).tolist()
    instructions = [text[start : start + 100 + start % 300] for start in firsts]
    return pa.table([[instructions[number // RESPONSES] for number in range(count)], responses], names=PAIR)


def made_up_scores(instructions: Sequence[str], responses: Sequence[str]) -> np.ndarray:
    """Return a number from -4 to 4 for each pair, by its key: float32[n]."""
    keys = np.frombuffer(b"".join(pair_keys(instructions, responses)), np.uint32)[::4]
    return (keys / np.float64(2**29) - 4).astype(np.float32)


def _make_up(
    self: Scorer, instructions: Sequence[str], responses: Sequence[str], *, on_progress: object = None
) -> Scored:
    count = len(instructions)
    num_tokens = np.fromiter(map(len, responses), np.int32, count) // 4
    scores = made_up_scores(instructions, responses)
    return Scored(scores, num_tokens, num_tokens > 256, {}, ScoringWork(distinct=count, tokens=int(num_tokens.sum())))


def write_files(table: pa.Table, folder: Path) -> Path:
    """Write rows as `FILES` Parquet files; return their pattern."""
    folder.mkdir()
    edges = np.linspace(0, table.num_rows, FILES + 1).astype(int)
    for number, (start, stop) in enumerate(pairwise(edges)):
        pq.write_table(table.slice(start, stop - start), folder / f"{number}.parquet")
    return folder / "*.parquet"


def score_flags(pattern: Path, model: Path, output: Path) -> list[str]:
    """Return the words of `cappy score`."""
    return ["score", "--input", str(pattern), "--model", str(model), "--output", str(output), *SETTLED]


def make_finished(pairs: pa.Table, model: Path, folder: Path) -> Path:
    """Run score over pairs with scores that are made up; return its folder. Raises SystemExit if that fails."""
    with mock.patch.object(Scorer, "score_pairs", _make_up):
        pattern = write_files(pairs, folder / "known-input")
        status = cappy(score_flags(pattern, model, folder / "known"))
    if status:
        raise SystemExit(status)
    return folder / "known"


def run(name: str, wanted: Path, known: Path, model: Path, output: Path) -> Usage:
    """Run a contender once into an empty folder."""
    shutil.rmtree(output, ignore_errors=True)
    if name == OURS:
        words = ["-m", "beam_pipelines.program", *score_flags(wanted, model, output), "--reuse", str(known)]
    else:
        words = ["-m", "benchmarks.reuse_peers", name, *map(str, (known, wanted.parent, output))]
    return measure(words, output.with_suffix(".log"))


def check_scores(output: Path, wanted: pa.Table) -> None:
    """Raise SystemExit if the scores of a contender's output are not those that were made up, to the byte."""
    found = ds.dataset(str(output / "rows"), format="parquet").to_table(["score"])["score"].to_numpy()
    expected = made_up_scores(*(wanted[name].to_pylist() for name in PAIR))
    if found.astype(np.float32).tobytes() != expected.tobytes():
        raise SystemExit(f"{output}: the scores differ from those of the finished folder")


def compare(pairs: pa.Table, model: Path, folder: Path, repeat: int) -> dict[str, tuple[Usage, Usage]]:
    """Return the usage of each contender over all pairs, and over one pair."""
    known = make_finished(pairs, model, folder)
    wanted = pairs.take(np.random.default_rng(1).permutation(pairs.num_rows))
    patterns = {"all": write_files(wanted, folder / "all"), "one": write_files(wanted.slice(0, 1), folder / "one")}
    (folder / "single").mkdir()
    single = make_finished(wanted.slice(0, 1), model, folder / "single")
    runs = {}
    for name in (OURS, *PEERS):
        runs[f"{name}, one"] = partial(run, name, patterns["one"], single, model, folder / "output-one")
        runs[name] = partial(run, name, patterns["all"], known, model, folder / f"output-{name.split()[0]}")
    usages = take_turns(runs, repeat)
    for name in (OURS, *PEERS):
        check_scores(folder / f"output-{name.split()[0]}", wanted)
    return {name: (usages[name], usages[f"{name}, one"]) for name in (OURS, *PEERS)}


def show(found: dict[str, tuple[Usage, Usage]], pairs: int, size: int) -> None:
    """Print the table."""
    work = {name: work_seconds(usage.seconds, start.seconds) for name, (usage, start) in found.items()}
    rows = [
        {
            "": name,
            "start-up, s": f"{start.seconds:.1f}",
            "total, s": f"{usage.seconds:.1f}",
            "work, s": f"{work[name]:.1f}",
            "pairs/s of work": f"{pairs / work[name]:,.0f}",
            "of ours": ratio(work[name], work[OURS]),
            "CPU of work, s": f"{usage.cpu - start.cpu:.1f}",
            "peak MB": megabytes(usage.tree),
            "over start-up, MB": megabytes(usage.tree - start.tree),
        }
        for name, (usage, start) in found.items()
    ]
    print(f"{describe(*PACKAGES)} {pairs:,} pairs of {megabytes(size)} MB of text, all of them known.\n")
    print(markdown_table(rows))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = make_parser(__doc__, repeat=1)
    parser.add_argument("--pairs", type=int, default=1_000_000, help="number of pairs (default 1000000)")
    parser.add_argument("--tiny", action="store_true", help="2,000 pairs and a tiny model")
    parser.add_argument("--json", type=Path, help="also write the usages to this file")
    arguments = parser.parse_args(argv)
    with TemporaryDirectory() as temporary, exiting_on_failure():
        folder = Path(temporary)
        model = save_tiny_scorer(folder / "model") if arguments.tiny else save_minilm(folder / "model")
        pairs = made_up_pairs(TINY_PAIRS if arguments.tiny else arguments.pairs)
        size = sum(pairs[name].nbytes for name in PAIR)
        found = compare(pairs, model, folder, arguments.repeat)
    show(found, pairs.num_rows, size)
    if arguments.json:
        arguments.json.write_text(json.dumps({name: list(map(asdict, usages)) for name, usages in found.items()}))


if __name__ == "__main__":
    main()
