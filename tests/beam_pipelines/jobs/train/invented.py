"""Invented results of training runs: their logs, and their manifests."""

import math
from typing import Any

from beam_pipelines.jobs.train.metrics import curves, final_metrics
from beam_pipelines.jobs.train.warnings import warnings_of
from cappy_model.train.training import Trained

LEARNED = {
    "loss": 0.1432,
    "constant_loss": 0.2496,
    "pearson": 0.6571,
    "spread": 0.3127,
    "accuracy": 0.823,
    "random_accuracy": 0.5,
    "groups": 300,
}


def trained(steps: int = 120, *, every: int = 12, evaluates: bool = True, **final: float) -> Trained:
    """Return the log of a run whose last evaluation is `LEARNED`, with the values of `final` instead of its own."""
    losses = [
        {"step": step, "loss": 0.15 + 0.1 * math.exp(-step / 40) + 0.01 * math.sin(step), "learning_rate": 1e-4}
        for step in range(10, steps + 1, 10)
    ]
    evaluations = []
    for step in range(every, steps + 1, every):
        share = step / steps
        evaluations.append(
            {
                **LEARNED,
                "step": step,
                "loss": 0.2496 - share**2 * (0.2496 - LEARNED["loss"]),
                "pearson": share * LEARNED["pearson"],
                "accuracy": 0.5 + share**2 * 0.323,
            }
        )
    if evaluations:
        evaluations[-1].update(LEARNED, **final)
    return Trained(steps, steps, 32 * steps, 2.5601, losses, evaluations if evaluates else [])


def manifest_of(log: Trained | None = None, **changes: Any) -> dict[str, Any]:
    log = log or trained()
    metrics = final_metrics(log)
    files = [("config.json", 900), ("model.safetensors", 90_000_000), ("metrics.json", 9_000)]
    return {
        "job": "train",
        "format_version": 1,
        "versions": {"cappy": "0.1.0", "python": "3.11.7", "torch": "2.13.0"},
        "fingerprint": "5f0c1b9a7d3e42f8a6b0c4d2e8f19a37",
        "started": "2026-11-23T08:00:00+00:00",
        "finished": "2026-11-23T08:06:00+00:00",
        "seconds": 360.0,
        "configuration": {
            "seed": 0,
            "max_length": 128,
            "truncation": "keep_response",
            "weights": {},
            "processes": 1,
        },
        "settled": {
            "recipe": "few pairs",
            "batches": "grouped",
            "loss": "mse",
            "dropout": 0.0,
            "steps": log.steps_done,
            "batch_size": 32,
            "accumulation": 1,
            "learning_rate": 1e-4,
            "warm_up": 0.1,
            "dtype": "float32",
            "seed": 0,
            "report_to": ("tensorboard",),
            "patience": None,
        },
        "model": {"name": "/somewhere/models/MiniLM", "content": "ab" * 16, "hub_id": None, "license": {}},
        "corpus": None,
        "inputs": [{"name": "shard-00000-of-00001.parquet", "size": 123_456, "rows": 2_000, "ends": "cd" * 16}],
        "pairs": {
            "read": 2_000,
            "training": 1_500,
            "evaluation": 400,
            "held_out": 20,
            "held_out_instructions": 10,
            "left_out": 30,
            "not_drawn": 50,
            "instructions": 600,
            "single_responses": 7,
        },
        "made_of": {
            "training": {
                "rotten_tomatoes": {"ground_truth": 500, "wrong_choice": 500},
                "cos_e": {"ground_truth": 100, "wrong_choice": 400},
            },
            "evaluation": {"rotten_tomatoes": {"ground_truth": 200, "wrong_choice": 200}},
        },
        "metrics": metrics,
        "curves": curves(log),
        "warnings": warnings_of(metrics["evaluation"]),
        "files": [{"path": path, "rows": 0, "bytes": size, "digest": "ef" * 16} for path, size in files],
        **changes,
    }
