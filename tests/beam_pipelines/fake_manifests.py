"""Invented manifests of build-corpus, for the tests of its report."""

import random
from typing import Any

from schemas.records import GENERATED, GROUND_TRUTH, LABEL_SOURCES, MISMATCH, WRONG_CHOICE
from schemas.stats import LENGTH_EDGES

Manifest = dict[str, Any]

SMALL = {
    "ag_news:test": (7600, 4, 7),
    "dream:train": (6116, 3, 5),
    "cos_e:v1.0:train": (7610, 5, 11),
    "cosmos_qa:validation": (2985, 4, 13),
    "rotten_tomatoes:train": (8474, 2, 10),
}
"""Per dataset: rows, answer choices (0: free text), templates."""

TEMPLATE_NAMES = (
    "classify_question_first",
    "which_section_choices",
    "recommend",
    "read_the_following_conversation_and_answer_the_question",
    "explain_why_human",
    "generate_answer_given_the_context",
    "question_description_option_text",
    "Sentiment with choices ",
    "description_to_answer",
    "only_question_answer",
    "Reviewer Opinion bad good choices",
    "i_think",
    "context_question_description_answer_id",
)

INSTRUCTION = (
    "Read the following conversation and answer the question.\n\nMan: Did the parcel come?\n"
    "Woman: It was left with the neighbours, since nobody opened the door.\n\n"
    "Question: Where is the parcel now?\n\n- At the post office.\n- Next door.\n"
)


def bell(rng: random.Random, total: int, middle: int, buckets: int) -> list[int]:
    """Spread `total` over buckets around the one at `middle`."""
    counts = [0] * buckets
    weights = [
        2.718 ** (-(((i - middle) / rng.uniform(4, 8)) ** 2)) if abs(i - middle) < 16 else 0.0 for i in range(buckets)
    ]
    for index, weight in enumerate(weights):
        counts[index] = int(total * weight / sum(weights))
    counts[middle] += total - sum(counts)
    return counts


