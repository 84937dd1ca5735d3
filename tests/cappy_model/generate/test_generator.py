"""The generator against transformers' own `generate`, one prompt at a time, and against a teacher-forced forward."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from cappy_model.checkpoints import ModelError
from cappy_model.generate import generator as generator_module
from cappy_model.generate.decodings import PRESETS, Decoding, Drawing, Drawn, GenerationError
from cappy_model.generate.generator import Generator
from cappy_model.generate.prompts import PromptEncoder
from schemas.errors import UsageError
from tests.cappy_model.models import save_tiny_generator, save_tiny_scorer

FAMILIES = ("t5", "bart", "llama")
PROMPTS = ["the quick fox", "what is the answer?", "yes", "no maybe yes " * 9, "0 1 2 3", "the lazy dog jumps over"]
DETERMINISTIC = Drawing((PRESETS["greedy"], PRESETS["beam4"]), max_new_tokens=12)
PAPER = Drawing(tuple(PRESETS[name] for name in ("beam4", "sampling", "temp0.9", "topk40", "topp0.95")), 10)


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_generator(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_generator(tmp_path_factory.mktemp("llama"))


def generator_of(folder: Path, drawing: Drawing, tokens: int = 2_000) -> Generator:
    return Generator.from_pretrained(str(folder), drawing, device="cpu", dtype="float32", tokens_per_batch=tokens)


def plain(folder: Path) -> tuple[Any, Any]:
    seq2seq = AutoConfig.from_pretrained(folder).is_encoder_decoder
    loader = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    return loader.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def plain_generate(folder: Path, prompts: Sequence[str], **settings: Any) -> list[str]:
    """What a loop over transformers' `generate` gives."""
    model, tokenizer = plain(folder)
    found = []
    for prompt in prompts:
        inputs = tokenizer([prompt], return_tensors="pt")
        tokens = model.generate(**inputs, do_sample=False, **settings)[0]
        start = 0 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        found.append(tokenizer.decode(tokens[start:], skip_special_tokens=True).strip())
    return found


def teacher_forced(folder: Path, prompt: str, tokens: np.ndarray) -> np.ndarray:
    """The log-likelihood of each token of a response, by one forward pass."""
    model, tokenizer = plain(folder)
    ids = tokenizer([prompt], return_tensors="pt")["input_ids"]
    given = torch.from_numpy(tokens)[None]
    with torch.inference_mode():
        if model.config.is_encoder_decoder:
            start = torch.full((1, 1), model.generation_config.decoder_start_token_id)
            logits = model(input_ids=ids, decoder_input_ids=torch.cat([start, given[:, :-1]], 1)).logits
        else:
            logits = model(input_ids=torch.cat([ids, given[:, :-1]], 1)).logits[:, ids.shape[1] - 1 :]
    return logits.log_softmax(-1).gather(2, given[..., None])[0, :, 0].numpy()


def draw(generator: Generator, prompts: Sequence[str]) -> list[Drawn]:
    return generator.draw(prompts, list(range(len(prompts))))


def test_greedy_and_beams_are_those_of_transformers(tiny: Path) -> None:
    found = draw(generator_of(tiny, DETERMINISTIC), PROMPTS)
    settings = {"max_new_tokens": 12, "min_new_tokens": 3}
    assert [one.samples[0].response for one in found] == plain_generate(tiny, PROMPTS, **settings)
    assert [one.samples[1].response for one in found] == plain_generate(tiny, PROMPTS, num_beams=4, **settings)


