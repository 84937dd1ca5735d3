"""Settings that follow from the options of generate, some of them read from files: decodings and prompt template."""

import os

from beam_pipelines.io.storage import absolute, read_bytes
from beam_pipelines.jobs.generate.config import OPENAI, TRANSFORMERS, GenerateConfig
from beam_pipelines.jobs.generate.generation import PromptTemplate
from beam_pipelines.templates.mixture import load_decodings
from cappy_model.generate.decodings import PAPER, PRESETS, Decoding, Drawing, decodings_named
from cappy_model.paths import local_path, shareable
from schemas.errors import UsageError

_PLACEHOLDER = "{instruction}"
_MIN_NEW_TOKENS = {TRANSFORMERS: 3, OPENAI: 0}


def drawing_of(config: GenerateConfig) -> Drawing:
    """Return the decodings and limits of every prompt's responses.

    Raises UsageError for a decoding that is unknown or makes no sense.
    """
    custom = {}
    if config.decodings_file is not None:
        custom = load_decodings(absolute(config.decodings_file), config.storage)
    usual = PAPER if config.engine == TRANSFORMERS else [name for name in PAPER if _any_api_supports(PRESETS[name])]
    decodings = decodings_named(config.decodings or list(custom) or usual, custom)
    least = config.min_new_tokens
    return Drawing(
        decodings,
        max_new_tokens=config.max_new_tokens,
        min_new_tokens=min(_MIN_NEW_TOKENS[config.engine], config.max_new_tokens) if least is None else least,
        stop=tuple(config.stop),
        chat=config.chat,
        max_prompt_tokens=config.max_prompt_tokens,
        truncation_side=config.truncation_side,
    )


def _any_api_supports(decoding: Decoding) -> bool:
    """Return whether every OpenAI-compatible API has the parameters of a decoding; few servers have `top_k`."""
    return decoding.beams == 1 and decoding.top_k is None


def generator_name(model: str) -> str:
    """Return the `generator` of candidates: the model as given, but the last part alone of an absolute path."""
    path = local_path(model) or ""
    return shareable(os.path.basename(os.path.normpath(path)) if os.path.isabs(path) else model)


def template_of(config: GenerateConfig) -> PromptTemplate:
    """Return the prompt template of `--prompt-template`, without the newline that ends the file's last line.

    Raises UsageError if the file cannot be read, or does not hold `{instruction}` exactly once.
    """
    if config.prompt_template is None:
        return PromptTemplate()
    url = absolute(config.prompt_template)
    data = read_bytes(url, config.storage)
    if data is None:
        raise UsageError(f"{url}: there is no such file; --prompt-template requires a text file")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{url}: is not UTF-8 ({error}); --prompt-template requires a text file") from error
    before, *after = text.removesuffix("\n").removesuffix("\r").split(_PLACEHOLDER)
    if len(after) != 1:
        raise UsageError(f"{url}: holds {_PLACEHOLDER} {len(after)} times; a prompt template holds it once")
    return PromptTemplate(before, after[0])
