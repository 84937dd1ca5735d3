"""The paper's claims at a small scale: a scorer alone, as a booster of a language model, adapted, and as a ranker.

    pip install '.[train,model,bench,gemma]'
    python -m tools.gemma gemma-3-270m
    python -m experiments.claims gemma-3-270m WORK [--seeds 3] [--pairs 18000] ...

Runs commands of this project, which are printed, over the real data of `../shared`, in the folder WORK. A finished
command is not run again, so an interrupted run resumes. The tables at the end are for docs/results.md. To try another
recipe, give a new WORK, `--data` with the old one, whose candidates are used again, and flags for `cappy train`:

    python -m experiments.claims gemma-3-270m TRIED --data WORK --train-flags='--batches random --dropout model'
    python -m experiments.claims_tables WORK TRIED
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Semaphore

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from beam_pipelines.jobs.demo.encoder import minilm_folder
from benchmarks.machine import ROOT, describe, make_parser
from benchmarks.scoring_inputs import save_minilm
from experiments import claims_tables
from experiments.claims_data import (
    HELD_OUT,
    KNOWN,
    TASKS,
    TRAIN,
    pick_choices,
    pick_pairs,
    pick_prompts,
    write_mixtures,
    write_solutions,
)

PROMPT = """Question: What do people wear on their feet when it snows?
Answer: warm boots

Question: It is raining, so Tom opens his umbrella. Why does he open it? A: to stay dry B: to catch a bus
Answer: to stay dry