def test_likelihoods_are_those_of_a_teacher_forced_forward(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, np.ndarray, Any]] = []
    keep = Generator._sample

    def spy(self: Generator, place: int, index: int, rolled: Any, text: str) -> Any:
        sample = keep(self, place, index, rolled, text)
        seen.append(("", rolled.tokens, sample))
        return sample

    monkeypatch.setattr(Generator, "_sample", spy)
    generator = generator_of(tiny, PAPER)
    for prompt in PROMPTS[:3]:
        seen.clear()
        generator.draw([prompt], [5])
        assert len(seen) == 17
        for _, tokens, sample in seen:
            wanted = teacher_forced(tiny, prompt, tokens)
            assert sample.num_tokens == len(tokens)
            assert abs(sample.log_likelihood_sum - wanted.sum()) < 1e-4
            assert abs(sample.log_likelihood_mean - wanted.mean()) < 1e-4


@pytest.mark.parametrize("tokens", [1, 300, 100_000])
def test_batching_changes_nothing(tiny: Path, tokens: int) -> None:
    alone = [generator_of(tiny, PAPER).draw([prompt], [seed])[0] for seed, prompt in enumerate(PROMPTS)]
    together = draw(generator_of(tiny, PAPER, tokens), PROMPTS)
    for one, other in zip(alone, together, strict=True):
        assert [s._replace(log_likelihood_sum=0, log_likelihood_mean=0) for s in one.samples] == [
            s._replace(log_likelihood_sum=0, log_likelihood_mean=0) for s in other.samples
        ]
        likelihoods = zip(one.samples, other.samples, strict=True)
        assert all(abs(a.log_likelihood_sum - b.log_likelihood_sum) < 1e-4 for a, b in likelihoods)


def test_samples_in_order_and_by_seed(llama: Path) -> None:
    generator = generator_of(llama, PAPER)
    first, same, other = generator.draw(["yes", "yes", "yes"], [1, 1, 2])
    assert [(s.decoding, s.sample_index) for s in first.samples] == [("beam4", 0)] + [
        (name, index) for name in ("sampling", "temp0.9", "topk40", "topp0.95") for index in range(4)
    ]
    assert first == same
    assert first.samples[0] == other.samples[0]
    assert [s.response for s in first.samples[1:]] != [s.response for s in other.samples[1:]]
    assert len({s.response for s in first.samples}) > 10


def test_the_hidden_top_k_of_the_library_is_off(llama: Path) -> None:
    drawing = Drawing((Decoding("sampling", samples=400),), max_new_tokens=1, min_new_tokens=0)
    found = generator_of(llama, drawing).draw(["yes"], [0])[0]
    model, tokenizer = plain(llama)
    with torch.inference_mode():
        logits = model(**tokenizer(["yes"], return_tensors="pt")).logits[0, -1].log_softmax(-1)
    fiftieth = float(logits.topk(50).values[-1])
    assert any(sample.log_likelihood_sum < fiftieth - 1e-3 for sample in found.samples)


def test_lengths_and_reasons_to_finish(llama: Path) -> None:
    drawing = Drawing((Decoding("sampling", samples=60),), max_new_tokens=6, min_new_tokens=4)
    samples = generator_of(llama, drawing).draw(["the fox"], [3])[0].samples
    assert {sample.finish_reason for sample in samples} <= {"stop", "length"}
    assert all(5 <= s.num_tokens <= 6 if s.finish_reason == "stop" else s.num_tokens == 6 for s in samples)


@pytest.mark.parametrize("name", ["sampling", "beam4"])
def test_a_response_ends_before_a_stop_text(llama: Path, name: str) -> None:
    drawing = Drawing((PRESETS[name],), max_new_tokens=24, min_new_tokens=0)
    whole = generator_of(llama, drawing).draw(PROMPTS, [9] * len(PROMPTS))
    stops = tuple({sample.response[3:5] for one in whole for sample in one.samples if len(sample.response) > 5})[:4]
    stopped = generator_of(llama, replace(drawing, stop=stops)).draw(PROMPTS, [9] * len(PROMPTS))
    cut = [s for one in stopped for s in one.samples if s.finish_reason == "stop" and s.num_tokens < 24]
    assert cut
    assert not any(stop in s.response for one in stopped for s in one.samples for stop in stops)
    if name == "sampling":
        pairs = [(a, b) for x, y in zip(whole, stopped, strict=True) for a, b in zip(x.samples, y.samples, strict=True)]
        assert all(a.response.startswith(b.response) and b.num_tokens <= a.num_tokens for a, b in pairs)


