"""What generate is told: its configuration and flags, which of them exclude each other, and what they mean."""

import argparse
import math
import os
from dataclasses import dataclass, fields

from beam_pipelines.io.storage import absolute, read_bytes
from beam_pipelines.jobs.generate.generation import PromptTemplate
from beam_pipelines.models.config import ModelConfig, add_model_flags
from beam_pipelines.runners.options import positive, share
from beam_pipelines.templates.mixture import load_decodings
from cappy_model.generate.decodings import PAPER, PRESETS, Decoding, Drawing, decodings_named
from schemas.chunks import CHUNK_ROWS
from schemas.errors import UsageError

TRANSFORMERS, OPENAI = "transformers", "openai"
_HOLE = "{instruction}"
_MIN_NEW_TOKENS = {TRANSFORMERS: 3, OPENAI: 0}
_OF_TRANSFORMERS = (
    *("device", "dtype", "tokens_per_batch", "accelerator", "allow_pickle", "trust_remote_code"),
    *("max_prompt_tokens", "truncation_side"),
)
_BUDGETS = ("max_requests", "max_tokens_total")
_OF_OPENAI = ("base_url", "concurrency", "timeout", "max_retries", *_BUDGETS, "log_likelihoods")


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(ModelConfig):
    """What generate is told beside what every job is: for which rows candidates are drawn, from what, and how.

    None: by the engine, the model or the server. `decodings` None: those of `decodings_file`; without one the paper's,
    as far as the engine can do them. `prompt_template` is a file. `fraction` and `per_template` sample instructions.
    """

    input: str
    model: str
    engine: str = TRANSFORMERS
    base_url: str | None = None
    instruction_column: str = "instruction"
    decodings: tuple[str, ...] | None = None
    decodings_file: str | None = None
    max_new_tokens: int = 64
    min_new_tokens: int | None = None
    max_prompt_tokens: int | None = None
    truncation_side: str | None = None
    stop: tuple[str, ...] = ()
    chat: bool = False
    prompt_template: str | None = None
    distinct: bool = False
    fraction: float | None = None
    per_template: int | None = None
    unit_rows: int | None = None
    concurrency: int | None = None
    timeout: float | None = None
    max_retries: int | None = None
    max_requests: int | None = None
    max_tokens_total: int | None = None
    log_likelihoods: bool = True


def check_flags(config: GenerateConfig, *, one_process: bool) -> None:
    """Raises UsageError for flags that exclude each other, naming both, and for values that make no sense."""
    given = {field.name for field in fields(config) if getattr(config, field.name) != field.default}
    if config.engine == OPENAI:
        for name in (name for name in _OF_TRANSFORMERS if name in given):
            raise UsageError(f"{_flag(name)} and --engine openai exclude each other: the server has the model")
        _check_url(config.base_url)
    else:
        for name in (name for name in _OF_OPENAI if name in given):
            raise UsageError(f"{_flag(name)} and --engine transformers exclude each other: it is for --engine openai")
    for name in (name for name in _BUDGETS if name in given and not one_process):
        raise UsageError(f"{_flag(name)} counts within one process, and the runner's flags ask for several")
    if config.fraction is not None and config.per_template is not None:
        raise UsageError("--fraction and --per-template exclude each other")
    if config.fraction == 0:
        raise UsageError("--fraction 0 leaves no instruction; it must be more than 0")
    if config.unit_rows is not None and config.unit_rows > CHUNK_ROWS:
        raise UsageError(f"--unit-rows {config.unit_rows:,} is more than a unit may have: {CHUNK_ROWS:,}")
    if (config.min_new_tokens or 0) > config.max_new_tokens:
        raise UsageError(f"--min-new-tokens {config.min_new_tokens} is more than --max-new-tokens")
    if "" in config.stop:
        raise UsageError("--stop '' would end every response before it begins")


def _flag(name: str) -> str:
    return f"--{'no-' if name == 'log_likelihoods' else ''}{name.replace('_', '-')}"


def _check_url(url: str | None) -> None:
    if url is None:
        raise UsageError("--engine openai needs --base-url: where the API is, such as http://localhost:8000/v1")
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"--base-url {url}: must start with http:// or https://")
    if any(mark in url for mark in "@?#"):
        raise UsageError("--base-url holds a user, a query or a fragment; the key comes from the environment alone")


def drawing_of(config: GenerateConfig) -> Drawing:
    """What is drawn for each prompt.

    Raises UsageError for a decoding that is not known or makes no sense.
    """
    custom = {}
    if config.decodings_file is not None:
        custom = load_decodings(absolute(config.decodings_file), config.storage)
    usual = PAPER if config.engine == TRANSFORMERS else [name for name in PAPER if _any_api_can(PRESETS[name])]
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


