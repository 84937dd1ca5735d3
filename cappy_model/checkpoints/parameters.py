"""The number of parameters of a model, from the headers or sizes of its files: no weight is loaded."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from cappy_model.checkpoints.source import Checkpoint, ModelError

_INDEX = ".index.json"
_SAFE, _PICKLED = "model.safetensors", "pytorch_model.bin"
_HEADER_BYTES = 8
_OUTPUTS = ("lm_head", "embed_out", "output_projection")
_FLOAT32_BYTES = 4


def count_parameters(checkpoint: Checkpoint, config: PreTrainedConfig, *, generates: bool = False) -> int:
    """Return about how many parameters each token is multiplied with: all but the embeddings of the vocabulary.

    Those of an adapter are its base's. Of a model that `generates`, the output layer counts, also one that shares its
    weights with the embeddings. Pickled weights are counted by the sizes of their files.

    Raises ModelError for a file whose header cannot be read.
    """
    weights = checkpoint.base or checkpoint
    shapes = [shape for path in _files(weights, _SAFE) for shape in _shapes(weights, path).items()]
    stored = sum(math.prod(shape) for _, shape in shapes)
    if not stored:
        sizes = sum(path.stat().st_size for path in _files(weights, _PICKLED))
        stored = sizes // _bytes_of(weights.stored_config())
    text = config.get_text_config(decoder=True)
    embeddings = int(getattr(text, "vocab_size", 0) or 0) * _width(text)
    outputs = any(part in _OUTPUTS for name, _ in shapes for part in name.split("."))
    shared = not outputs and bool(getattr(text, "tie_word_embeddings", True))
    uses = int(text.num_hidden_layers // getattr(text, "num_hidden_groups", text.num_hidden_layers) or 1)  # of ALBERT's
    return max(1, uses * (stored - (0 if generates and shared else embeddings)))


def _width(config: Any) -> int:
    """Return the width of the embeddings, which some models project to that of their layers."""
    for name in ("embedding_size", "word_embed_proj_dim", "hidden_size"):
        if isinstance(getattr(config, name, None), int):
            return int(getattr(config, name))
    return 0


def _files(checkpoint: Checkpoint, name: str) -> list[Path]:
    """Return the files of weights that transformers would load: `name`, or the parts that its index lists, or any."""
    folder = checkpoint.folder
    if (folder / name).is_file():
        return [folder / name]
    index = folder / f"{name}{_INDEX}"
    if not index.is_file():
        return sorted(folder.glob(f"*{Path(name).suffix}"))
    with _naming(checkpoint, index):
        parts = set(json.loads(index.read_bytes())["weight_map"].values())
    return [folder / part for part in sorted(parts) if (folder / part).is_file()]


def _shapes(checkpoint: Checkpoint, path: Path) -> dict[str, list[int]]:
    """Return the shapes of the tensors of a safetensors file, by name, from its header."""
    with _naming(checkpoint, path), path.open("rb") as file:
        length = int.from_bytes(file.read(_HEADER_BYTES), "little")
        if length > path.stat().st_size:
            raise ValueError("its header is longer than the file")
        header = json.loads(file.read(length))
        return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}


@contextmanager
def _naming(checkpoint: Checkpoint, path: Path) -> Iterator[None]:
    """Turn the error of a damaged file into a ModelError that names it."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{checkpoint.source.name}: cannot be loaded: {path.name} is damaged ({error}); fetch or write it again"
        ) from error


def _bytes_of(stored: dict[str, Any]) -> int:
    """Return the bytes of a parameter by a config.json; float32 where it does not say."""
    name = str(stored.get("dtype") or stored.get("torch_dtype") or "")
    return 2 if name.endswith("16") else _FLOAT32_BYTES