def test_long_prompts_are_cut_on_the_side_that_is_asked_for(tiny: Path) -> None:
    long, drawing = "yes " * 60 + "no " * 60, replace(DETERMINISTIC, max_prompt_tokens=20)
    model, tokenizer = plain(tiny)
    for side in ("left", "right"):
        generator = generator_of(tiny, replace(drawing, truncation_side=side))
        found = draw(generator, [long, "short"])
        assert [(one.prompt_tokens, one.truncated) for one in found] == [
            (20, True),
            (len(tokenizer("short")["input_ids"]), False),
        ]
        tokenizer.truncation_side = side
        ids = tokenizer([long], truncation=True, max_length=20, return_tensors="pt")["input_ids"]
        tokens = model.generate(ids, do_sample=False, max_new_tokens=12, min_new_tokens=3)[0]
        start = 0 if model.config.is_encoder_decoder else 20
        assert found[0].samples[0].response == tokenizer.decode(tokens[start:], skip_special_tokens=True).strip()


def test_the_side_and_length_of_prompts_by_the_kind_of_model(tiny: Path) -> None:
    generator = generator_of(tiny, DETERMINISTIC)
    family = generator.config.model_type
    sides = {"t5": ("right", 512), "bart": ("right", 128), "llama": ("left", 116)}
    assert (generator.truncation_side, generator.max_prompt_tokens) == sides[family]


