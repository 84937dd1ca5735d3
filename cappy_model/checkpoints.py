"""Model checkpoints: find one (folder, fsspec URL or hub id), identify its content, and load it."""

import hashlib
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)
from transformers.utils import logging

from cappy_model.host import cache_folder
from schemas.errors import CappyError
from schemas.ids import digest
from schemas.manifest import MANIFEST, METRICS, RUN

_SAFE = ("*.safetensors", "*.json", "*.txt", "*.model")
_PICKLED = ("*.bin", "*.pt")
_CODE = ("*.py",)
_HUB_ID = re.compile(r"(?P<id>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?")
_ABOUT_RUN = frozenset({RUN, MANIFEST, METRICS})  # written by training next to the model, not part of it
_BLOCK = 2**20


class ModelError(CappyError):
    """A model that cannot be found, loaded or used for its purpose."""


@dataclass(frozen=True)
class ModelSource:
    """The location of a model and the permissions to load it.

    `name`: a folder, an fsspec URL, or a hub id with an optional `@revision`. Pickled weights and the model's own code
    can execute anything on this machine, so both are opt-in. `storage`: fsspec options for a URL.
    """

    name: str
    allow_pickle: bool = False
    trust_remote_code: bool = False
    storage: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def _patterns(self) -> tuple[str, ...]:
        return _SAFE + (_PICKLED if self.allow_pickle else ()) + (_CODE if self.trust_remote_code else ())


@dataclass(frozen=True)
class Checkpoint:
    """A model's files on this machine. `content`: a hash of the files, or the commit of the hub repository."""

    source: ModelSource
    folder: Path
    content: str


def find_checkpoint(source: ModelSource) -> Checkpoint:
    """Find a model's files, and fetch them if they are remote. Raises ModelError."""
    if Path(source.name).is_dir():
        folder = Path(source.name)
        return _checked(Checkpoint(source, folder, _content_hash(folder, source._patterns)))
    if "://" in source.name:
        folder = _copied(source)
        return _checked(Checkpoint(source, folder, _content_hash(folder, source._patterns)))
    match = _HUB_ID.fullmatch(source.name)
    if not match:
        raise ModelError(f"{source.name}: no such folder, and not a hub id (name/model[@revision])")
    folder = _downloaded(source, match["id"], match["revision"])
    return _checked(Checkpoint(source, folder, folder.name))


def _checked(checkpoint: Checkpoint) -> Checkpoint:
    folder, source = checkpoint.folder, checkpoint.source
    if not (folder / "config.json").is_file():
        raise ModelError(f"{source.name}: has no config.json; give a folder that save_pretrained has written")
    if any(folder.glob("*.safetensors")) or (source.allow_pickle and any(folder.glob("*.bin"))):
        return checkpoint
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if pickled:
        raise ModelError(
            f"{source.name}: its weights are pickled ({pickled[0]}), which can run any code; convert them to "
            "safetensors, or give --allow-pickle (allow_pickle=True) if you trust their source"
        )
    raise ModelError(f"{source.name}: has no weights (*.safetensors)")


