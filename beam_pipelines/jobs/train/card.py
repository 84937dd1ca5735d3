"""The model card of a scorer: its README.md, with the front matter that the hub reads."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from beam_pipelines.jobs.train.metrics import metric_rows
from beam_pipelines.report.text import noun, plural
from beam_pipelines.runs.card import table
from schemas.manifest import CARD, MANIFEST, METRICS, REPORT, RUN

if TYPE_CHECKING:
    from cappy_model.checkpoints import Checkpoint

_LICENSE = ("license", "license_name", "license_link")
_TASK = "text-classification"
_ON_THE_HUB = {"pearson": "pearsonr", "accuracy": "accuracy", "loss": "mse"}
"""Metrics of the front matter, and their types on the hub."""


def describe_origin(checkpoint: "Checkpoint") -> dict[str, Any]:
    """Return the hub id of the model that training starts from, None for a folder, and its license.

    `license` has the front matter's keys, of the model's README.md or else its config.json; it is empty for a model
    that names none. Raises ModelError for a damaged config.json.
    """
    from cappy_model.checkpoints.hub import split_id

    name = checkpoint.source.name
    local = Path(name).is_dir() or "://" in name
    stored = read_front_matter(checkpoint.folder_of(CARD) / CARD) or checkpoint.stored_config()
    found = {key: stored[key] for key in _LICENSE if isinstance(stored.get(key), str | list)}
    return {
        "hub_id": None if local else split_id(checkpoint.source)[0],
        "license": found if "license" in found else {},
    }


def read_front_matter(path: Path) -> dict[str, Any]:
    """Return the YAML front matter of a Markdown file; empty if there is none that can be read."""
    try:
        head, front, _ = path.read_text(encoding="utf-8").split("---\n", 2)
        content = yaml.safe_load(front) if not head.strip() else None
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def draw_model_card(manifest: Mapping[str, Any]) -> str:
    """Return the README.md of a scorer, a function of its manifest."""
    evaluation, warnings = manifest["metrics"]["evaluation"], manifest["warnings"]
    parts = [
        f"---\n{yaml.safe_dump(_front_matter(manifest), sort_keys=False, allow_unicode=True)}---",
        "# Scorer of responses",
        _about(manifest),
        *(["## Warnings", "\n".join(f"- {each[:1].upper()}{each[1:]}." for each in warnings)] if warnings else ()),
        *("## Use", _USE),
        *("## Training data", _describe_pairs(manifest), _table_of_pairs(manifest["made_of"]["training"])),
        *("## Settings", table(["setting", "value"], _settings(manifest))),
        *(_evaluation(evaluation, manifest["pairs"]["evaluation"]) if evaluation else ()),
        *("## Publish", _PUBLISH),
        f"`{MANIFEST}` has all counts, `{METRICS}` the losses; `{REPORT}` shows them. Made by cappy "
        f"{manifest['versions']['cappy']}; the fingerprint of everything that shapes the weights is "
        f"`{manifest['fingerprint']}`.",
    ]
    return "\n\n".join(parts) + "\n"


_USE = (
    "```python\nfrom cappy_model import Scorer\n\n"
    "Scorer.from_pretrained(DIR).score([instruction], [response])  # DIR: this folder, or its id on the hub\n```"
)
_PUBLISH = (
    f'```bash\nhf upload USER/NAME DIR . --exclude {RUN} "checkpoints/*"\n```\n\n'
    f"`{RUN}` has the paths of the command that trained it, and `checkpoints` the logs of experiment trackers, if any: "
    f"both stay behind. `{MANIFEST}` and `{REPORT}` name the model that training started from, by its path if it was a "
    "folder."
)


def _front_matter(manifest: Mapping[str, Any]) -> dict[str, Any]:
    model, evaluation = manifest["model"], manifest["metrics"]["evaluation"]
    front = {"library_name": "transformers", "pipeline_tag": _TASK, **model["license"]}
    if model["hub_id"]:
        front["base_model"] = model["hub_id"]
    values = {name: value for name in _ON_THE_HUB if evaluation and (value := evaluation[name]) is not None}
    if values:
        metrics = [
            {"type": _ON_THE_HUB[name], "value": round(value, 4), "name": name} for name, value in values.items()
        ]
        dataset = {"name": "pairs kept from training", "type": "pairs"}
        result = {"task": {"type": _TASK}, "dataset": dataset, "metrics": metrics}
        front["model-index"] = [{"name": "scorer", "results": [result]}]
    return front


def _about(manifest: Mapping[str, Any]) -> str:
    model, metrics = manifest["model"], manifest["metrics"]
    scale = "near 1 for a correct response and near 0 for a wrong one"
    if manifest["configuration"].get("columns", {}).get("raw"):
        scale = "on the scale of the labels that it was trained on"
    step = f"the weights are those of step {metrics['step']:,}"
    if metrics["evaluation"]:
        step += ", the lowest evaluation loss"
    name = model["hub_id"] or Path(model["name"]).name
    terms = "" if model["license"] else f" The files of `{name}` name no licence; that of the base model applies."
    return (
        f"For an (instruction, response) pair it returns one number, {scale} (raw output of the head, not clamped). "
        f"Trained from `{name}` for {plural(metrics['steps'], 'step')} with the "
        f"recipe for {manifest['settled']['recipe']}; {step}.{terms}"
    )


def _describe_pairs(manifest: Mapping[str, Any]) -> str:
    pairs, metrics, groups = manifest["pairs"], manifest["metrics"], ""
    if "instructions" in pairs:
        groups = f", of {plural(pairs['instructions'], 'instruction')}"
        if pairs["single_responses"]:
            groups += f", {pairs['single_responses']:,} of them with one response only"
    epochs = f"{metrics['epochs']:.3g} {noun(metrics['epochs'], 'epoch')}"
    return (
        f"{plural(metrics['pairs_seen'], 'pair')} seen of {pairs['training']:,} selected ({epochs}){groups}. Of "
        f"{pairs['read']:,} read, {pairs['held_out']:,} were dropped for "
        f"{plural(pairs['held_out_instructions'], 'held-out instruction')}, {pairs['left_out']:,} left out by weights, "
        f"{pairs['not_drawn']:,} not drawn, and {pairs['evaluation']:,} kept for evaluation, of other instructions."
        f"{_describe_equal(pairs.get('equal_preferences', 0))}"
    )


def _describe_equal(preferences: int) -> str:
    return f" {plural(preferences, 'preference')} with two equal responses left out." if preferences else ""


def _table_of_pairs(made_of: Mapping[str, Mapping[str, int]]) -> str:
    """Return a table of the number of pairs by dataset and label source."""
    sources = sorted({source for counts in made_of.values() for source in counts})
    rows = [[dataset, *(f"{counts.get(source, 0):,}" for source in sources)] for dataset, counts in made_of.items()]
    return table(["dataset", *sources], rows)


def _settings(manifest: Mapping[str, Any]) -> list[list[str]]:
    """Return the names and values of the settings that the model card shows."""
    settled, configuration = manifest["settled"], manifest["configuration"]
    dropout = settled["dropout"]
    names = ("learning_rate", "warm_up", "batch_size", "accumulation", "dtype", "seed")
    return [
        *([name, str(settled[name])] for name in ("recipe", "batches", "loss")),
        ["dropout", "the model's own" if dropout is None else str(dropout)],
        *([name, str(settled[name])] for name in names),
        *([name, str(configuration[name])] for name in ("max_length", "truncation", "processes")),
        ["weights", json.dumps(configuration["weights"])],
    ]


def _evaluation(evaluation: Mapping[str, float | None], pairs: int) -> list[str]:
    return [
        "## Evaluation",
        f"On {plural(pairs, 'pair')} kept from training, whose instructions it has not seen:",
        table(
            ["metric", "value", ""], [[f"`{name}`", value, meaning] for name, value, meaning in metric_rows(evaluation)]
        ),
    ]
