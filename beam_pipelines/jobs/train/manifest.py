"""What training leaves: the model's files, metrics.json, the model card, and the manifest that ends the run."""

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from beam_pipelines.io.storage import StorageOptions, copy_whole, explained, fixed_part, join, read_bytes, write_whole
from beam_pipelines.runs.card import table
from beam_pipelines.runs.folder import load_manifest
from beam_pipelines.runs.job import versions
from schemas.errors import CappyError
from schemas.ids import digest_of
from schemas.manifest import CARD, FORMAT_VERSION, MANIFEST, METRICS, fingerprint, to_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from cappy_model.train.split import Selection
    from cappy_model.train.training import Settings, Trained

_LOG = logging.getLogger("cappy")


class Made(NamedTuple):
    """What training has come to: a scorer, trained under `settings` on the pairs of a `selection`."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    trained: "Trained"
    settings: "Settings"
    selection: "Selection"


def export(
    made: Made,
    known: Mapping[str, Any],
    *,
    init: str,
    corpus: str,
    output: str,
    folder: Path,
    storage: StorageOptions,
    started: datetime,
) -> None:
    """Writes what was `made` into the `output` folder by way of `folder`, which is here; the manifest last.

    `known` are the facts of the run, `init` is the name of the model that it began with, `corpus` the pattern of its
    files. Raises OutputError.
    """
    metrics = _metrics(made.trained)
    files = _publish(made, metrics, folder / "model", output, storage)
    finished = datetime.now(UTC)
    manifest = {
        "job": known["job"],
        "format_version": FORMAT_VERSION,
        "versions": versions("torch", "transformers", "accelerate", "pyarrow"),
        "fingerprint": fingerprint(known),
        "started": started.isoformat(timespec="seconds"),
        "finished": finished.isoformat(timespec="seconds"),
        "seconds": round((finished - started).total_seconds(), 1),
        "configuration": known["settings"],
        "settled": asdict(made.settings),
        "model": {"name": init, **known["model"]},
        "corpus": _corpus(corpus, storage),
        "inputs": known["files"],
        "pairs": made.selection.counts,
        "made_of": made.selection.made_of,
        "metrics": metrics,
        "files": files,
    }
    write_whole(join(output, CARD), draw_model_card(manifest).encode(), storage)
    write_whole(join(output, MANIFEST), to_json(manifest), storage)


def _publish(
    made: Made, metrics: Mapping[str, Any], folder: Path, output: str, storage: StorageOptions
) -> list[dict[str, Any]]:
    """Writes the model, its tokenizer and metrics.json; what the manifest says of each file."""
    from cappy_model.checkpoints import quiet

    shutil.rmtree(folder, ignore_errors=True)
    with explained(str(folder), "written"), quiet():
        made.model.save_pretrained(folder)
        made.tokenizer.save_pretrained(folder)
        history = {"losses": made.trained.losses, "evaluations": made.trained.evaluations}
        (folder / METRICS).write_bytes(to_json({**metrics, **history}))
    files = [_published(path, output, storage) for path in sorted(folder.iterdir())]
    shutil.rmtree(folder)
    return files


def _published(path: Path, output: str, storage: StorageOptions) -> dict[str, Any]:
    copy_whole(str(path), join(output, path.name), storage)
    data = path.read_bytes()
    return {"path": path.name, "rows": 0, "bytes": len(data), "digest": digest_of(data)}


def _metrics(trained: "Trained") -> dict[str, Any]:
    """The step that was kept, how many there were, and the evaluation at that step; null where there was none."""
    at_step = [entry for entry in trained.evaluations if entry["step"] == trained.step]
    evaluation = {name: value for name, value in at_step[-1].items() if name != "step"} if at_step else None
    return {"step": trained.step, "steps": trained.steps_done, "evaluation": evaluation}


def _corpus(pattern: str, storage: StorageOptions) -> dict[str, Any] | None:
    """What the manifest of the corpus says of it; null where none that can be read stands beside or above the files."""
    folder = fixed_part(pattern).rstrip("/")
    try:
        for place in filter(None, (folder, folder.rpartition("/")[0])):
            if read_bytes(join(place, MANIFEST), storage) is not None:
                found = load_manifest(place, storage)
                return {name: found[name] for name in ("job", "fingerprint", "totals", "pairs") if name in found}
    except CappyError as error:
        _LOG.warning("%s. So the scorer's %s says nothing of how its corpus was made.", error, MANIFEST)
    return None


def draw_model_card(manifest: Mapping[str, Any]) -> str:
    """The README.md of a scorer, a function of its manifest."""
    pairs, settled, found = manifest["pairs"], manifest["settled"], manifest["metrics"]
    configuration = manifest["configuration"]
    sources = sorted({source for counts in manifest["made_of"]["training"].values() for source in counts})
    rows = [
        [dataset, *(f"{counts.get(source, 0):,}" for source in sources)]
        for dataset, counts in manifest["made_of"]["training"].items()
    ]
    names = ("learning_rate", "warm_up", "batch_size", "accumulation", "dtype", "seed")
    settings = [[name, f"{settled[name]}"] for name in names]
    settings += [["max_length", str(configuration["max_length"])], ["truncation", configuration["truncation"]]]
    settings += [["processes", str(configuration["processes"])], ["weights", json.dumps(configuration["weights"])]]
    about = (
        "A scorer: for an instruction and a response one number, about 1 for a correct response and about 0 for a "
        f"wrong one (raw output of the head, not clamped). Trained from `{Path(manifest['model']['name']).name}` for "
        f"{found['steps']:,} steps; the weights are those of step {found['step']:,}."
    )
    dropped = (
        f"{pairs['read']:,} pairs were read and {pairs['training']:,} learned from; {pairs['held_out']:,} were dropped "
        f"for {pairs['held_out_instructions']:,} held-out instructions, {pairs['left_out']:,} left out by weights, "
        f"{pairs['not_drawn']:,} not drawn, and {pairs['evaluation']:,} kept for evaluation, of other instructions."
    )
    use = (
        "```python\nfrom cappy_model.scorer import Scorer\n\n"
        "Scorer.from_pretrained(DIR).score([instruction], [response])\n```"
    )
    evaluation = found["evaluation"] or {}
    results = [[name, f"{value:.6f}"] for name, value in evaluation.items()]
    parts = [
        *("---\nlibrary_name: transformers\npipeline_tag: text-classification\n---\n# Scorer of responses", about, use),
        *("## Training data", dropped, table(["dataset", *sources], rows)),
        *("## Settings", table(["setting", "value"], settings)),
        *(("## Evaluation", table(["metric", "value"], results)) if results else ()),
        f"`{MANIFEST}` has all counts, `{METRICS}` the losses. Made by cappy {manifest['versions']['cappy']}; the "
        f"fingerprint of everything that shapes the weights is `{manifest['fingerprint']}`.",
    ]
    return "\n\n".join(parts) + "\n"