Question: {instruction}
Answer:"""
"""Two worked examples, as the language model is a base model."""

ONE_WORKER = ("--direct_num_workers", 1)
"""Small inputs are finished before a second worker has started."""

_NUMBERS = {
    "--seeds": (3, "scorers of each kind"),
    "--rows": (300, "rows held out of each dataset"),
    "--templates": (2, "templates of each held-out row that is classified"),
    "--prompts": (48, "held-out instructions of each task, with candidates"),
    "--train-prompts": (224, "training instructions of each task, with candidates"),
    "--max-new-tokens": (12, "tokens of a candidate"),
    "--pairs": (18_000, "training pairs of a scorer"),
    "--sampled": (0.35, "at most this share of them is of instructions with candidates"),
    "--problems": (300, "held-out problems of GSM8K"),
    "--train-problems": (500, "training problems of GSM8K"),
    "--max-length": (256, "tokens of a pair"),
    "--jobs": (1, "commands at a time"),
}
_CLAIMS = ("alone", "boost", "adapted", "ranking")
_SHARES = ("ag_news=1", "rotten_tomatoes=3", "dream=1.2", "cos_e=1.2", "cosmos_qa=1")

UNTRAINED, ALONE, ADAPTED = "untrained", "alone", "adapted"


class Claims:
    """The commands in one folder. Steps can be repeated: finished commands are skipped."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.work = arguments, arguments.work.resolve()
        self.data = (arguments.data or arguments.work).resolve()
        self.seeds = range(arguments.seeds)
        self.encoder = minilm_folder()
        self.running = Semaphore(arguments.jobs)

    def run(self) -> None:
        """Run all steps."""
        self.candidates()
        self.corpus()
        self.each(lambda seed: self.train(ALONE, self.work / "pairs.parquet", self.encoder, seed))
        steps = {"alone": self.alone, "boost": self.boost, "adapted": self.adapt, "ranking": self.rank}
        for claim in self.arguments.claims:
            steps[claim]()

    def each(self, step: Callable[[int], None]) -> None:
        """Run a step for every seed."""
        self.together([partial(step, seed) for seed in self.seeds])

    def together(self, steps: Sequence[Callable[[], None]]) -> None:
        """Run independent steps concurrently; `--jobs` limits the number of commands at a time."""
        with ThreadPoolExecutor(len(steps)) as pool:
            for done in [pool.submit(step) for step in steps]:
                done.result()

    def candidates(self) -> None:
        """Render both splits and draw 17 candidates for some instructions of each generation task."""
        mixtures = write_mixtures(self.arguments.shared, self.data / "rows", self.arguments.rows)
        (self.data / "prompt.txt").write_text(PROMPT)
        self.together([partial(self.render, mixture, split) for split, mixture in mixtures.items()])
        self.together([partial(self.draw, task, TRAIN) for task in sorted({*KNOWN, *self.arguments.tasks})])
        self.together([partial(self.draw, task, HELD_OUT) for task in self.arguments.tasks])

    def render(self, mixture: Path, split: str) -> None:
        """Render the instructions of a split."""
        output = self.data / "instructions" / split
        self.cappy("build-corpus", "--mixture", mixture, "--instructions-only", "--output", output)

    def candidates_of(self, task: str, split: str) -> Path:
        """Return the file of the candidates of a task."""
        return self.data / "candidates" / split / f"{task}.parquet"

    def draw(self, task: str, split: str) -> None:
        """Draw the language model's candidates for some instructions of a task."""
        picked, drawn = self.data / "picked" / split / f"{task}.parquet", self.data / "drawn" / split / task
        rendered = self.data / "instructions" / split / "instructions"
        counts = {TRAIN: self.arguments.train_prompts, HELD_OUT: self.arguments.prompts}
        _write(pick_prompts(self.arguments.shared, rendered, split, task, counts), picked)
        decodings = ["--decodings", self.arguments.train_decodings] if split == TRAIN else []
        self.cappy(
            "generate", "--input", picked, "--model", self.arguments.model, "--output", drawn,
            "--prompt-template", self.data / "prompt.txt", "--stop", "\n", "--device", self.arguments.device,
            "--max-new-tokens", self.arguments.max_new_tokens, "--unit-rows", 64,
            "--max-reject-rate", 0.05, *decodings, *self.generation(),
        )  # fmt: skip
        _write(ds.dataset(sorted(drawn.glob("candidates/*.parquet"))).to_table(), self.candidates_of(task, split))

    def generation(self) -> list[object]:
        """Return the batch size of the language model as flags."""
        tokens = self.arguments.tokens_per_batch
        return ["--tokens-per-batch", tokens] if tokens else []

    def corpus(self) -> None:
        """Build the corpus of the training rows, with candidates, and pick the pairs to train on."""
        candidates = self.data / "candidates" / "known.parquet"
        _write(pa.concat_tables([pq.read_table(self.candidates_of(task, TRAIN)) for task in KNOWN]), candidates)
        mixture, corpus = self.data / "rows" / "train.yaml", self.data / "corpus"
        self.cappy("build-corpus", "--mixture", mixture, "--candidates", candidates, "--output", corpus)
        numbers, pairs = self.arguments, self.work / "pairs.parquet"
        if not pairs.exists():
            shares = {name: float(share) for name, share in (text.split("=") for text in numbers.shares)}
            pick_pairs(corpus / "pairs", pairs, numbers.pairs, shares, numbers.sampled)

    def train(self, kind: str, corpus: Path, model: Path, seed: int) -> None:
        """Train a scorer on a corpus, without held-out instructions."""
        held_out = self.data / "instructions" / HELD_OUT / "instructions" / "*.parquet"
        self.cappy(
            "train", "--corpus", corpus, "--model", model, "--output", self.scorer(kind, seed), "--seed", seed,
            "--held-out", held_out, "--max-length", self.arguments.max_length, "--device", self.arguments.device,
            *shlex.split(self.arguments.train_flags),
        )  # fmt: skip

    def scorer(self, kind: str, seed: int) -> Path:
        """Return the folder of a scorer."""
        return self.work / kind / f"seed{seed}"

    def score(self, table: Path, scorers: dict[str, Path], folder: Path, *flags: object) -> str:
        """Score a table with each scorer in turn, a column for each; return the pattern of the final files."""
        pattern = str(table)
        for name, scorer in scorers.items():
            self.cappy(
                "score", "--input", pattern, "--model", scorer, "--output", folder / name, "--score-column", name,
                "--device", self.arguments.device, *flags,
            )  # fmt: skip
            pattern = str(folder / name / "rows" / "*.parquet")
        return pattern

    def alone(self) -> None:
        """Classify held-out rows with each scorer, and with one whose head is untrained."""
        folder = self.work / "classification"
        folder.mkdir(exist_ok=True)
        held_out = self.data / "instructions" / HELD_OUT / "instructions"
        pick_choices(held_out, folder / "choices.parquet", self.arguments.templates)
        untrained = self.work / UNTRAINED
        scorers = {UNTRAINED: untrained if untrained.exists() else save_minilm(untrained)}
        scorers |= {f"{ALONE}{seed}": self.scorer(ALONE, seed) for seed in self.seeds}
        column = ("--response-column", "choices")
        length = ("--max-length", self.arguments.max_length)
        scored = self.score(folder / "choices.parquet", scorers, folder, *column, *length)
        self.evaluate("classification", scored, scorers, folder / "evaluation", *column)

    def boost(self) -> None:
        """Choose among the held-out candidates of all tasks with each scorer."""
        folder = self.work / "boost"
        tables = [pq.read_table(self.candidates_of(task, HELD_OUT)) for task in self.arguments.tasks]
        _write(pa.concat_tables(tables), folder / "candidates.parquet")
        scorers = {f"{ALONE}{seed}": self.scorer(ALONE, seed) for seed in self.seeds}
        scored = self.score(folder / "candidates.parquet", scorers, folder)
        self.evaluate("generation", scored, scorers, folder / "evaluation")

    def adapt(self) -> None:
        """Adapt scorers to each generation task and compare them with the original on held-out candidates."""
        scored = self.work / "boost" / f"{ALONE}{self.seeds[-1]}"
        for task in self.arguments.tasks:
            own = ds.dataset(sorted(scored.glob("rows/*.parquet"))).to_table(filter=pc.field("dataset") == task)
            _write(own, self.work / ADAPTED / f"{task}.parquet")
        self.each(self.adapt_one)

    def adapt_one(self, seed: int) -> None:
        """Adapt one scorer to each task; evaluate its selections and those of its adapted versions on all tasks."""
        folder = self.work / ADAPTED / f"seed{seed}"
        self.together([partial(self.adapt_to, task, seed, folder / task) for task in self.arguments.tasks])
        scored = folder / "*" / "scored" / "rows" / "*.parquet"
        self.evaluate("generation", str(scored), [f"{ALONE}{seed}", "score"], folder / "evaluation")

    def adapt_to(self, task: str, seed: int, output: Path) -> None:
        """Adapt one scorer to one task; score the held-out candidates."""
        self.cappy(
            "adapt", "--train", self.candidates_of(task, TRAIN),
            "--validation", self.work / ADAPTED / f"{task}.parquet",
            "--model", self.scorer(ALONE, seed), "--output", output, "--seed", seed,
            "--max-length", self.arguments.max_length, "--device", self.arguments.device,
            *shlex.split(self.arguments.adapt_flags), *ONE_WORKER,
        )  # fmt: skip

    def rank(self) -> None:
        """Rank solutions of GSM8K with scorers before and after training on solutions of other problems."""
        folder = self.work / "ranking"
        counts = {TRAIN: self.arguments.train_problems, HELD_OUT: self.arguments.problems}
        write_solutions(self.arguments.shared, folder, counts)
        pairs = folder / "train.parquet"
        self.each(lambda seed: self.train("ranker", pairs, self.scorer(ALONE, seed), seed))
        kinds = {ALONE: ALONE, ADAPTED: "ranker"}
        scorers = {f"{name}{seed}": self.scorer(kind, seed) for seed in self.seeds for name, kind in kinds.items()}
        scored = self.score(folder / "held_out.parquet", scorers, folder)
        self.evaluate("ranking", scored, scorers, folder / "evaluation", "--label-column", "is_correct")

    def evaluate(
        self, task: str, scored: str, columns: Sequence[str] | dict[str, Path], output: Path, *flags: object
    ) -> None:
        """Compute the measures of a task for several score columns."""
        names = ",".join(columns)
        given = ("--input", scored, "--task", task, "--score-column", names, "--output", output, *flags)
        self.cappy("evaluate", *given, *ONE_WORKER)

    def cappy(self, *arguments: object) -> None:
        """Print and run a command of the project. Raises CalledProcessError if it fails."""
        words = [str(word) for word in arguments]
        with self.running:
            print(f"cappy {shlex.join(words)}", flush=True)
            subprocess.run([sys.executable, "-m", "beam_pipelines.program", *words], check=True, cwd=ROOT)


