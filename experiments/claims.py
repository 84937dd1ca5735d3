"""The paper's claims at a small scale: a scorer alone, as a booster of a language model, adapted, and as a ranker.

    pip install '.[train,model,bench,gemma]'
    python -m tools.gemma gemma-3-270m
    python -m experiments.claims gemma-3-270m WORK [--seeds 3] [--pairs 8000] ...

Everything is done by the project's own commands, which are printed as they run, over the real data of `../shared`, in
the folder WORK. A command that has finished there is not run again, so an interrupted run goes on. The tables at the
end are for docs/results.md.
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
from benchmarks.machine import ROOT, describe
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
"""Two worked examples of our own, since the language model is a base model."""

WEIGHTS = {"dataset": {"dream": 0.5, "cos_e": 0.5, "cosmos_qa": 0.5}, "label_source": {"wrong_choice": 0.5}}
"""Which share of the corpus is drawn from: half of the wrong choices, most of it, and half of the questions."""

ONE_WORKER = ("--direct_num_workers", 1)
"""Small inputs are over before a second worker has started."""

UNTRAINED, ALONE, ADAPTED = "untrained", "alone", "adapted"


class Claims:
    """The commands over one folder. Each step may be run again: what has finished is left alone."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.work = arguments, arguments.work.resolve()
        self.seeds = range(arguments.seeds)
        self.encoder = minilm_folder()
        self.running = Semaphore(arguments.jobs)

    def run(self) -> None:
        """All of it."""
        self.candidates()
        self.corpus()
        weights = self.work / "weights.yaml"
        weights.write_text(yaml.safe_dump(WEIGHTS))
        pairs = self.work / "corpus" / "pairs" / "*.parquet"
        arguments = self.arguments
        self.each(lambda seed: self.train(ALONE, pairs, self.encoder, seed, arguments.pairs, "--weights", weights))
        self.together([self.alone, self.adapt, self.rank])

    def each(self, step: Callable[[int], None]) -> None:
        """A step for every seed."""
        self.together([partial(step, seed) for seed in self.seeds])

    def together(self, steps: Sequence[Callable[[], None]]) -> None:
        """Steps that do not depend on each other; `--jobs` says how many of their commands run at a time."""
        with ThreadPoolExecutor(len(steps)) as pool:
            for done in [pool.submit(step) for step in steps]:
                done.result()

    def candidates(self) -> None:
        """The instructions of both splits, and the language model's 17 candidates for some of each generation task."""
        mixtures = write_mixtures(self.arguments.shared, self.work / "rows", self.arguments.rows)
        (self.work / "prompt.txt").write_text(PROMPT)
        self.together([partial(self.render, mixture, split) for split, mixture in mixtures.items()])
        tasks = sorted({*self.arguments.tasks, *PROMPTED})
        self.together([partial(self.draw, task, split) for split in mixtures for task in tasks])

    def render(self, mixture: Path, split: str) -> None:
        """The instructions of a split."""
        output = self.work / "instructions" / split
        self.cappy("build-corpus", "--mixture", mixture, "--instructions-only", "--output", output)

    def candidates_of(self, task: str, split: str) -> Path:
        """The file of the candidates of a task."""
        return self.work / "candidates" / split / f"{task}.parquet"

    def draw(self, task: str, split: str) -> None:
        """The language model's candidates for some instructions of a task."""
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
        """How much the language model takes at once."""
        tokens = self.arguments.tokens_per_batch
        return ["--tokens-per-batch", tokens] if tokens else []

    def corpus(self) -> None:
        """The labelled corpus of the rows to learn from, candidates of its three generation tasks included."""
        candidates = self.work / "candidates" / "prompted.parquet"
        _write(pa.concat_tables([pq.read_table(self.candidates_of(task, TRAIN)) for task in PROMPTED]), candidates)
        mixture, corpus = self.work / "rows" / "train.yaml", self.work / "corpus"
        self.cappy("build-corpus", "--mixture", mixture, "--candidates", candidates, "--output", corpus)

    def train(self, kind: str, corpus: Path, model: Path, seed: int, pairs: int, *flags: object) -> None:
        """A scorer of `pairs` pairs of a corpus, which no held-out instruction is among."""
        self.cappy(
            "train", "--corpus", corpus, "--model", model, "--output", self.scorer(kind, seed), "--seed", seed,
            "--max-pairs", pairs, "--held-out", self.work / "instructions" / HELD_OUT / "instructions" / "*.parquet",
            *flags, *self.training(self.arguments.learning_rate),
        )  # fmt: skip

    def training(self, rate: float) -> list[object]:
        """The settings of any training."""
        return [
            "--batch-size", self.arguments.batch_size, "--accumulation", 1, "--learning-rate", rate,
            "--max-length", self.arguments.max_length, "--device", self.arguments.device, "--max-eval-pairs", 300,
            "--evaluate-every", self.arguments.evaluate_every, "--save-every", self.arguments.evaluate_every,
        ]  # fmt: skip

    def scorer(self, kind: str, seed: int) -> Path:
        """The folder of a scorer."""
        return self.work / kind / f"seed{seed}"

    def score(self, table: Path, scorers: dict[str, Path], folder: Path, *flags: object) -> str:
        """Scores a table by one scorer after another, a column for each; the pattern of the last files."""
        pattern = str(table)
        for name, scorer in scorers.items():
            self.cappy(
                "score", "--input", pattern, "--model", scorer, "--output", folder / name, "--score-column", name,
                "--device", self.arguments.device, *flags,
            )  # fmt: skip
            pattern = str(folder / name / "part-*.parquet")
        return pattern

    def alone(self) -> None:
        """Classification of held-out rows by each scorer, and by one whose head has learned nothing."""
        folder = self.work / "classification"
        folder.mkdir(exist_ok=True)
        pick_choices(self.work / "instructions" / HELD_OUT / "instructions", folder / "choices.parquet")
        untrained = self.work / UNTRAINED
        scorers = {UNTRAINED: untrained if untrained.exists() else save_minilm(untrained)}
        scorers |= {f"{ALONE}{seed}": self.scorer(ALONE, seed) for seed in self.seeds}
        scored = self.score(
            folder / "choices.parquet",
            scorers,
            folder,
            "--response-column",
            "choices",
            "--max-length",
            self.arguments.max_length,
        )
        self.evaluate("classification", scored, scorers, folder / "evaluation", "--response-column", "choices")

    def adapt(self) -> None:
        """A scorer adapted to each generation task, beside the one it comes from, on the held-out candidates."""
        self.together([partial(self.adapt_to, task, seed) for seed in self.seeds for task in self.arguments.tasks])
        self.each(self.compare)

    def compare(self, seed: int) -> None:
        """What the choices of a scorer, and of what was adapted from it, are worth on all tasks."""
        folder = self.work / "boost" / f"seed{seed}"
        scored = folder / "*" / ADAPTED / "scored" / "part-*.parquet"
        self.evaluate("generation", str(scored), [ALONE, "score"], folder / "evaluation")

    def adapt_to(self, task: str, seed: int) -> None:
        """One scorer adapted to one task; both score its held-out candidates."""
        folder, scorer = self.work / "boost" / f"seed{seed}" / task, self.scorer(ALONE, seed)
        validation = self.score(self.candidates_of(task, HELD_OUT), {ALONE: scorer}, folder)
        self.cappy(
            "adapt", "--train", self.candidates_of(task, TRAIN), "--validation", validation,
            "--model", scorer, "--output", folder / ADAPTED, "--seed", seed,
            "--max-steps", self.arguments.adaptation_steps, *self.training(self.arguments.adaptation_rate), *ONE_WORKER,
        )  # fmt: skip

    def rank(self) -> None:
        """Solutions of GSM8K, ordered by scorers before and after they have learned from those of other problems."""
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
        """The measures of a task, of several columns of scores."""
        names = ",".join(columns)
        given = ("--input", scored, "--task", task, "--score-column", names, "--output", output, *flags)
        self.cappy("evaluate", *given, *ONE_WORKER)

    def cappy(self, *arguments: object) -> None:
        """Runs a command of the project and prints it. Raises CalledProcessError when it fails."""
        words = [str(word) for word in arguments]
        with self.running:
            print(f"cappy {shlex.join(words)}", flush=True)
            subprocess.run([sys.executable, "-m", "beam_pipelines.program", *words], check=True, cwd=ROOT)


