"""The results of training: the model's files, its card and report, and the manifest that ends the run."""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from beam_pipelines.io.formats.base import InputFile
from beam_pipelines.io.storage import (
    StorageOptions,
    copy_whole,
    explained,
    join,
    read_bytes,
    write_whole,
)
from beam_pipelines.jobs.train.card import describe_origin, draw_model_card
from beam_pipelines.jobs.train.metrics import curves, final_metrics
from beam_pipelines.jobs.train.page import page
from beam_pipelines.jobs.train.plan import TrainPlan
from beam_pipelines.jobs.train.warnings import warnings_of
from beam_pipelines.report.frame import draw
from beam_pipelines.runs.folder import load_manifest
from beam_pipelines.runs.manifest import manifest_header
from cappy_model.paths import shareable
from schemas.errors import CappyError
from schemas.ids import digest_of
from schemas.manifest import CARD, MANIFEST, METRICS, REPORT, to_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from cappy_model.train.selection import Selection
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
    """Write the scorer, metrics.json, README.md and report.html to the output folder, then manifest.json.

    Warnings about what was learned are logged. `hashed` are the fingerprint inputs; `folder` is a local folder for
    temporary files. Raises OutputError.
    """
    output, storage = plan.output, plan.config.storage
    metrics = final_metrics(scorer.trained)
    files = _write_model(scorer, metrics, folder / "model", output, storage)
    manifest = {
        **manifest_header(hashed, started, "torch", "transformers", "accelerate", "pyarrow"),
        "settled": asdict(scorer.settings),
        "model": {"name": shareable(plan.config.model), **hashed["model"], **describe_origin(plan.checkpoint)},
        "corpus": _describe_corpus(plan.corpus.files[0], storage),
        "inputs": hashed["files"],
        "pairs": scorer.selection.counts,
        "made_of": scorer.selection.made_of,
        "metrics": metrics,
        "curves": curves(scorer.trained),
        "warnings": warnings_of(metrics["evaluation"]),
        "files": files,
    }
    for warning in manifest["warnings"]:
        _LOG.warning("%s: %s", output, warning)
    write_whole(join(output, CARD), draw_model_card(manifest).encode(), storage)
    write_whole(join(output, REPORT), draw(page(manifest), manifest).encode(), storage)
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


def _describe_corpus(file: InputFile, storage: StorageOptions) -> dict[str, Any] | None:
    """Return the main keys of the corpus's manifest, which is in the folder of its files or the parent, if any.

    The folder is the fixed part of their pattern: what the URL of a file has before its name.
    """
    folder = file.url.removesuffix(file.name).rstrip("/")
    try:
        for place in filter(None, (folder, folder.rpartition("/")[0])):
            if read_bytes(join(place, MANIFEST), storage) is not None:
                found = load_manifest(place, storage)
                return {name: found[name] for name in ("job", "fingerprint", "totals", "pairs") if name in found}
    except CappyError as error:
        _LOG.warning("%s. The scorer's %s therefore does not describe its corpus.", error, MANIFEST)
    return None