def _write(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__, shared=True)
    parser.add_argument("model", type=Path, help="folder of a language model, such as tools.gemma writes")
    parser.add_argument("work", type=Path, help="folder of all results")
    for flag, (default, text) in _NUMBERS.items():
        kind, metavar = type(default), "N" if isinstance(default, int) else "R"
        parser.add_argument(flag, type=kind, default=default, metavar=metavar, help=f"{text} (default: {default})")
    parser.add_argument(
        "--train-decodings", default="greedy,sampling,topk40", metavar="A,B,...",
        help="of the candidates to train on (default: greedy,sampling,topk40; held-out candidates: the paper's 17)",
    )  # fmt: skip
    parser.add_argument(
        "--claims", nargs="+", choices=_CLAIMS, default=_CLAIMS, help="to try; adapted needs boost (default: all)"
    )
    parser.add_argument("--data", type=Path, metavar="WORK", help="folder with candidates and corpus (default: WORK)")
    parser.add_argument(
        "--shares", nargs="+", default=_SHARES, metavar="NAME=R",
        help=f"relative number of training pairs of each dataset (default: {' '.join(_SHARES)})",
    )  # fmt: skip
    parser.add_argument("--train-flags", default="", metavar="FLAGS", help="for each `cappy train`, in one string")
    parser.add_argument(
        "--adapt-flags", default="--max-steps 60", metavar="FLAGS",
        help="for each `cappy adapt`, in one string (default: --max-steps 60)",
    )  # fmt: skip
    parser.add_argument("--tokens-per-batch", type=int, metavar="N", help="of the language model (default: its own)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, help="to adapt to (default: all)")
    parser.add_argument("--device", default="cpu")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    arguments = _parser().parse_args(argv)
    arguments.work.mkdir(parents=True, exist_ok=True)
    Claims(arguments).run()
    print(describe("torch", "transformers"))
    print(claims_tables.all_tables(arguments.work))


if __name__ == "__main__":
    main()