def template_entry(rng: random.Random, name: str, rows: int, choices: int, with_pairs: bool) -> Manifest:
    not_applicable = rng.randrange(rows // 2) if rng.random() < 0.15 else 0
    sampled_out = rng.randrange(rows // 3) if rows > 9000 else 0
    rejected = 1 if rng.random() < 0.08 else 0
    rendered = rows - not_applicable - sampled_out - rejected
    pairs = {
        GROUND_TRUTH: rendered,
        **({WRONG_CHOICE: rendered * (choices - 1)} if choices else {MISMATCH: rendered - rows // 90}),
    }
    return {
        "name": name,
        "rendered": rendered,
        "sampled_out": sampled_out,
        "not_applicable": not_applicable,
        "rejected": rejected,
        "without_wrong": 0,
        "pairs": pairs if with_pairs else {},
    }


def sample_rows(source: str, count: int = 6) -> list[Manifest]:
    label = {GROUND_TRUTH: 1.0, GENERATED: 0.36363637}.get(source, 0.0)
    return [
        {
            "dataset": "dream:train",
            "template_id": "b04f0f2b",
            "template_name": TEMPLATE_NAMES[index % len(TEMPLATE_NAMES)],
            "instruction": INSTRUCTION * (1 + 2 * (index % 2)),
            "response": "Next door." if index % 2 else "At the post office, where the woman left it in the morning.",
            "label": label,
            "generator": "t0_3b" if source == GENERATED else None,
        }
        for index in range(count)
    ]


def reject_rows() -> list[Manifest]:
    return [
        {
            "stage": "read",
            "reason": "broken_json",
            "source": "part-3.jsonl",
            "position": "@10485",
            "detail": "Expecting ',' delimiter: line 1 column 41",
            "excerpt": '{"question": "Where is the parcel now?" "answer": "Next door"}',
        },
        {
            "stage": "render",
            "reason": "empty_target",
            "source": "train.parquet",
            "position": "#77",
            "detail": "template 'i_think' gave no response",
            "excerpt": None,
        },
    ]


def manifest_of(datasets: dict[str, tuple[int, int, int]], *, with_pairs: bool = True, generated: int = 0) -> Manifest:
    """Return a manifest whose counts are consistent with one another."""
    rng = random.Random(5)
    entries: dict[str, Manifest] = {}
    for label, (rows, choices, count) in datasets.items():
        names = [TEMPLATE_NAMES[i % len(TEMPLATE_NAMES)] + "_v2" * (i // len(TEMPLATE_NAMES)) for i in range(count)]
        templates = {
            f"{label}-{i}": template_entry(rng, name, rows, choices, with_pairs) for i, name in enumerate(names)
        }
        entries[label] = {"rows": rows, "templates": templates}
    return finish_manifest(rng, entries, with_pairs, generated)


def finish_manifest(rng: random.Random, entries: dict[str, Manifest], with_pairs: bool, generated: int) -> Manifest:
    templates = [template for entry in entries.values() for template in entry["templates"].values()]
    if generated:
        for template in templates:
            template["pairs"][GENERATED] = generated // len(templates)
    written = {s: sum(t["pairs"].get(s, 0) for t in templates) for s in LABEL_SOURCES} if with_pairs else {}
    merged = {s: count // 50 for s, count in written.items()}
    totals = {key: sum(t[key] for t in templates) for key in ("sampled_out", "not_applicable", "rejected")}
    instructions = sum(t["rendered"] for t in templates)
    return {
        **run_of(with_pairs),
        "inputs": [
            {"dataset": label, "name": "train.parquet", "size": 857_608, "rows": entry["rows"], "ends": "9f" * 16}
            for label, entry in entries.items()
        ],
        "totals": {
            "rows": sum(entry["rows"] for entry in entries.values()),
            "instructions": instructions,
            "candidates": generated + generated // 9,
            "pairs": sum(written.values()),
            **totals,
        },
        "datasets": entries,
        "pairs": {s: {"made": n + merged[s], "merged": merged[s], "written": n} for s, n in written.items()},
        "labels": label_counts(rng, written),
        "lengths": length_counts(rng, entries, written),
        "generators": {"t0_3b": generated} if generated else {},
        "rejects": reject_counts(totals["rejected"], instructions),
        "notes": {"target_not_in_choices": 0, "mismatch_skipped": 1234, "empty_generations": 0, "no_rouge_tokens": 56},
        "samples": {
            "pairs": {s: sample_rows(s) for s, n in written.items() if n},
            "rejects": reject_rows() if totals["rejected"] else [],
        },
        "files": [
            {"path": f"pairs/shard-{i:05d}-of-00020.parquet", "rows": 55_000, "bytes": 9_876_543, "digest": "ab" * 16}
            for i in range(20 if entries else 0)
        ],
    }


def run_of(with_pairs: bool) -> Manifest:
    """Return the keys of a manifest that describe the run."""
    return {
        "job": "build-corpus",
        "format_version": 1,
        "versions": {"cappy": "0.1.0", "python": "3.11.7", "apache-beam": "2.77.0", "pyarrow": "25.0.1"},
        "fingerprint": "5f0c1b9a7d3e42f8a6b0c4d2e8f19a37",
        "started": "2026-11-23T08:00:00+00:00",
        "finished": "2026-11-23T08:04:05+00:00",
        "seconds": 245.3,
        "configuration": {
            "seed": 0,
            "limit": None,
            "truncate": 2048,
            "rouge": "parity",
            "negatives": {"wrong_choices": 5, "mismatched": 1, "overlap_limit": 0.5},
            "instructions_only": not with_pairs,
            "shards": 20,
        },
    }


def length_counts(rng: random.Random, entries: dict[str, Manifest], written: dict[str, int]) -> Manifest:
    buckets = len(LENGTH_EDGES)
    rendered = {label: sum(t["rendered"] for t in entry["templates"].values()) for label, entry in entries.items()}
    return {
        "edges": LENGTH_EDGES.tolist(),
        "instruction": {label: bell(rng, n, rng.randrange(26, 46), buckets) for label, n in rendered.items()},
        "response": {s: bell(rng, n, 8 + 5 * i, buckets) for i, (s, n) in enumerate(written.items()) if n},
    }


def label_counts(rng: random.Random, written: dict[str, int]) -> dict[str, list[int]]:
    counts = {source: [0] * 20 for source, count in written.items() if count}
    for source in counts:
        counts[source][19 if source == GROUND_TRUTH else 0] = written[source]
    if GENERATED in counts:
        middle = [int(written[GENERATED] * rng.uniform(0.02, 0.07)) for _ in range(19)]
        counts[GENERATED] = [written[GENERATED] - sum(middle), *middle]
    return counts


def reject_counts(rejected: int, instructions: int) -> Manifest:
    by_reason = {"read": {"broken_json": 3}, "render": {"empty_target": rejected}, "label": {"unknown_instruction": 0}}
    if not rejected:
        by_reason = {"read": {"broken_json": 0}}
    lost = {"lost": rejected, "attempted": instructions + rejected, "of": "renderings"}
    rate = rejected / (instructions + rejected) if rejected else 0.0
    return {"rows": rejected + 3 if rejected else 0, "rate": rate, **lost, "by_reason": by_reason}


def small() -> Manifest:
    return manifest_of(SMALL)


def tiny() -> Manifest:
    return manifest_of({"ag_news:test": (7600, 4, 3)})


def big() -> Manifest:
    rng = random.Random(11)
    datasets = {
        f"dataset_{i:02d}:{'some_rather_long_subset_name:' * (i % 5 == 0)}train": (
            int(10 ** rng.uniform(3, 5.7)),
            rng.choice((0, 0, 2, 4)),
            rng.randrange(6, 16),
        )
        for i in range(38)
    }
    return manifest_of(datasets, generated=2_400_000)


def instructions_only() -> Manifest:
    return manifest_of(SMALL, with_pairs=False)


def empty() -> Manifest:
    return {**manifest_of({}), "notes": {}, "files": []}
