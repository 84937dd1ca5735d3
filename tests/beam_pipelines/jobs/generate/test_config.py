"""Options of generate that exclude each other, its defaults, prompt templates, and files of decodings."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.jobs.generate.config import GenerateConfig
from beam_pipelines.jobs.generate.generation import PromptTemplate
from beam_pipelines.jobs.generate.job import plan
from beam_pipelines.jobs.generate.settings import drawing_of, generator_name, template_of
from beam_pipelines.runners.options import Placement
from beam_pipelines.templates.mixture import load_decodings, load_mixture
from cappy_model.generate.decodings import PAPER, Decoding
from schemas.errors import UsageError
from tests.conftest import edit_mixture

OPENAI: dict[str, Any] = {"engine": "openai", "base_url": "http://localhost:8000/v1"}


def config_of(**changes: Any) -> GenerateConfig:
    return GenerateConfig(**{"input": "x", "output": "y", "model": "m", **changes})


@pytest.mark.parametrize(
    ("changes", "first", "second"),
    [
        ({"base_url": "http://x"}, "--base-url", "--engine transformers"),
        ({"concurrency": 3}, "--concurrency", "--engine transformers"),
        ({"timeout": 3.0}, "--timeout", "--engine transformers"),
        ({"max_retries": 0}, "--max-retries", "--engine transformers"),
        ({"max_requests": 3}, "--max-requests", "--engine transformers"),
        ({"max_tokens_total": 3}, "--max-tokens-total", "--engine transformers"),
        ({"log_likelihoods": False}, "--no-log-likelihoods", "--engine transformers"),
        ({**OPENAI, "device": "cpu"}, "--device", "--engine openai"),
        ({**OPENAI, "dtype": "float32"}, "--dtype", "--engine openai"),
        ({**OPENAI, "tokens_per_batch": 9}, "--tokens-per-batch", "--engine openai"),
        ({**OPENAI, "allow_pickle": True}, "--allow-pickle", "--engine openai"),
        ({**OPENAI, "trust_remote_code": True}, "--trust-remote-code", "--engine openai"),
        ({**OPENAI, "max_prompt_tokens": 9}, "--max-prompt-tokens", "--engine openai"),
        ({**OPENAI, "truncation_side": "left"}, "--truncation-side", "--engine openai"),
        ({"engine": "openai"}, "--engine openai needs --base-url", ""),
        ({**OPENAI, "base_url": "localhost:80"}, "--base-url localhost:80", "http://"),
        ({**OPENAI, "base_url": "http://me:secret@host/v1"}, "--base-url", "environment"),
        ({**OPENAI, "base_url": "http://host/v1?key=secret"}, "--base-url", "environment"),
        ({"fraction": 0.5, "per_template": 3}, "--fraction", "--per-template"),
        ({"fraction": 0.0}, "--fraction 0", "more than 0"),
        ({"unit_rows": 20_000}, "--unit-rows 20,000", "16,384"),
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "--min-new-tokens 9", "--max-new-tokens"),
        ({"stop": ("a", "")}, "--stop ''", "before it begins"),
    ],
)
def test_contradictions_name_both(changes: dict[str, Any], first: str, second: str) -> None:
    with pytest.raises(UsageError) as caught:
        config_of(**changes).check()
    assert first in str(caught.value) and second in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_budget_is_for_one_process() -> None:
    budgets = {**OPENAI, "max_requests": 5}
    config_of(**budgets, concurrency=2, timeout=1.5, max_retries=0).check()
    with pytest.raises(UsageError, match="--max-requests counts within one process"):
        plan(config_of(**budgets), Placement(local=True, one_process=False))


def test_what_is_usual() -> None:
    paper = drawing_of(config_of())
    assert tuple(decoding.name for decoding in paper.decodings) == PAPER
    assert (paper.min_new_tokens, paper.max_new_tokens, paper.stop) == (3, 64, ())
    api = drawing_of(config_of(**OPENAI))
    assert [decoding.name for decoding in api.decodings] == ["sampling", "temp0.9", "topp0.95"]
    assert api.min_new_tokens == 0
    assert drawing_of(config_of(max_new_tokens=2)).min_new_tokens == 2
    assert drawing_of(config_of(min_new_tokens=0)).min_new_tokens == 0
    assert [d.name for d in drawing_of(config_of(**OPENAI, decodings=("topk40",))).decodings] == ["topk40"]
    with pytest.raises(UsageError, match=r"unknown decoding 'beam': choose from beam4"):
        drawing_of(config_of(decodings=("beam",)))


def test_decodings_of_a_file_stand_beside_the_presets(tmp_path: Path) -> None:
    path = tmp_path / "decodings.yaml"
    path.write_text("decodings:\n  hot: {samples: 8, temperature: 1.5}\n  greedy: {samples: 2, top_p: 0.5}\n")
    hot, greedy = Decoding("hot", samples=8, temperature=1.5), Decoding("greedy", samples=2, top_p=0.5)
    assert drawing_of(config_of(decodings_file=str(path))).decodings == (hot, greedy)
    named = config_of(decodings_file=str(path), decodings=("beam4", "hot"))
    assert drawing_of(named).decodings == (Decoding("beam4", beams=4), hot)


def test_a_mixture_file_may_hold_decodings(corpus: Path) -> None:
    with pytest.raises(UsageError, match="lacks the key 'decodings'"):
        load_decodings(str(corpus), {})
    edit_mixture(corpus, lambda m: m.update(decodings={"cold": {"samples": 2, "temperature": 0.1}}))
    assert load_decodings(str(corpus), {}) == {"cold": Decoding("cold", samples=2, temperature=0.1)}
    assert len(load_mixture(str(corpus), {}).datasets) == 3
    edit_mixture(corpus, lambda m: m.update(decodings={"cold": {"samples": 2, "temperature": 0}}))
    for load in (load_decodings, load_mixture):
        with pytest.raises(UsageError, match=r"mixture.yaml: decoding 'cold': 2 samples would be the same"):
            load(str(corpus), {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("decodings: {a: {temprature: 1}}", "decoding a: unknown key 'temprature'; did you mean 'temperature'?"),
        ("decodings: {a: {top_k: many}}", "decoding a: 'top_k' is 'many'"),
        ("decodings: {a: {top_k: 0}}", "decoding 'a': top_k is 0, and must be 1 or more"),
        ("decodings: {a: {beams: 2, temperature: 0.5}}", "decoding 'a': a beam search has no temperature"),
        ("decodings: {a: }", "decoding a: None"),
        ("decodings: {a: {}, a: {}}", "duplicate key 'a'"),
        ("decodings: {}", "'decodings' is {}"),
        ("decoding: {a: {}}", "unknown key 'decoding'; did you mean 'decodings'?"),
        ("- a", "['a']"),
        ("{", "is not YAML"),
    ],
)
def test_mistakes_in_a_file_of_decodings_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "decodings.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_decodings(str(path), {})
    assert message in str(caught.value) and str(path) in str(caught.value)
    with pytest.raises(UsageError, match="--decodings-file requires a YAML file"):
        load_decodings(str(tmp_path / "gone.yaml"), {})


PLAIN = st.text(st.characters(exclude_characters="\r", codec="utf-8"), max_size=30)


@given(PLAIN, PLAIN, PLAIN)
def test_a_template_is_text_around_the_instruction(before: str, after: str, instruction: str) -> None:
    prompt = PromptTemplate(before, after).prompt(instruction)
    assert prompt == before + instruction + after


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        (b"{instruction}", "Why {instruction}?"),
        (b"Q: {instruction}\nA:\n", "Q: Why {instruction}?\nA:"),
        (b"Q: {instruction}\r\nA:\r\n", "Q: Why {instruction}?\r\nA:"),
        (b"{{x}} {0} {instruction}} \n\n", "{{x}} {0} Why {instruction}?} \n"),
        ("é {instruction}".encode(), "é Why {instruction}?"),
    ],
)
def test_prompt_template_files(text: bytes, prompt: str, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_bytes(text)
    template = template_of(config_of(prompt_template=str(tmp_path / "prompt.txt")))
    assert template.prompt("Why {instruction}?") == prompt


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"no hole", "holds {instruction} 0 times"),
        (b"{instruction} {instruction}", "holds {instruction} 2 times"),
        (b"\xff{instruction}", "is not UTF-8"),
        (None, "there is no such file; --prompt-template requires a text file"),
    ],
)
def test_prompt_templates_that_cannot_be(text: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(UsageError) as caught:
        template_of(config_of(prompt_template=str(path)))
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_the_name_of_a_generator() -> None:
    assert generator_name("google/flan-t5-small@main") == "google/flan-t5-small@main"
    assert generator_name("models/mine") == "models/mine"
    assert generator_name("/home/me/models/mine/") == "mine"
    assert generator_name("s3://bucket/models/mine") == "s3://bucket/models/mine"
