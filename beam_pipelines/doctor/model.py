"""`cappy doctor --model`: whether the scores of a model are computed right, and mean what they should."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from beam_pipelines.doctor.config import ModelCheck
from beam_pipelines.doctor.examples import LABEL, Examples, built_in_examples, examples_of, find_columns
from beam_pipelines.doctor.findings import Finding, exit_status, render_blocks
from beam_pipelines.doctor.loading import load
from beam_pipelines.models.settle import read_template
from beam_pipelines.report.text import size
from beam_pipelines.runs.inputs import open_inputs
from cappy_model.architectures import DECODERS
from cappy_model.checkpoints import ModelSource, find_checkpoint
from cappy_model.devices import cuda_devices, free_memory, settle_device, settle_dtype, settle_tokens_per_batch
from cappy_model.paths import readable
from cappy_model.score.check import BrokenModel, CheckFailed, compare, plain_scores, refusals
from cappy_model.score.diagnosis import (
    Verdict,
    flips,
    judge_cuts,
    judge_movement,
    judge_paths,
    judge_precision,
    judge_right,
    judge_templates,
    share,
    wins,
)
from cappy_model.score.loading import LoadedScorer, SettledScorer, load_scorer, settle_scorer
from cappy_model.score.scorer import Scored, Scorer
from cappy_model.score.templates import CHAT, FILE, NONE

_SECTION = "Scores"
_FLOAT32_BYTES = 4
_BESIDE_THE_WEIGHTS = 1.25


@dataclass(frozen=True)
class _Subject:
    """A settled scorer, and where it computes."""

    settled: SettledScorer
    device: str
    dtype: str

    def loaded(self, dtype: str | None = None) -> LoadedScorer:
        return load_scorer(self.settled, getattr(torch, dtype or self.dtype))

    def scorer(self, loaded: LoadedScorer) -> Scorer:
        tokens = settle_tokens_per_batch(self.settled.config, self.device, self.dtype)
        return Scorer(loaded, device=self.device, tokens_per_batch=tokens)


def doctor_model(config: ModelCheck) -> int:
    """Check a scorer, print the report, and return the exit status. Raises as `check_model`."""
    findings = check_model(config)
    print(readable(f"{render_blocks(findings)}\n\n{_conclusion(findings, config.model)}"))
    return exit_status(findings)


def _conclusion(findings: Sequence[Finding], model: str) -> str:
    wrong = [finding.detail.split(":")[0] for finding in findings if finding.status == "wrong"]
    unknown = [finding.name for finding in findings if finding.status == "unknown"]
    if wrong:
        return f"Do not score with {model} like this: {', '.join(wrong)}."
    return (
        f"No fault of {model} was found; {f'unknown: {listed}' if (listed := ', '.join(unknown)) else 'all is known'}."
    )


def check_model(config: ModelCheck) -> list[Finding]:
    """Return the findings about a scorer, from pairs of the input or from built-in ones.

    Raises CappyError for a model that cannot be loaded, and for an input or columns that are missing.
    """
    examples = _examples(config)
    source = ModelSource(config.model, config.allow_pickle, config.trust_remote_code, config.storage)
    checkpoint = find_checkpoint(source)
    asked = read_template(config.template, config.storage)

    def settle(template: str) -> SettledScorer:
        return settle_scorer(checkpoint, head=config.head, template=template, max_length=config.max_length)

    settled, device = settle(asked), settle_device(config.device)
    subject = _Subject(settled, device, settle_dtype(config.dtype, device, settled.config))
    others = {name: _Subject(settle(name), device, subject.dtype) for name in _other_templates(settled)}
    verdicts = _diagnose(subject, others, examples, own_rows=bool(config.inputs))
    return [*_facts(subject, examples, config), *(_finding(verdict) for verdict in verdicts)]


def _examples(config: ModelCheck) -> Examples:
    if not config.inputs:
        return built_in_examples()
    source = open_inputs(
        config,
        config.inputs,
        text=(config.instruction_column, config.response_column, config.reference_column),
        numbers=(config.label_column or LABEL,),
    )
    columns = find_columns(
        source.schema,
        config.instruction_column,
        config.response_column,
        config.group_column,
        config.reference_column,
        config.label_column,
    )
    return examples_of(source, columns, config.pairs)


def _facts(subject: _Subject, examples: Examples, config: ModelCheck) -> list[Finding]:
    """Return what the model is and how it reads."""
    settled = subject.settled
    described = settled.described
    rows = f"{len(examples.pairs):,} pairs" + (f" of {', '.join(config.inputs)}" if config.inputs else ", built in")
    facts = {
        "type": f"{settled.config.model_type}, in {subject.dtype} on {subject.device}",
        "head": f"{described['head']}, raw" + _named_activation(described["named_activation"]),
        "template": str(described["template"]),
        "length": f"{settled.encoder.max_length:,} tokens, longer pairs are cut {settled.encoder.policy}",
        "pairs": rows,
    }
    return [Finding("Model", name, "ok", text) for name, text in facts.items()]


def _named_activation(name: str | None) -> str:
    return f" (before the {name} that the model names)" if name else ""


def _finding(verdict: Verdict) -> Finding:
    text = f"{verdict.code}: {verdict.text}" if verdict.code else verdict.text
    return Finding(_SECTION, verdict.name, verdict.status, text, verdict.remedy)


def _other_templates(settled: SettledScorer) -> list[str]:
    """Return the templates that the model could be read with, too: it has a chat template, or takes plain pairs."""
    used, chat = settled.template.kind, bool(settled.tokenizer.chat_template)
    if settled.head.tokens:  # its own prompt asks the question that the words answer
        return []
    candidates = {CHAT: chat and used in (NONE, FILE), NONE: used in (CHAT, FILE)}
    return [name for name, possible in candidates.items() if possible]


def _diagnose(
    subject: _Subject, others: dict[str, _Subject], examples: Examples, *, own_rows: bool
) -> Iterator[Verdict]:
    """Yield the verdicts; none but the first for a model that has no scores."""
    groups = np.array(examples.groups, dtype=np.int64)
    try:
        loaded = subject.loaded()
        weights = sum(tensor.numel() for tensor in loaded.model.parameters())
        plain = plain_scores(loaded, examples.pairs, subject.device)
        scorer = subject.scorer(loaded)
        fast, swapped, won = _score(scorer, examples.pairs), _score(scorer, _swap(examples)), _wins(scorer, examples)
    except (CheckFailed, BrokenModel) as error:
        yield Verdict("paths", "wrong", str(error), "broken", "take another checkpoint, or another --dtype")
        return
    del loaded, scorer
    found, refused = compare(fast.scores, plain, subject.dtype), refusals(fast, plain)
    yield judge_paths(found, list(refused.values()), flips(fast.scores, plain.scores, groups), subject.dtype)
    yield _precision(subject, examples, fast.scores, groups, weights)
    moves = judge_movement(fast.scores, swapped.scores, np.array(examples.swapped, dtype=np.int64), found.largest)
    yield from moves
    yield judge_cuts(fast.truncated, subject.settled.encoder.max_length)
    if any(verdict.code == "constant" for verdict in moves):
        return
    templates = _templates(subject, others, examples, won)
    if templates is None or templates.status != "wrong":  # a better one explains why right responses lose
        yield judge_right(share(won), own_rows=own_rows)
    if templates is not None:
        yield templates


def _templates(subject: _Subject, others: dict[str, _Subject], examples: Examples, won: np.ndarray) -> Verdict | None:
    """Compare the template with others; None for an encoder, which has none to compare with."""
    settled = subject.settled
    used = settled.template.kind
    if not others:
        if used != NONE or settled.config.model_type not in DECODERS or settled.head.tokens:
            return None
        text = "none: a decoder reads plain pairs, and its tokenizer has no chat template to compare with"
        return Verdict("template", "unknown", text, remedy="give --template FILE if it was trained with one")
    if not share(won).total:
        return Verdict("template", "unknown", f"{used}: without right responses it cannot be compared with others")
    tried = {}
    for name, other in others.items():
        free_memory()
        tried[name] = _wins(other.scorer(other.loaded()), examples)
    return judge_templates(used, won, tried)


def _score(scorer: Scorer, pairs: Sequence[tuple[str, str]]) -> Scored:
    return scorer.score_pairs([a for a, _ in pairs], [b for _, b in pairs])


def _swap(examples: Examples) -> list[tuple[str, str]]:
    """Return each instruction with the response of another pair."""
    return [(a, examples.pairs[other][1]) for (a, _), other in zip(examples.pairs, examples.swapped, strict=True)]


def _wins(scorer: Scorer, examples: Examples) -> np.ndarray:
    """Return whether the right response wins, for each comparison (see `wins`)."""
    right = _score(scorer, [(instruction, text) for instruction, text, _ in examples.right])
    wrong = _score(scorer, [(instruction, text) for instruction, _, text in examples.right])
    return wins(right.scores, wrong.scores)


def _precision(subject: _Subject, examples: Examples, scores: np.ndarray, groups: np.ndarray, weights: int) -> Verdict:
    """Compare with the plain forward pass in float32, if the model fits into memory in it."""
    if subject.dtype == "float32":
        return Verdict("precision", "ok", "float32, the most precise format")
    needed, free = int(weights * _FLOAT32_BYTES * _BESIDE_THE_WEIGHTS), _free_memory(subject.device)
    if needed > free:
        text = f"not compared with float32: the model needs {size(needed)} in it, and {size(free)} are free"
        return Verdict("precision", "unknown", text)
    free_memory()
    exact = plain_scores(subject.loaded("float32"), examples.pairs, subject.device)
    largest = compare(scores, exact, subject.dtype).largest
    return judge_precision(largest, flips(scores, exact.scores, groups), subject.dtype)


def _free_memory(device: str) -> int:
    """Return the free bytes of this machine, where models are loaded, and of the device, whichever is less."""
    psutil, _ = load("psutil")
    free = int(psutil.virtual_memory().available) if psutil is not None else 0
    if device == "cpu":
        return free
    return min(free, int(torch.cuda.mem_get_info(cuda_devices(device)[0])[0]))
