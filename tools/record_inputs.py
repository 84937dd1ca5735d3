"""Make the inputs and the tiny models of `record_outputs.py`: the same on every call, and partly bad on purpose.

Real rows come from the folder `shared` beside this checkout; without it they are made up.
"""

import csv
import gzip
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

SHARED = Path(__file__).resolve().parents[2] / "shared"
WORDS = ("apple", "river", "engine", "violin", "market", "glacier", "teacher", "novel", "carpet", "signal", "meadow")


def make_inputs(folder: Path) -> None:
    """Make all of it in `folder` but the candidates, which name instructions that a job has to render first."""
    make_models(folder)
    make_mixture(folder)
    make_rows(folder)
    (folder / "prompt.txt").write_text("Answer briefly. {instruction}\n")
    (folder / "weights.yaml").write_text("label_source: {wrong_choice: 0.5}\n")


def make_models(folder: Path) -> None:
    """Save a tiny RoBERTa scorer, a Llama with a chat template and a T5, with random weights, in `folder`."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
        RobertaConfig,
        RobertaForSequenceClassification,
        T5Config,
        T5ForConditionalGeneration,
    )

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate([*special, *alphabet])}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names: dict[str, Any] = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=128, **names)
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }} {% endfor %}"
    )
    ids: dict[str, Any] = {"vocab_size": len(tokenizer), "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    size: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    torch.manual_seed(0)
    roberta = RobertaConfig(
        **ids, **size, max_position_embeddings=130, type_vocab_size=1, num_labels=1, initializer_range=0.3
    )
    llama = LlamaConfig(**ids, **size, max_position_embeddings=256, initializer_range=0.4, tie_word_embeddings=False)
    t5 = T5Config(**ids, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=1)
    for name, model in (
        ("scorer", RobertaForSequenceClassification(roberta)),
        ("llama", LlamaForCausalLM(llama)),
        ("t5", T5ForConditionalGeneration(t5)),
    ):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def make_mixture(folder: Path) -> None:
    """Write a mixture of made-up notes, some rows of which are bad, and of two real datasets where they are there."""
    (folder / "templates" / "notes").mkdir(parents=True)
    templates = "\n".join(
        f"  n-{i}: !Template\n    id: n-{i}\n    name: n-{i}\n    answer_choices: {choices}\n    jinja: '{jinja}'"
        for i, (choices, jinja) in enumerate(
            [
                ("null", "Write a headline: {{ note }}|||{{ headline }}"),
                ("null", '{{ ["Sum up", "Shorten"] | choice }}: {{ note }}|||{{ headline }}'),
                (
                    "red ||| green ||| blue",
                    "{% if kind %}Which colour? {{ note }}|||{{ answer_choices[kind | int] }}{% endif %}",
                ),
            ]
        )
    )
    (folder / "templates" / "notes" / "templates.yaml").write_text(f"dataset: notes\ntemplates:\n{templates}\n")
    notes = io.StringIO(newline="")
    writer = csv.writer(notes)
    writer.writerow(["note", "headline", "kind"])
    writer.writerows([f"{words(i, 12)}, number {i}", words(i, 4), ["", 0, 1, 2][i % 4]] for i in range(25))
    writer.writerow(["too", "many", "1", "cells"])
    writer.writerow(["an unknown colour", "none", "7"])
    (folder / "notes.csv.gz").write_bytes(gzip.compress(notes.getvalue().encode(), mtime=0))
    datasets: list[dict[str, Any]] = [{"name": "notes", "split": "train", "paths": "notes.csv.gz"}]
    for name, split in (("ag_news", "test"), ("dream", "train")):
        if SHARED.is_dir():
            shutil.copytree(SHARED / "promptsource" / "templates" / name, folder / "templates" / name)
            shutil.copy(SHARED / "data" / "sources" / name / f"{split}.parquet", folder / f"{name}.parquet")
            datasets.append({"name": name, "split": split, "paths": f"{name}.parquet"})
    negatives = {"wrong_choices": 2, "mismatched": 1, "overlap_limit": 0.5}
    content = {"templates": "templates", "truncate": 600, "datasets": datasets, "negatives": negatives}
    (folder / "mixture.yaml").write_text(yaml.safe_dump(content))


def make_rows(folder: Path) -> None:
    """Write the inputs of score, rerank and evaluate: texts in three formats, choices, and scored rows."""
    real = SHARED / "data" / "candidates" / "alpaca_eval.parquet"
    texts = [
        {"instruction": words(i // 5, 9), "response": words(i, 1 + i % 30), "generator": f"g{i % 5}"}
        for i in range(240)
    ]
    if real.exists():
        rows = pq.read_table(real, columns=["instruction", "response", "generator"]).to_pylist()
        first = {row["instruction"]: None for row in rows[:60]}
        texts = [row for row in rows if row["instruction"] in first][:240]
    rng = np.random.default_rng(0)
    (folder / "texts").mkdir()
    pq.write_table(pa.Table.from_pylist(texts[:120]), folder / "texts" / "a.parquet", row_group_size=50)
    lines = [json.dumps(row) for row in texts[120:180]]
    lines[7:9] = ['{"instruction": "cut off', json.dumps({**texts[0], "response": None})]
    (folder / "texts" / "b.jsonl").write_text("\n".join([*lines, "[1, 2]", ""]))
    with (folder / "texts" / "c.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([list(texts[0]), *(list(row.values()) for row in texts[180:]), ["one cell"], ["a", "", "g"]])
    choices = [
        {
            "instruction_id": f"c{i}",
            "dataset": ("quiz", "riddles")[i % 2],
            "instruction": f"Which one? {words(i, 7)}",
            "choices": None if i == 5 else [words(i + j, 2) for j in range(2 + i % 3)],
            "references": [words(i + i % 2, 2)],
        }
        for i in range(60)
    ]
    pq.write_table(pa.Table.from_pylist(choices), folder / "choices.parquet")
    scored = [
        {
            "instruction_id": f"s{i // 6}",
            "dataset": ("first", "second")[i // 6 % 2],
            "instruction": f"Say: {words(i // 6, 6)}",
            "references": [words(i // 6, 6), words(i // 6 + 1, 5)],
            "response": words(i // 6, 2 + i % 5) if i % 7 else words(i, 4),
            "generator": "lm",
            "decoding": ("beam4", "sampling", "sampling")[i % 3],
            "sample_index": i % 3 // 2,
            "log_likelihood_sum": float(-rng.random() * 9),
            "log_likelihood_mean": float(-rng.random()),
            "score": None if i == 11 else float(rng.integers(0, 9)) / 8,
            "other": float(rng.random()),
            "is_correct": bool(rng.random() < 0.4),
        }
        for i in range(240)
    ]
    pq.write_table(pa.Table.from_pylist(scored[:150]), folder / "scored-0.parquet")
    pq.write_table(pa.Table.from_pylist(scored[150:], pa.Table.from_pylist(scored).schema), folder / "scored-1.parquet")
    for name, part in (("train", scored[:120]), ("validation", scored[120:])):
        rows = [{name: row[name] for name in list(row)[:8]} for row in part]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "held.jsonl").write_text(
        "".join(json.dumps({"instruction": f"Say: {words(i, 6)}"}) + "\n" for i in (1, 2))
    )


def make_candidates(folder: Path) -> None:
    """Write candidates for the instructions in `rendered`, more or less like the references; one has no instruction."""
    table = pa.concat_tables(pq.read_table(path) for path in sorted((folder / "rendered" / "instructions").glob("*")))
    rows = []
    for number, row in enumerate(table.to_pylist()):
        text = row["references"][0].split()
        for index in range(number % 3):
            response = " ".join([*text[index : index + 5], *words(number, 1 + index).split()])
            given = {"generator": "made-up", "decoding": "sampling", "sample_index": index}
            rows.append(
                {
                    "instruction_id": row["instruction_id"],
                    "instruction": row["instruction"],
                    "response": response,
                    **given,
                }
            )
    rows.append({**rows[0], "instruction": "of no corpus"})
    pq.write_table(pa.Table.from_pylist(rows), folder / "candidates.parquet")


def words(seed: int, count: int) -> str:
    """Return `count` words that differ from seed to seed."""
    return " ".join(f"{WORDS[(seed * 7 + i * (seed % 5 + 1)) % len(WORDS)]}{(seed + i) % 13}" for i in range(count))
