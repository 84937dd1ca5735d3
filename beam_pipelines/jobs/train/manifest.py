"""The results of training: the model's files, metrics.json, the model card, and the manifest that ends the run."""

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from beam_pipelines.io.storage import (
    StorageOptions,
    absolute,
    copy_whole,
    explained,
    fixed_part,
    join,
    read_bytes,
    write_whole,
)
from beam_pipelines.jobs.train.plan import TrainPlan
from beam_pipelines.runs.card import table
from beam_pipelines.runs.folder import load_manifest
from beam_pipelines.runs.manifest import manifest_header
from schemas.errors import CappyError
from schemas.ids import digest_of
from schemas.manifest import CARD, MANIFEST, METRICS, to_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from cappy_model.train.split import Selection
    from cappy_model.train.training import Settings, Trained

_LOG = logging.getLogger("cappy")


class TrainedScorer(NamedTuple):
    """A scorer trained under `settings` on the pairs of `selection`; `trained` is the log of its training."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    trained: "Trained"
    settings: "Settings"
    selection: "Selection"


def write_results(
    scorer: TrainedScorer, plan: TrainPlan, hashed: Mapping[str, Any], *, folder: Path, started: datetime
) -> None:
    """Write the scorer, metrics.json and README.md to the output folder, then manifest.json.

    `hashed` are the fingerprint inputs; `folder` is a local folder for temporary files. Raises OutputError.
    """
    output, storage = plan.output, plan.config.storage
    metrics = _metrics(scorer.trained)
    files = _write_model(scorer, metrics, folder / "model", output, storage)
    manifest = {
        **manifest_header(hashed, started, "torch", "transformers", "accelerate", "pyarrow"),
        "settled": asdict(scorer.settings),
        "model": {"name": plan.config.model, **hashed["model"]},
        "corpus": _describe_corpus(absolute(plan.config.corpus), storage),
        "inputs": hashed["files"],
        "pairs": scorer.selection.counts,
        "made_of": scorer.selection.made_of,
        "metrics": metrics,
        "files": files,
    }
    write_whole(join(output, CARD), draw_model_card(manifest).encode(), storage)
    write_whole(join(output, MANIFEST), to_json(manifest), storage)


def _write_model(
    scorer: TrainedScorer, metrics: Mapping[str, Any], folder: Path, output: str, storage: StorageOptions
) -> list[dict[str, Any]]:
    """Write the model, its tokenizer and metrics.json by way of the local `folder`; return the manifest's `files`."""
    from cappy_model.checkpoints import quiet

    shutil.rmtree(folder, ignore_errors=True)
    with explained(str(folder), "written"), quiet():
        scorer.model.save_pretrained(folder)
        scorer.tokenizer.save_pretrained(folder)
        history = {"losses": scorer.trained.losses, "evaluations": scorer.trained.evaluations}
        (folder / METRICS).write_bytes(to_json({**metrics, **history}))
    files = [_copy_file(path, output, storage) for path in sorted(folder.iterdir())]
    shutil.rmtree(folder)
    return files


def _copy_file(path: Path, output: str, storage: StorageOptions) -> dict[str, Any]:
    """Copy a local file to the output folder; return its entry in the manifest."""
    copy_whole(str(path), join(output, path.name), storage)
    data = path.read_bytes()
    return {"path": path.name, "rows": 0, "bytes": len(data), "digest": digest_of(data)}


def _metrics(trained: "Trained") -> dict[str, Any]:
    """Return the step that was kept, the number of steps, and the evaluation at that step, if any."""
    at_step = [entry for entry in trained.evaluations if entry["step"] == trained.step]
    evaluation = {name: value for name, value in at_step[-1].items() if name != "step"} if at_step else None
    return {"step": trained.step, "steps": trained.steps_done, "evaluation": evaluation}


def _describe_corpus(pattern: str, storage: StorageOptions) -> dict[str, Any] | None:
    """Return the main keys of the corpus's manifest, which is in the folder of its files or the parent, if any."""
    folder = fixed_part(pattern).rstrip("/")
    try:
        for place in filter(None, (folder, folder.rpartition("/")[0])):
            if read_bytes(join(place, MANIFEST), storage) is not None:
                found = load_manifest(place, storage)
                return {name: found[name] for name in ("job", "fingerprint", "totals", "pairs") if name in found}
    except CappyError as error:
        _LOG.warning("%s. The scorer's %s therefore does not describe its corpus.", error, MANIFEST)
    return None


def draw_model_card(manifest: Mapping[str, Any]) -> str:
    """Return the README.md of a scorer, a function of its manifest."""
    metrics = manifest["metrics"]
    about = (
        "A scorer: for an (instruction, response) pair it returns one number, near 1 for a correct response and near 0 "
        f"for a wrong one (raw output of the head, not clamped). Trained from `{Path(manifest['model']['name']).name}` "
        f"for {metrics['steps']:,} steps; the weights are those of step {metrics['step']:,}."
    )
    use = (
        "```python\nfrom cappy_model import Scorer\n\nScorer.from_pretrained(DIR).score([instruction], [response])\n```"
    )
    results = [[name, f"{value:.6f}"] for name, value in (metrics["evaluation"] or {}).items()]
    parts = [
        *("---\nlibrary_name: transformers\npipeline_tag: text-classification\n---\n# Scorer of responses", about, use),
        *("## Training data", _describe_pairs(manifest["pairs"]), _table_of_pairs(manifest["made_of"]["training"])),
        *("## Settings", table(["setting", "value"], _settings(manifest))),
        *(("## Evaluation", table(["metric", "value"], results)) if results else ()),
        f"`{MANIFEST}` has all counts, `{METRICS}` the losses. Made by cappy {manifest['versions']['cappy']}; the "
        f"fingerprint of everything that shapes the weights is `{manifest['fingerprint']}`.",
    ]
    return "\n\n".join(parts) + "\n"


def _describe_pairs(pairs: Mapping[str, int]) -> str:
    return (
        f"{pairs['read']:,} pairs were read and {pairs['training']:,} learned from; {pairs['held_out']:,} were dropped "
        f"for {pairs['held_out_instructions']:,} held-out instructions, {pairs['left_out']:,} left out by weights, "
        f"{pairs['not_drawn']:,} not drawn, and {pairs['evaluation']:,} kept for evaluation, of other instructions."
    )


def _table_of_pairs(made_of: Mapping[str, Mapping[str, int]]) -> str:
    """Return a table of the number of pairs by dataset and label source."""
    sources = sorted({source for counts in made_of.values() for source in counts})
    rows = [[dataset, *(f"{counts.get(source, 0):,}" for source in sources)] for dataset, counts in made_of.items()]
    return table(["dataset", *sources], rows)


def _settings(manifest: Mapping[str, Any]) -> list[list[str]]:
    """Return the names and values of the settings that the model card shows."""
    settled, configuration = manifest["settled"], manifest["configuration"]
    names = ("learning_rate", "warm_up", "batch_size", "accumulation", "dtype", "seed")
    return [
        *([name, str(settled[name])] for name in names),
        *([name, str(configuration[name])] for name in ("max_length", "truncation", "processes")),
        ["weights", json.dumps(configuration["weights"])],
    ]
