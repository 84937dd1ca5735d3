"""The paper's claims at a small scale: a scorer alone, as a booster of a language model, adapted, and as a ranker.

    pip install '.[train,model,bench,gemma]'
    python -m tools.gemma gemma-3-270m
    python -m experiments.claims gemma-3-270m WORK [--seeds 3] [--pairs 8000] ...

Runs commands of this project, which are printed, over the real data of `../shared`, in the folder WORK. A finished
command is not run again, so an interrupted run resumes. The tables at the end are for docs/results.md.
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
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import yaml

from beam_pipelines.jobs.demo.encoder import minilm_folder
from benchmarks.machine import ROOT, describe, make_parser
from benchmarks.scoring_inputs import save_minilm
from experiments import claims_tables
from experiments.claims_data import (
    HELD_OUT,
    PROMPTED,
    TASKS,
    TRAIN,
    pick_choices,
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

WEIGHTS = {"dataset": {"dream": 0.5, "cos_e": 0.5, "cosmos_qa": 0.5}, "label_source": {"wrong_choice": 0.5}}
"""Sampling weights of the corpus: half of the wrong choices, which are most of it, and half of the questions."""

ONE_WORKER = ("--direct_num_workers", 1)
"""Small inputs are finished before a second worker has started."""

_NUMBERS = {
    "--seeds": (3, "scorers of each kind"),
    "--rows": (100, "rows held out of each dataset"),
    "--prompts": (48, "instructions of each task and split"),
    "--max-new-tokens": (12, "tokens of a candidate"),
    "--pairs": (8_000, "training pairs of a scorer"),
    "--adaptation-steps": (60, "steps of --batch-size"),
    "--adaptation-rate": (5e-5, "peak learning rate"),
    "--problems": (300, "GSM8K problems of a split"),
    "--learning-rate": (2e-4, "peak learning rate"),
    "--max-length": (256, "tokens of a pair"),
    # As there are few pairs, steps have 16 of them instead of 128, at a higher learning rate.
    "--batch-size": (16, "pairs of a step"),
    "--evaluate-every": (100, "steps"),
    "--jobs": (1, "commands at a time"),
}

UNTRAINED, ALONE, ADAPTED = "untrained", "alone", "adapted"


class Claims:
    """The commands in one folder. Steps can be repeated: finished commands are skipped."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.work = arguments, arguments.work.resolve()
        self.seeds = range(arguments.seeds)
        self.encoder = minilm_folder()
        self.running = Semaphore(arguments.jobs)

    def run(self) -> None:
        """Run all steps."""
        self.candidates()
        self.corpus()
        weights = self.work / "weights.yaml"
        weights.write_text(yaml.safe_dump(WEIGHTS))
        pairs = self.work / "corpus" / "pairs" / "*.parquet"
        arguments = self.arguments
        self.each(lambda seed: self.train(ALONE, pairs, self.encoder, seed, arguments.pairs, "--weights", weights))
        self.together([self.alone, self.adapt, self.rank])

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
        mixtures = write_mixtures(self.arguments.shared, self.work / "rows", self.arguments.rows)
        (self.work / "prompt.txt").write_text(PROMPT)
        self.together([partial(self.render, mixture, split) for split, mixture in mixtures.items()])
        tasks = sorted({*self.arguments.tasks, *PROMPTED})
        self.together([partial(self.draw, task, split) for split in mixtures for task in tasks])

    def render(self, mixture: Path, split: str) -> None:
        """Render the instructions of a split."""
        output = self.work / "instructions" / split
        self.cappy("build-corpus", "--mixture", mixture, "--instructions-only", "--output", output)

    def candidates_of(self, task: str, split: str) -> Path:
        """Return the file of the candidates of a task."""
        return self.work / "candidates" / split / f"{task}.parquet"

    def draw(self, task: str, split: str) -> None:
        """Draw the language model's candidates for some instructions of a task."""
        picked, drawn = self.work / "picked" / split / f"{task}.parquet", self.work / "drawn" / split / task
        rendered = self.work / "instructions" / split / "instructions"
        _write(pick_prompts(self.arguments.shared, rendered, split, task, self.arguments.prompts), picked)
        self.cappy(
            "generate", "--input", picked, "--model", self.arguments.model, "--output", drawn,
            "--prompt-template", self.work / "prompt.txt", "--stop", "\n", "--device", self.arguments.device,
            "--dtype", "float32", "--max-new-tokens", self.arguments.max_new_tokens, "--unit-rows", 64,
            "--max-reject-rate", 0.05, *self.generation(),
        )  # fmt: skip
        _write(ds.dataset(sorted(drawn.glob("part-*.parquet"))).to_table(), self.candidates_of(task, split))

    def generation(self) -> list[object]:
        """Return the batch size of the language model as flags."""
        tokens = self.arguments.tokens_per_batch
        return ["--tokens-per-batch", tokens] if tokens else []

    def corpus(self) -> None:
        """Build the corpus of the training rows, with candidates of its three generation tasks."""
        candidates = self.work / "candidates" / "prompted.parquet"
        _write(pa.concat_tables([pq.read_table(self.candidates_of(task, TRAIN)) for task in PROMPTED]), candidates)
        mixture, corpus = self.work / "rows" / "train.yaml", self.work / "corpus"
        self.cappy("build-corpus", "--mixture", mixture, "--candidates", candidates, "--output", corpus)

    def train(self, kind: str, corpus: Path, model: Path, seed: int, pairs: int, *flags: object) -> None:
        """Train a scorer on `pairs` pairs of a corpus, without held-out instructions."""
        self.cappy(
            "train", "--corpus", corpus, "--model", model, "--output", self.scorer(kind, seed), "--seed", seed,
            "--max-pairs", pairs, "--held-out", self.work / "instructions" / HELD_OUT / "instructions" / "*.parquet",
            *flags, *self.training(self.arguments.learning_rate),
        )  # fmt: skip

    def training(self, rate: float) -> list[object]:
        """Return the flags of all training runs."""
        return [
            "--batch-size", self.arguments.batch_size, "--accumulation", 1, "--learning-rate", rate,
            "--max-length", self.arguments.max_length, "--device", self.arguments.device, "--max-eval-pairs", 300,
            "--evaluate-every", self.arguments.evaluate_every, "--save-every", self.arguments.evaluate_every,
        ]  # fmt: skip

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
            pattern = str(folder / name / "part-*.parquet")
        return pattern

    def alone(self) -> None:
        """Classify held-out rows with each scorer, and with one whose head is untrained."""
        folder = self.work / "classification"
        folder.mkdir(exist_ok=True)
        pick_choices(self.work / "instructions" / HELD_OUT / "instructions", folder / "choices.parquet")
        untrained = self.work / UNTRAINED
        scorers = {UNTRAINED: untrained if untrained.exists() else save_minilm(untrained)}
        scorers |= {f"{ALONE}{seed}": self.scorer(ALONE, seed) for seed in self.seeds}
        column = ("--response-column", "choices")
        length = ("--max-length", self.arguments.max_length)
        scored = self.score(folder / "choices.parquet", scorers, folder, *column, *length)
        self.evaluate("classification", scored, scorers, folder / "evaluation", *column)

    def adapt(self) -> None:
        """Adapt scorers to each generation task and compare them with the original on held-out candidates."""
        self.together([partial(self.adapt_to, task, seed) for seed in self.seeds for task in self.arguments.tasks])
        self.each(self.compare)

    def compare(self, seed: int) -> None:
        """Evaluate the selections of a scorer and of its adapted versions on all tasks."""
        folder = self.work / "boost" / f"seed{seed}"
        scored = folder / "*" / ADAPTED / "scored" / "part-*.parquet"
        self.evaluate("generation", str(scored), [ALONE, "score"], folder / "evaluation")

    def adapt_to(self, task: str, seed: int) -> None:
        """Adapt one scorer to one task; score the held-out candidates with both."""
        folder, scorer = self.work / "boost" / f"seed{seed}" / task, self.scorer(ALONE, seed)
        validation = self.score(self.candidates_of(task, HELD_OUT), {ALONE: scorer}, folder)
        self.cappy(
            "adapt", "--train", self.candidates_of(task, TRAIN), "--validation", validation,
            "--model", scorer, "--output", folder / ADAPTED, "--seed", seed,
            "--max-steps", self.arguments.adaptation_steps, *self.training(self.arguments.adaptation_rate), *ONE_WORKER,
        )  # fmt: skip

    def rank(self) -> None:
        """Rank solutions of GSM8K with scorers before and after training on solutions of other problems."""
        folder = self.work / "ranking"
        write_solutions(self.arguments.shared, folder, self.arguments.problems)
        pairs, count, some = folder / "train.parquet", 4 * self.arguments.problems, ("--eval-fraction", 0.1)
        self.each(lambda seed: self.train("ranker", pairs, self.scorer(ALONE, seed), seed, count, *some))
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
    print(claims_tables.all_tables(arguments.work, arguments.seeds))


if __name__ == "__main__":
    main()
