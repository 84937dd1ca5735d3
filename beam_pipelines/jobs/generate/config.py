"""Options of generate, and which of them exclude each other."""

from dataclasses import dataclass, fields

from beam_pipelines.models.config import ModelConfig
from beam_pipelines.runs.flags import flag, flag_name, names, seconds, share, whole
from cappy_model.generate.decodings import PAPER, PRESETS
from schemas.errors import UsageError

TRANSFORMERS, OPENAI = "transformers", "openai"
BUDGETS = ("max_requests", "max_tokens_total")
_OF_TRANSFORMERS = (
    *("device", "dtype", "tokens_per_batch", "accelerator", "allow_pickle", "trust_remote_code"),
    *("max_prompt_tokens", "truncation_side"),
)
_OF_OPENAI = ("base_url", "concurrency", "timeout", "max_retries", *BUDGETS, "log_likelihoods")
_API = "with --engine openai (the API key comes from the environment)"


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(ModelConfig):
    """Options specific to generate: the instructions, the engine, decodings and prompts.

    None leaves a setting to the engine, the model or the server. `decodings` None: all of `decodings_file`, without
    one the paper's, less those that not every API supports. `prompt_template` is a file, `timeout` is in seconds, and
    `fraction` is a share in (0, 1].
    """

    input: str = flag(metavar="PATTERN", help="files of instructions: a path or fsspec URL with wildcards")
    model: str = flag(metavar="ID", help="model: hub id[@revision], folder, or fsspec URL; with openai its API name")
    engine: str = flag(TRANSFORMERS, choices=(TRANSFORMERS, OPENAI), help="run the model here, or call an API")
    instruction_column: str = flag("instruction", metavar="C", help="column of the instruction")
    decodings: tuple[str, ...] | None = flag(
        None,
        parse=names,
        metavar="A,B,...",
        help=f"decodings of the file or of {', '.join(PRESETS)} (default: all of the file; without a file the paper's, "
        f"{', '.join(PAPER)}, less those that not every API supports)",
    )
    decodings_file: str | None = flag(
        None, metavar="FILE", help="YAML file, `decodings:` name -> samples, beams, temperature, top_k, top_p"
    )
    max_new_tokens: int = flag(64, metavar="N", help="maximum tokens of a response")
    min_new_tokens: int | None = flag(
        None,
        parse=whole,
        metavar="N",
        help="minimum tokens of a response (default: 3, as in the paper; with --engine openai 0)",
    )
    stop: tuple[str, ...] = flag(
        (), action="append", metavar="TEXT", help="text that a response ends before; may be repeated"
    )
    distinct: bool = flag(False, help="merge equal responses of an instruction into one, with a count")
    prompt_template: str | None = flag(None, metavar="FILE", help="text file of the prompt, with {instruction} once")
    chat: bool = flag(False, help="send the prompt as the user's turn of a chat")
    max_prompt_tokens: int | None = flag(
        None, metavar="N", help="tokens of a prompt, the rest is cut (default: by the model)"
    )
    truncation_side: str | None = flag(
        None, choices=("left", "right"), help="side where prompts are cut (default: by the kind of model)"
    )
    fraction: float | None = flag(None, parse=share, metavar="F", help="share of the instructions to generate for")
    per_template: int | None = flag(
        None, metavar="N", help="maximum instructions of each template, by the columns that build-corpus writes"
    )
    unit_rows: int | None = flag(
        None,
        metavar="N",
        help="input rows per output file (default: as the run was begun with, or about a minute of work; with --engine "
        "openai 32 sampled rows)",
    )
    base_url: str | None = flag(
        None, group=_API, metavar="URL", help="address of the API, such as http://localhost:8000/v1"
    )
    concurrency: int | None = flag(None, group=_API, metavar="N", help="requests in flight at a time")
    timeout: float | None = flag(None, group=_API, parse=seconds, metavar="S", help="seconds that a request may take")
    max_retries: int | None = flag(None, group=_API, parse=whole, metavar="N", help="retries of a failed request")
    max_requests: int | None = flag(None, group=_API, metavar="N", help="stop after N requests")
    max_tokens_total: int | None = flag(None, group=_API, metavar="N", help="stop after N tokens, prompts included")
    log_likelihoods: bool = flag(True, group=_API, help="do not request log-probabilities")

    def check(self) -> None:
        """Raise UsageError for options that exclude each other, naming both, and for values that make no sense."""
        self._check_engine()
        if self.fraction is not None and self.per_template is not None:
            raise UsageError("--fraction and --per-template exclude each other")
        if self.fraction == 0:
            raise UsageError("--fraction 0 selects no instruction; it must be more than 0")
        if self.unit_rows is not None:
            _check_unit_rows(self.unit_rows)
        if (self.min_new_tokens or 0) > self.max_new_tokens:
            raise UsageError(f"--min-new-tokens {self.min_new_tokens} is more than --max-new-tokens")
        if "" in self.stop:
            raise UsageError("--stop '' would end every response before it begins")
        super().check()

    def _check_engine(self) -> None:
        """Raise UsageError for an option of the other engine, or for the URL of an API."""
        given = {field.name for field in fields(self) if getattr(self, field.name) != field.default}
        openai = self.engine == OPENAI
        reason = "the server has the model" if openai else "it is for --engine openai"
        for name in (name for name in (_OF_TRANSFORMERS if openai else _OF_OPENAI) if name in given):
            raise UsageError(
                f"{flag_name(GenerateConfig, name)} and --engine {self.engine} exclude each other: {reason}"
            )
        if openai:
            _check_url(self.base_url)


def _check_unit_rows(rows: int) -> None:
    from schemas.chunks import CHUNK_ROWS  # imports pyarrow

    if rows > CHUNK_ROWS:
        raise UsageError(f"--unit-rows {rows:,} is more than a unit may have: {CHUNK_ROWS:,}")


def _check_url(url: str | None) -> None:
    if url is None:
        raise UsageError("--engine openai needs --base-url: the API's address, such as http://localhost:8000/v1")
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"--base-url {url}: must start with http:// or https://")
    if any(mark in url for mark in "@?#"):
        raise UsageError("--base-url holds a user, a query or a fragment; the key comes from the environment alone")