def _files(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    paths = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return sorted(path for path in paths if path.name not in _ABOUT_RUN)


def _content_hash(folder: Path, patterns: tuple[str, ...]) -> str:
    state = hashlib.blake2b(digest_size=16)
    for path in _files(folder, patterns):
        state.update(digest(path.name, str(path.stat().st_size)).encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                state.update(block)
    return state.hexdigest()


def _copied(source: ModelSource) -> Path:
    """Copy the folder of a URL into the cache of this machine, once for each state of its files."""
    from fsspec.core import url_to_fs

    try:
        fs, root = url_to_fs(source.name, **source.storage)
        names = sorted({name for pattern in source._patterns for name in fs.glob(f"{root.rstrip('/')}/{pattern}")})
        state = digest(source.name, *(f"{name} {fs.ukey(name)}" for name in names))
        cache = cache_folder() / "models"
        target, fresh = cache / state, cache / f"{state}.{uuid.uuid4().hex}"
        if not target.is_dir():
            fresh.mkdir(parents=True)
            for name in names:
                fs.get_file(name, str(fresh / Path(name).name))
            try:
                fresh.rename(target)
            except OSError:
                shutil.rmtree(fresh)  # another process was faster
    except Exception as error:  # file systems raise errors of their own types
        raise ModelError(f"{source.name}: cannot be fetched: {type(error).__name__}: {error}") from error
    if not names:
        raise ModelError(f"{source.name}: has no model files")
    return target


def _downloaded(source: ModelSource, repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(source._patterns)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(
            f"{source.name}: no such folder here, and it cannot be fetched from the model hub: {reason}"
        ) from error


def load_config(checkpoint: Checkpoint) -> tuple[PreTrainedConfig, PreTrainedTokenizerBase]:
    """Load a model's configuration and tokenizer, without its weights. Raises ModelError."""
    source, folder = checkpoint.source, str(checkpoint.folder)
    with _loading(source):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=source.trust_remote_code)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=source.trust_remote_code)
    return config, tokenizer


def check_scorer(checkpoint: Checkpoint, config: PreTrainedConfig) -> None:
    """Raise ModelError unless the head has one logit."""
    if config.num_labels != 1:
        raise ModelError(f"{checkpoint.source.name}: has a head of {config.num_labels} logits; a scorer has one")


def load(checkpoint: Checkpoint, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a scorer (in evaluation mode, on the CPU) and its tokenizer.

    Raises ModelError unless it is a sequence classifier with one logit, all of its weights, and its own tokenizer.
    """
    config, tokenizer = load_config(checkpoint)
    check_scorer(checkpoint, config)
    return load_model(checkpoint, AutoModelForSequenceClassification, config, tokenizer, dtype), tokenizer


def settle_padding(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Set a missing padding token of the configuration from the tokenizer. Raises ModelError if neither has one."""
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
    if config.pad_token_id is None:
        raise ModelError(f"{config.model_type}: neither model nor tokenizer has a padding token; set one and save it")


def generates_by(checkpoint: Checkpoint, config: PreTrainedConfig) -> Any:
    """Return the auto class of a generative model, encoder-decoder or decoder-only, according to its configuration.

    Raises ModelError for a model that is neither.
    """
    architectures = config.architectures or ()
    for names, loader in (
        (MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, AutoModelForSeq2SeqLM),
        (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, AutoModelForCausalLM),
    ):
        own_code = getattr(config, "auto_map", None) or {}
        if names.get(config.model_type) in architectures or loader.__name__ in own_code:
            return loader
    raise ModelError(
        f"{checkpoint.source.name}: is {', '.join(architectures) or 'of no architecture that its config.json names'}, "
        "which generates no text; give a decoder-only or an encoder-decoder language model"
    )


def load_generator(checkpoint: Checkpoint, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a language model (in evaluation mode, on the CPU) and its tokenizer.

    Raises ModelError unless it is decoder-only or encoder-decoder, with all of its weights and its own tokenizer.
    """
    config, tokenizer = load_config(checkpoint)
    return load_model(checkpoint, generates_by(checkpoint, config), config, tokenizer, dtype), tokenizer


def load_model(
    checkpoint: Checkpoint,
    loader: Any,
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    dtype: torch.dtype,
    *,
    new_head: bool = False,
) -> PreTrainedModel:
    """Load a model (in evaluation mode, on the CPU) with the auto class `loader`.

    With `new_head` only the weights of the layers are required. Raises ModelError for weights that are missing or
    cannot be read, and for the tokenizer of another model.
    """
    source = checkpoint.source
    with _loading(source):
        model, info = loader.from_pretrained(
            str(checkpoint.folder),
            config=config,
            dtype=dtype,
            use_safetensors=None if source.allow_pickle else True,
            trust_remote_code=source.trust_remote_code,
            output_loading_info=True,
        )
    layers = tuple(
        f"{model.base_model_prefix}.{name}" for name, _ in model.base_model.named_children() if name != "pooler"
    )
    lacking = sorted(key for key in info["missing_keys"] if not new_head or key.startswith(layers))
    if lacking:
        missing = ", ".join(lacking[:3])
        raise ModelError(f"{source.name}: lacks weights ({missing}), so it was not trained for this use")
    embeddings = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > embeddings:
        raise ModelError(
            f"{source.name}: its tokenizer has {len(tokenizer)} ids, its model {embeddings}: they do not match"
        )
    evaluating: PreTrainedModel = model.eval()
    return evaluating


@contextmanager
def _loading(source: ModelSource) -> Iterator[None]:
    """Turn errors of transformers into a ModelError that names the model, and silence its output."""
    try:
        with quiet():
            yield
    except Exception as error:  # damaged files and unknown models raise errors of any type
        raise ModelError(f"{source.name}: cannot be loaded: {str(error).strip()}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the progress bars and warnings of transformers."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
