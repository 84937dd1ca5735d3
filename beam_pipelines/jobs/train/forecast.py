"""The duration of a training run, extrapolated from a few of its steps."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from beam_pipelines.report.text import duration, number, plural
from beam_pipelines.runs.start_up import describe_start_up, end_start_up

if TYPE_CHECKING:
    import torch

    from beam_pipelines.jobs.train.plan import TrainPlan
    from cappy_model.score.encoding import Encoder
    from cappy_model.train.corpus import Columns
    from cappy_model.train.recipe import Recipe

_SAMPLED_BATCHES = 64
_SECONDS = 15.0
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")

Encoded = Mapping[str, Any]
"""A batch as `collate` returns it."""


class Speed(NamedTuple):
    """The seconds of training and of evaluation, per token of a batch with its padding, and of an optimiser's step."""

    training: float
    evaluation: float
    update: float
    batches: int


class Work(NamedTuple):
    """The steps of a run, each over the batches of `accumulation`, and the pairs of each of its evaluations."""

    steps: int
    accumulation: int
    evaluations: int = 0
    evaluation_pairs: int = 0


def forecast_run(plan: "TrainPlan", recipe: "Recipe", steps: int) -> str:
    """Describe the duration of a planned run of `steps` steps, measured with its model on its first pairs.

    Raises ModelError or CorpusError for a model or a corpus that training cannot use.
    """
    from cappy_model.score.encoding import encoder_for
    from cappy_model.train.environment import settle_arithmetic
    from cappy_model.train.start import load_to_train

    config = plan.config
    model, tokenizer = load_to_train(
        plan.checkpoint, seed=config.seed, new_head=config.new_head, dropout=recipe.dropout
    )
    encoder = encoder_for(tokenizer, model.config, template=plan.template, max_length=plan.max_length)
    batches = sample_batches(
        *(plan.urls, plan.columns, encoder, model.config.pad_token_id, recipe.batch_size), storage=config.storage
    )
    shape = {"batch_size": recipe.batch_size, "max_length": plan.max_length}
    settle_arithmetic(model, plan.dtype, plan.device, **shape)
    pairs = min(round(config.eval_fraction * plan.rows), config.max_eval_pairs)
    evaluate_every = config.evaluation_interval(steps)
    work = Work(steps, recipe.accumulation, -(-steps // evaluate_every) if pairs else 0, pairs)
    return forecast(model, batches, work, device=plan.device, dtype=plan.dtype)


def forecast(model: Any, batches: Iterator[Encoded], work: Work, *, device: str, dtype: str) -> str:
    """Describe the duration of some work, measured for about 15 seconds.

    `model` is moved to the device; its weights stay. `batches` are as training reads them (`Stream.batches`) or as
    `sample_batches` does. Checkpoints are not counted, nor the ordering of a large corpus.
    """
    sample = list(islice(batches, _SAMPLED_BATCHES))
    if not sample:
        return "no duration is known, since no pair could be measured"
    speed = measure(model, sample, device=device, dtype=dtype)
    tokens = sum(batch["input_ids"].numel() for batch in sample) / len(sample)
    pairs = sum(len(batch["labels"]) for batch in sample) / len(sample)
    step_seconds = work.accumulation * tokens * speed.training + speed.update
    evaluation_seconds = work.evaluation_pairs / pairs * tokens * speed.evaluation
    seconds = work.steps * step_seconds + work.evaluations * evaluation_seconds
    evaluated = f" and {plural(work.evaluations, 'evaluation')}" if work.evaluations else ""
    rate = number(round(work.accumulation * pairs / step_seconds))
    return (
        f"about {duration(seconds)} for {plural(work.steps, 'step')}{evaluated}{describe_start_up()}, at {rate} pairs "
        f"per second in each process, measured on {_described(speed.batches)}"
    )


def _described(batches: int) -> str:
    return "1 batch" if batches == 1 else f"{number(batches)} batches"


def measure(model: Any, sample: Sequence[Encoded], *, device: str, dtype: str) -> Speed:
    """Time training on batches for some 15 seconds, on fewer rows of each where one would take longer than half of it.

    The weights stay: the learning rate is 0.
    """
    import torch

    place = torch.device(device)
    model.to(place)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0, fused=True)  # as the Trainer's is
    end_start_up()
    started = time.perf_counter()
    _timed(model, optimiser, _first_rows(sample[0], 1), place, dtype)  # warms up
    ones = [_timed(model, optimiser, _first_rows(sample[0], 1), place, dtype) for _ in range(3)]
    most_rows = max(1, int(_SECONDS / 2 / min(training + evaluation for training, _, evaluation in ones)))
    tokens, timed, times = 0, 0, np.zeros(3)
    for batch in sample:
        part = _first_rows(batch, most_rows)
        tokens, timed = tokens + part["input_ids"].numel(), timed + 1
        times += _timed(model, optimiser, part, place, dtype)
        if time.perf_counter() - started > _SECONDS:
            break
    training, update, evaluation = times.tolist()
    return Speed(training / tokens, evaluation / tokens, update / timed, timed)


def _first_rows(batch: Encoded, rows: int) -> Encoded:
    return {name: batch[name][:rows] for name in (*_INPUTS, "labels") if name in batch}


def _timed(
    model: Any, optimiser: "torch.optim.Optimizer", batch: Encoded, device: "torch.device", dtype: str
) -> tuple[float, float, float]:
    """Return the seconds of a forward and backward pass, of an optimiser's step, and of evaluating the batch."""
    import torch

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    inputs = {name: batch[name].to(device) for name in _INPUTS if name in batch}
    labels = batch["labels"].to(device)
    model.train()
    times = [now()]
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
        scores = model(**inputs).logits[:, 0].float()
    torch.nn.functional.mse_loss(scores, labels).backward()
    times.append(now())
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad()
    times.append(now())
    model.eval()
    with torch.no_grad():
        model(**inputs)
    times.append(now())
    return times[1] - times[0], times[2] - times[1], times[3] - times[2]


def sample_batches(
    urls: Sequence[str],
    columns: "Columns",
    encoder: "Encoder",
    pad_token_id: int,
    batch_size: int,
    *,
    storage: Mapping[str, Any],
) -> Iterator[Encoded]:
    """Yield batches of the first pairs of a corpus, 64 at most, batched by length as training does.

    Raises CorpusError as `scan` does.
    """
    from cappy_model.train.batches import shuffled
    from cappy_model.train.corpus import LabelledPairs
    from cappy_model.train.data import Batch, collate

    pairs = LabelledPairs.of(_first_pairs(urls, columns, _SAMPLED_BATCHES * batch_size, storage))
    for rows in shuffled(pairs.lengths, batch_size, np.random.default_rng(0)):
        yield collate(Batch(pairs.take(rows), np.arange(len(rows))), encoder, pad_token_id)


def _first_pairs(urls: Sequence[str], columns: "Columns", count: int, storage: Mapping[str, Any]) -> pa.Table:
    """Return the first `count` pairs of a corpus, or all if it has fewer, as `SCHEMA`."""
    from cappy_model.train.corpus import SCHEMA, scan_pairs, scan_preferences

    parts: list[pa.RecordBatch] = []
    found = 0
    for url in urls:
        read: Callable[..., Iterator[tuple[Any, pa.RecordBatch]]]
        read = scan_preferences if columns.preferences else scan_pairs
        for _, batch in read(url, columns, storage=storage):
            parts.append(batch)
            found += batch.num_rows
            if found >= count:
                return pa.Table.from_batches(parts, SCHEMA).slice(0, count)
    return pa.Table.from_batches(parts, SCHEMA)