def _write(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a language model, as tools.gemma writes it")
    parser.add_argument("work", type=Path, help="folder of all results")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder of real data (../shared)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="scorers of each kind (default: 3)")
    parser.add_argument("--rows", type=int, default=100, metavar="N", help="held out of each dataset (default: 100)")
    parser.add_argument("--prompts", type=int, default=48, metavar="N", help="of each task and split (default: 48)")
    parser.add_argument("--max-new-tokens", type=int, default=12, metavar="N", help="of a candidate (default: 12)")
    parser.add_argument("--tokens-per-batch", type=int, metavar="N", help="of the language model (default: its own)")
    parser.add_argument("--pairs", type=int, default=8_000, metavar="N", help="a scorer learns from (default: 8000)")
    parser.add_argument("--adaptation-steps", type=int, default=60, metavar="N", help="of --batch-size (default: 60)")
    parser.add_argument("--adaptation-rate", type=float, default=5e-5, metavar="R", help="(default: 0.00005)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, help="to adapt to (default: all)")
    parser.add_argument("--problems", type=int, default=300, metavar="N", help="of GSM8K a split (default: 300)")
    parser.add_argument("--learning-rate", type=float, default=2e-4, metavar="R", help="(default: 0.0002)")
    parser.add_argument("--max-length", type=int, default=256, metavar="N", help="tokens of a pair (default: 256)")
    # There are few pairs, so steps of 16 of them, not of 128, at a higher rate.
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="pairs of a step (default: 16)")
    parser.add_argument("--evaluate-every", type=int, default=100, metavar="N", help="steps (default: 100)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="commands at a time (default: 1)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    arguments = _parser().parse_args(argv)
    arguments.work.mkdir(parents=True, exist_ok=True)
    Claims(arguments).run()
    print(describe("torch", "transformers"))
    print(claims_tables.all_tables(arguments.work, arguments.seeds))


if __name__ == "__main__":
    main()