def test_the_chat_template_frames_the_prompt(llama: Path) -> None:
    model, tokenizer = plain(llama)
    drawing = Drawing((PRESETS["greedy"],), max_new_tokens=8, chat=True)
    framed = tokenizer("<s>user: yes or no?</s>maybe ", add_special_tokens=False, return_tensors="pt")
    tokens = model.generate(**framed, do_sample=False, max_new_tokens=8, min_new_tokens=3)[0]
    wanted = tokenizer.decode(tokens[framed["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    assert generator_of(llama, drawing).draw(["yes or no?"], [0])[0].samples[0].response == wanted
    cut = generator_of(llama, replace(drawing, max_prompt_tokens=30)).draw(["the fox " * 40], [0])[0]
    assert cut.truncated and cut.prompt_tokens <= 30 and cut.samples


def test_a_prompt_that_the_chat_template_refuses_fails_alone(llama: Path) -> None:
    _, tokenizer = plain(llama)
    tokenizer.chat_template = (
        "{% if 'secret' in messages[0].content %}{{ raise_exception('no secrets') }}{% endif %}"
        + tokenizer.chat_template
    )
    encoder = PromptEncoder(tokenizer, max_tokens=50, side="left", chat=True)
    first, refused, last = encoder.encode(["yes or no?", "a secret", "the fox"])
    assert refused.error and "no secrets" in refused.error and not len(refused.ids)
    alone = [encoder.encode([prompt])[0] for prompt in ("yes or no?", "the fox")]
    for one, other in zip((first, last), alone, strict=True):
        assert one.error is None and one.ids.tolist() == other.ids.tolist()
    assert encoder.encode([]) == []


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            {"tool_use": "{{ messages }}", "rag": ""},
            r"several chat templates \(rag, tool_use\), and none is",
        ),
        ("{{ raise_exception('give a system turn') }}", "cannot show a user's turn: give a system turn"),
        ("{% for message in", "cannot show a user's turn: "),
        ("{{ messages[1].content }}", "cannot show a user's turn: |does not show a user's turn"),
        ("hello", "does not show a user's turn; leave --chat out"),
        ("", "has no chat template; leave --chat out"),
    ],
)
def test_chat_templates_that_cannot_be_used(llama: Path, template: Any, message: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(llama)
    tokenizer.chat_template = template
    with pytest.raises(ModelError, match=message):
        PromptEncoder(tokenizer, max_tokens=50, side="left", chat=True)


def test_prompts_without_tokens_fail_alone(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = plain(llama)
    del model
    tokenizer.backend_tokenizer.post_processor = None  # as of the models that start without a special token
    tokenizer.save_pretrained(llama.parent / "bare")
    for name in ("config.json", "model.safetensors", "generation_config.json"):
        (llama.parent / "bare" / name).write_bytes((llama / name).read_bytes())
    empty, fine = draw(generator_of(llama.parent / "bare", PAPER), ["", "yes"])
    assert empty.failure and empty.failure.reason == "empty_prompt" and not empty.samples
    assert fine.failure is None and len(fine.samples) == 17


def test_out_of_memory_halves_the_batch_and_a_prompt_that_never_fits_fails_alone(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = draw(generator_of(tiny, PAPER), PROMPTS)
    real = generator_module.roll_out

    def roll_out(model: Any, prompts: Any, *rest: Any, **settings: Any) -> Any:
        if prompts[0].numel() > 60:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, prompts, *rest, **settings)

    monkeypatch.setattr(generator_module, "roll_out", roll_out)
    generator = generator_of(tiny, PAPER, 100_000)
    found = draw(generator, [*PROMPTS, "the lazy dog " * 30])
    assert generator.out_of_memory() > 1
    assert generator.tokens_per_batch < 100_000
    assert found[-1].failure and found[-1].failure.reason == "out_of_memory"
    assert [[s.response for s in one.samples] for one in found[:-1]] == [
        [s.response for s in one.samples] for one in wanted
    ]


def test_a_broken_model_is_an_error(llama: Path) -> None:
    generator = generator_of(llama, PAPER)
    lane = generator._lanes._free.get()
    with torch.no_grad():
        lane.model.lm_head.weight.fill_(float("nan"))
    generator._lanes._free.put(lane)
    with pytest.raises(GenerationError, match="returns NaN"):
        generator.draw(["yes"], [0])


def test_models_that_generate_nothing(tmp_path: Path) -> None:
    save_tiny_scorer(tmp_path / "scorer")
    with pytest.raises(ModelError, match="is RobertaForSequenceClassification, which generates no text"):
        generator_of(tmp_path / "scorer", DETERMINISTIC)


def test_prompts_beyond_the_models_positions(llama: Path) -> None:
    with pytest.raises(UsageError, match="--max-prompt-tokens 120: the model has 128 positions, which leave 116"):
        generator_of(llama, replace(DETERMINISTIC, max_prompt_tokens=120))
    with pytest.raises(UsageError, match="unknown truncation side 'middle'"):
        generator_of(llama, replace(DETERMINISTIC, truncation_side="middle"))


def test_several_threads_draw_the_same(llama: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    generator = generator_of(llama, PAPER)
    wanted = draw(generator, PROMPTS)
    with ThreadPoolExecutor(3) as pool:
        assert all(found == wanted for found in pool.map(lambda _: draw(generator, PROMPTS), range(6)))


@pytest.mark.parametrize("decoding", ["beam4", "sampling"])
def test_the_prompts_done_are_told_after_each_token(tiny: Path, decoding: str) -> None:
    calls: list[tuple[float, float]] = []
    generator = generator_of(tiny, Drawing((PRESETS[decoding], PRESETS["greedy"]), max_new_tokens=8))
    generator.draw(PROMPTS, list(range(len(PROMPTS))), on_progress=lambda done, of: calls.append((done, of)))
    assert len({done for done, _ in calls}) > 3, "within a batch"
    assert {of for _, of in calls} == {len(PROMPTS)}
    assert max(done for done, _ in calls) == pytest.approx(len(PROMPTS))
