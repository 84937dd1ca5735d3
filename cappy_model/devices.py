"""Devices and number formats: what is asked for, what is there, and how many tokens a batch may have on it."""

import torch
from transformers import PreTrainedConfig

from schemas.errors import UsageError

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16", "float16")

CPU_TOKENS = 2_048
"""Tokens of a batch on a CPU core: few enough that a layer's activations stay in its cache."""

_MAX_CUDA_TOKENS = 65_536
_SHARE_OF_FREE_MEMORY = 0.5
# A layer's activations per token, in units of the hidden size: input, query, key, value, attention, residual, and the
# intermediate states (four times as wide) before and after their activation function.
_WIDTHS_PER_TOKEN = 16

_CPU_GENERATION_BYTES = 2**31
_MAX_CPU_GENERATION_TOKENS = 2**16
_MAX_CUDA_GENERATION_TOKENS = 2**20
_BYTES_PER_LOGIT = 16  # as they are, their exponentials, and of some of them the cumulative sum


def settle_device(device: str) -> str:
    """`cpu` or `cuda` (all GPUs of this machine) or `cuda:N`; `auto` takes the GPUs where there are any.

    Raises UsageError for a device that is not here.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return device
    name, _, index = device.partition(":")
    if name != "cuda" or (index and not index.isdecimal()):
        raise UsageError(f"device {device!r} is not known; there are {', '.join(DEVICES)} and cuda:N")
    if not torch.cuda.is_available() or int(index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {device} is not here: torch {torch.__version__} finds {torch.cuda.device_count()} GPUs; "
            "`cappy doctor` says more, and --device cpu works everywhere"
        )
    return device


def settle_dtype(dtype: str, device: str) -> str:
    """`auto` is bfloat16 on a GPU and on a processor with instructions for it, else float32.

    Raises UsageError for a name that is none of `DTYPES`.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r} is not known; there are {', '.join(DTYPES)}")
    if dtype != "auto":
        return dtype
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    found = torch.cpu.get_capabilities()
    return "bfloat16" if found.get("avx512_bf16") or found.get("amx_bf16") or found.get("bf16") else "float32"


def settle_tokens_per_batch(config: PreTrainedConfig, device: str, dtype: str) -> int:
    """The tokens that a batch may have: a constant on a CPU; on a GPU a power of two for half of its free memory.

    To be asked before the model is loaded there.
    """
    if device == "cpu":
        return CPU_TOKENS
    free, _ = torch.cuda.mem_get_info(device)
    per_token = _WIDTHS_PER_TOKEN * config.hidden_size * torch.finfo(getattr(torch, dtype)).bits // 8
    fitting = max(1, int(free * _SHARE_OF_FREE_MEMORY) // per_token)
    return int(min(_MAX_CUDA_TOKENS, 2 ** (fitting.bit_length() - 1)))


def token_bytes(config: PreTrainedConfig, dtype: str) -> int:
    """Bytes of the keys and values of a token in a language model's cache."""
    text = config.get_text_config(decoder=True)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    size = (
        getattr(text, "head_dim", None) or getattr(text, "d_kv", None) or text.hidden_size // text.num_attention_heads
    )
    layers = getattr(text, "num_decoder_layers", None) or text.num_hidden_layers
    caches = 2 if config.is_encoder_decoder else 1
    return int(2 * caches * layers * heads * size * torch.finfo(getattr(torch, dtype)).bits // 8)


def logit_tokens(config: PreTrainedConfig, dtype: str) -> int:
    """The memory that a row's logits take while they are filtered, in tokens of the cache."""
    return int(config.get_text_config(decoder=True).vocab_size * _BYTES_PER_LOGIT // token_bytes(config, dtype))


def settle_generation_tokens(config: PreTrainedConfig, device: str, dtype: str) -> int:
    """The tokens that a batch may have while responses are drawn (see `Generator`): a power of two.

    For two gigabytes on each core of a CPU, or half of a GPU's free memory.
    """
    room, most = _CPU_GENERATION_BYTES, _MAX_CPU_GENERATION_TOKENS
    if device != "cpu":
        room, most = int(torch.cuda.mem_get_info(device)[0] * _SHARE_OF_FREE_MEMORY), _MAX_CUDA_GENERATION_TOKENS
    fitting = max(1, room // token_bytes(config, dtype))
    return int(min(most, 2 ** (fitting.bit_length() - 1)))


def cuda_devices(device: str) -> list[torch.device]:
    """The GPUs that `cuda` or `cuda:N` stands for."""
    if ":" in device:
        return [torch.device(device)]
    return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
