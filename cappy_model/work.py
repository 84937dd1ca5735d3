"""The work of models, by a fixed table: how much text makes a unit of about a minute, in English.

The size of units decides the names and bytes of output files. So it follows from the kind of device and the size of
the model alone, never from a measured time or the number of cores.
"""

from collections.abc import Callable, Mapping

ProgressCallback = Callable[[float, float], None]
"""Called with (done, total) after each batch: rows, pairs or prompts."""

UNIT_SECONDS = 60
"""Most seconds of a unit's work by the table, in English text; up to 2.5 times as much in other scripts."""

BYTES_PER_TOKEN = 4
"""Bytes of UTF-8 that a token has on average: 3.9 to 4.4 in English text, by the tokenizers of BERT and RoBERTa.

Chinese, Russian or Hindi text and digits have 1.5 to 1.7: as many bytes are up to 2.5 times as much work there.
"""

OPERATIONS_PER_PARAMETER = 2
"""Floating-point operations of a token for each parameter but embeddings: a multiplication and an addition."""

SCORING: Mapping[str, float] = {"cpu": 1e11, "cuda": 2e14}
"""Operations per second by kind of device. docs/results.md has the measurements: MiniLM in float32 at 5,015 tokens per
second on 2 cores is 1.06e11; RoBERTa-large in bfloat16 at 581,261 on an H200 is 3.5e14, of which older GPUs have half.
"""

GENERATING: Mapping[str, float] = {"cpu": 2e10, "cuda": 1e13}
"""As `SCORING`, for tokens that are generated one after the other. Gemma 3 270M at 41 tokens per second on 2 cores is
2.2e10 (docs/results.md). On a GPU each step reads all weights: at 2e12 bytes per second and 2 bytes for each, a batch
of five rows does 1e13 operations, and more rows do more until the time between steps counts.
"""


def unit_bytes(rates: Mapping[str, float], device: str, parameters: int) -> int:
    """Return the bytes of text of a unit's work, those of at least one token.

    Args:
      rates: `SCORING` or `GENERATING`.
      device: kind of device, cpu or cuda.
      parameters: those that each token is multiplied with (see `checkpoints.parameters`).
    """
    tokens = int(UNIT_SECONDS * rates[device] / (OPERATIONS_PER_PARAMETER * max(1, parameters)))
    return BYTES_PER_TOKEN * max(1, tokens)


def rows_of_unit(size: int, row_bytes: float, most: int) -> int:
    """Return the rows of a unit of `size` bytes where a row has `row_bytes` on average: a power of two, at most `most`.

    A power of two seldom changes where the same rows were written with another compression or in other row groups.
    """
    fitting = int(min(most, max(1.0, size / max(1.0, row_bytes))))
    return 1 << (fitting.bit_length() - 1)
