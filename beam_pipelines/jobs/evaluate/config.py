"""Options of evaluate."""

import argparse
from dataclasses import dataclass
from typing import Any

from beam_pipelines.runs.config import JobConfig
from beam_pipelines.runs.flags import flag
from schemas.errors import UsageError

GENERATION, CLASSIFICATION, RANKING = TASKS = ("generation", "classification", "ranking")
PARITY, UNICODE = TOKENIZERS = ("parity", "unicode")
"""The tokenizers of `cappy_model.metrics.rouge`, which the flags name without importing it."""


def rouge_flag() -> Any:
    """Declare the field of the tokenizer of Rouge-L."""
    return flag(
        PARITY,
        choices=TOKENIZERS,
        help="tokens of Rouge-L; parity: words of a-z and 0-9, as rouge_score; unicode: words of any script, and "
        "single letters of scripts without spaces, such as Chinese",
    )


def rouge_settings(tokenizer: str) -> dict[str, str]:
    """Return the fingerprint inputs of the tokenizer: none for parity, as in earlier versions."""
    return {} if tokenizer == PARITY else {"rouge": tokenizer}


class _AddNames(argparse.Action):
    """Append a comma-separated list of names to those of earlier occurrences of the flag."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        earlier = getattr(namespace, self.dest) if getattr(namespace, self.dest) is not self.default else ()
        setattr(namespace, self.dest, (*earlier, *(name for name in values.split(",") if name)))


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(JobConfig):
    """Options specific to evaluate: the input, the task, and the columns.

    `label_column` None: candidates are compared with the references; ranking requires labels. `shards` None: by the
    size of the input.
    """

    input: str = flag(metavar="PATTERN", help="input files of scored candidates")
    task: str = flag(
        GENERATION,
        choices=TASKS,
        help="how candidates are valued: Rouge-L of the chosen response, accuracy, or rank correlation",
    )
    group_column: str | None = flag(
        None,
        metavar="C",
        help="column that defines examples (default: instruction_id if present, else the instruction)",
    )
    instruction_column: str = flag("instruction", metavar="C", help="column of the instruction")
    response_column: str = flag("response", metavar="C", help="column of the response: text, or a list of texts")
    score_columns: tuple[str, ...] = flag(
        ("score",),
        name="score-column",
        action=_AddNames,
        metavar="C[,C]",
        help="columns of scores: numbers, or lists of them; several scorers: several columns, or the flag again",
    )
    reference_column: str = flag("references", metavar="C", help="column of the reference texts")
    label_column: str | None = flag(
        None, metavar="C", help="column of the candidates' labels, higher is better, instead of references"
    )
    rouge: str = rouge_flag()
    shards: int | None = flag(None, metavar="N", help="number of shuffle shards (default: by size)")

    def check(self) -> None:
        """Raise UsageError for an unknown task, labels for generation, and repeated or missing score columns."""
        for name, value, known in (("task", self.task, TASKS), ("rouge", self.rouge, TOKENIZERS)):
            if value not in known:
                raise UsageError(f"--{name} {value!r} is not known; there are {', '.join(known)}")
        if self.task != GENERATION and self.rouge != PARITY:
            raise UsageError(f"--rouge {self.rouge}: --task {self.task} computes no Rouge-L; leave one of them out")
        if self.task == GENERATION and self.label_column is not None:
            raise UsageError(
                f"--label-column {self.label_column!r}: --task generation compares responses with references; "
                "--task ranking compares scores with labels"
            )
        repeated = [name for name in self.score_columns if self.score_columns.count(name) > 1]
        if repeated:
            raise UsageError(f"--score-column {repeated[0]!r} is named twice")
        if not self.score_columns:
            raise UsageError("--score-column names no column")