def _any_api_can(decoding: Decoding) -> bool:
    """Whether every OpenAI-compatible API has the parameters of a decoding; top_k is an extension of some servers."""
    return decoding.beams == 1 and decoding.top_k is None


def generator_name(model: str) -> str:
    """What candidates say of the model: its name as given, but of a folder of this machine only its own name."""
    return os.path.basename(os.path.normpath(model)) if os.path.isabs(model) else model


def template_of(config: GenerateConfig) -> PromptTemplate:
    """The prompt template of the file that was given: the newline that ends its last line is no part of it.

    Raises UsageError where it cannot be read, or does not hold `{instruction}` exactly once.
    """
    if config.prompt_template is None:
        return PromptTemplate()
    url = absolute(config.prompt_template)
    data = read_bytes(url, config.storage)
    if data is None:
        raise UsageError(f"{url}: there is no such file; --prompt-template wants a text file")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{url}: is not UTF-8 ({error}); --prompt-template wants a text file") from error
    before, *after = text.removesuffix("\n").removesuffix("\r").split(_HOLE)
    if len(after) != 1:
        raise UsageError(f"{url}: holds {_HOLE} {len(after)} times; a prompt template holds it once")
    return PromptTemplate(before, after[0])


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `GenerateConfig`."""
    parser.add_argument("--input", required=True, metavar="PATTERN", help="files of instructions")
    parser.add_argument("--model", required=True, metavar="ID", help="hub id[@revision], folder, URL; or an API's name")
    parser.add_argument("--engine", choices=(TRANSFORMERS, OPENAI), default=TRANSFORMERS, help="(default: %(default)s)")
    parser.add_argument("--instruction-column", default="instruction", metavar="C", help="(default: instruction)")
    _add_drawing_flags(parser)
    _add_prompt_flags(parser)
    _add_sampling_flags(parser)
    add_model_flags(parser)
    _add_api_flags(parser)


def _add_drawing_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--decodings",
        type=_names,
        metavar="A,B,...",
        help=f"of the file or of {', '.join(PRESETS)} (default: all of the file; without one the paper's, "
        f"{', '.join(PAPER)}, less what not every API can do)",
    )
    parser.add_argument(
        "--decodings-file", metavar="FILE", help="YAML: `decodings:` name -> samples, beams, temperature, top_k, top_p"
    )
    parser.add_argument("--max-new-tokens", type=positive, default=64, metavar="N", help="(default: 64)")
    parser.add_argument(
        "--min-new-tokens", type=_whole, metavar="N", help="(default: 3, as in the paper; with --engine openai 0)"
    )
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="a response ends before it; may be given repeatedly"
    )
    parser.add_argument("--distinct", action="store_true", help="equal responses of an instruction once, with a count")


def _add_prompt_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompt-template", metavar="FILE", help=f"text file with {_HOLE} once: what is asked")
    parser.add_argument("--chat", action="store_true", help="the prompt is the user's turn of a chat")
    parser.add_argument(
        "--max-prompt-tokens", type=positive, metavar="N", help="cut longer prompts (default: by the model)"
    )
    parser.add_argument(
        "--truncation-side", choices=("left", "right"), help="where prompts are cut (default: by the kind of model)"
    )


def _add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fraction", type=share, metavar="F", help="only so large a share of the instructions")
    parser.add_argument("--per-template", type=positive, metavar="N", help="only N instructions of each template")
    parser.add_argument(
        "--unit-rows",
        type=positive,
        metavar="N",
        help="input rows of an output file (default: as many as give about 128 sampled ones; with --engine openai 32)",
    )


def _add_api_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("with --engine openai (the key is taken from the environment)")
    group.add_argument("--base-url", metavar="URL", help="of the API, such as http://localhost:8000/v1")
    group.add_argument("--concurrency", type=positive, metavar="N", help="requests at a time")
    group.add_argument("--timeout", type=_seconds, metavar="S", help="of a request, in seconds")
    group.add_argument("--max-retries", type=_whole, metavar="N", help="of a request that failed")
    group.add_argument("--max-requests", type=positive, metavar="N", help="stop after so many requests")
    group.add_argument("--max-tokens-total", type=positive, metavar="N", help="stop after so many tokens, prompts' too")
    group.add_argument(
        "--no-log-likelihoods", dest="log_likelihoods", action="store_false", help="do not ask for log-probabilities"
    )


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of names with commas between them")
    return names


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value
