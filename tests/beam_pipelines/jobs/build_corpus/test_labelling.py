"""Labelling and merging, compared with the rules of the semantics in plain Python."""

import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from beam_pipelines.jobs.build_corpus.candidates import PLACED_CANDIDATE
from beam_pipelines.jobs.build_corpus.labelling import (
    count_pairs,
    ground_truth_and_wrong,
    join_pairs,
    label_candidates,
    labelled_pairs,
)
from beam_pipelines.jobs.build_corpus.negatives import LABELLED_INSTRUCTION
from cappy_model.metrics.rouge import RougeL
from schemas.chunks import from_rows
from schemas.ids import pair_ids, text_key
from schemas.records import LABEL_SOURCES
from schemas.stats import Stats

ROUGE = RougeL()


def instruction(
    number: int, text: str, references: list[str], wrong: list[str], has_choices: bool = True
) -> dict[str, Any]:
    return {
        "instruction_id": f"id-{number:02d}",
        "dataset": f"d{number % 2}",
        "subset": None if number % 3 else "s",
        "split": "train",
        "template_id": f"t{number % 2}",
        "instruction": text,
        "references": references,
        "wrong": wrong,
        "has_choices": has_choices,
    }


def candidate(number: int, text: str, response: str, generator: str = "lm", index: int = 0) -> dict[str, Any]:
    return {
        "instruction_id": f"id-{number:02d}",
        "instruction": text,
        "response": response,
        "generator": generator,
        "decoding": "sampling",
        "sample_index": index,
        "source": "candidates/f.parquet",
        "position": f"#{index}",
    }


def label(
    instructions: Iterable[dict[str, Any]], candidates: Iterable[dict[str, Any]] = ()
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Stats]:
    stats = Stats()
    batch = from_rows(list(instructions), LABELLED_INSTRUCTION)
    generated, rejects = label_candidates(from_rows(list(candidates), PLACED_CANDIDATE), batch, ROUGE, stats)
    rows = labelled_pairs(batch, join_pairs([*ground_truth_and_wrong(batch), generated]), stats)
    count_pairs(rows, stats)
    return rows.to_pylist(), rejects, stats


def test_one_label_for_a_pair_ground_truth_first() -> None:
    rows, _, stats = label(
        [
            instruction(1, "Same text", ["right"], ["wrong", "half right"]),
            instruction(2, "Same text", ["wrong"], ["right"], has_choices=False),
        ],
        [candidate(1, "Same text", "half right"), candidate(1, "Same text", " right\n", "lm-b", 2)],
    )
    found = {row["response"]: (row["label_source"], row["label"], row["generator"]) for row in rows}
    assert found == {
        "right": ("ground_truth", 1.0, "lm-b"),
        "wrong": ("ground_truth", 1.0, None),
        "half right": ("generated", pytest.approx(2 / 3), "lm"),
    }
    assert stats.under("pairs") == {
        "ground_truth": {"made": 2, "merged": 0, "written": 2},
        "generated": {"made": 2, "merged": 1, "written": 1},
        "wrong_choice": {"made": 2, "merged": 2, "written": 0},
        "mismatch": {"made": 1, "merged": 1, "written": 0},
    }


def test_the_best_of_several_references() -> None:
    references = ["the cat sat", "a dog ran away", "the cat sat down"]
    rows, _, _ = label([instruction(1, "Tell", references, [])], [candidate(1, "Tell", "the dog sat down")])
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    best = max(scorer.score(reference, "the dog sat down")["rougeL"].fmeasure for reference in references)
    generated = [row for row in rows if row["label_source"] == "generated"]
    assert [row["label"] for row in generated] == [float(np.float32(best))]
    assert sum(row["label"] == 1.0 for row in rows) == 3


def test_candidates_that_do_not_count() -> None:
    rows, rejects, stats = label(
        [instruction(1, "Tell", ["yes"], [])],
        [candidate(1, "Tell", "  "), candidate(1, "Tell", "不"), candidate(9, "Tell", "x"), candidate(1, "Other", "y")],
    )
    assert [(row["response"], row["label"]) for row in rows if row["generator"]] == [("不", 0.0)]
    assert [row["reason"] for row in rejects] == ["unknown_instruction"] * 2
    assert rejects[0]["source"] == "candidates/f.parquet"
    assert stats.under("notes") == {"empty_generations": 1, "no_rouge_tokens": 1}


def naive(instructions: list[dict[str, Any]], candidates: list[dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Merge pairs as the semantics state it: the smallest of equal ones, nulls first, with the smallest generator."""
    made = []
    for row in instructions:
        place = (row["dataset"], row["subset"], row["split"], row["template_id"], row["instruction_id"])
        made += [(0, -1.0, *place, None, None, None, row["instruction"], text) for text in row["references"]]
        rank = 2 if row["has_choices"] else 3
        made += [(rank, -0.0, *place, None, None, None, row["instruction"], text) for text in row["wrong"]]
    by_id = {row["instruction_id"]: row for row in instructions}
    for row in candidates:
        origin, text = by_id[row["instruction_id"]], row["response"].strip()
        score = float(np.float32(ROUGE.score(origin["references"], text)))
        place = tuple(origin[k] for k in ("dataset", "subset", "split", "template_id", "instruction_id"))
        generation = (row["generator"], row["decoding"], row["sample_index"])
        made.append((1, -score, *place, *generation, origin["instruction"], text))
    best: dict[str, tuple[Any, ...]] = {}
    for pair in sorted(made, key=lambda p: [(value is not None, value) for value in p]):
        known = best.setdefault(pair_ids(pair[-2])(pair[-1]), pair)
        if pair[0] == 1 and known[7] is None:
            best[pair_ids(pair[-2])(pair[-1])] = (*known[:7], *pair[7:10], *known[10:])
    return {known: (LABEL_SOURCES[p[0]], -p[1], p[6], p[7]) for known, p in best.items()}


@given(st.integers(0, 2**32), st.integers(1, 8), st.integers(0, 12))
def test_merging_is_the_stated_order_whatever_the_arrival(seed: int, instructions: int, candidates: int) -> None:
    draw = random.Random(seed)
    texts, answers = ["A?", "B?"], ["x", "y", "x y", "z x"]
    rows = [
        instruction(
            i, draw.choice(texts), draw.sample(answers, draw.randrange(1, 3)), draw.sample(answers, 2), bool(i % 2)
        )
        for i in range(instructions)
    ]
    sampled = [
        candidate(
            (n := draw.randrange(instructions)), rows[n]["instruction"], draw.choice(answers), draw.choice("ab"), i
        )
        for i in range(candidates)
    ]
    expected = naive(rows, sampled)
    first, _, _ = label(rows, sampled)
    assert {
        r["pair_id"]: (r["label_source"], r["label"], r["instruction_id"], r["generator"]) for r in first
    } == expected
    draw.shuffle(rows)
    draw.shuffle(sampled)
    again, _, _ = label(rows, sampled)
    assert again == first
    order = [(text_key(row["instruction"]), row["pair_id"]) for row in first]
    assert order == sorted(order)


def test_an_empty_shard_has_the_schema() -> None:
    rows, rejects, stats = label([])
    assert rows == rejects == []
    assert stats.under("pairs") == {}
