"""Devices, dtypes, and the token budget of a batch on a device."""

import gc

import torch
from transformers import PreTrainedConfig

from cappy_model.architectures import DECODERS
from schemas.errors import UsageError

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16", "float16")

CPU_TOKENS = 2_048
"""Token budget of a batch on a CPU core, small enough that the activations of a layer stay in its cache."""

CACHED_PER_TOKEN = 8
"""Tokens in the cache of a decoder for each token of the budget: keys and values of shared prefixes are copied."""

_MAX_CUDA_TOKENS = 65_536
_SHARE_OF_FREE_MEMORY = 0.5
# A layer's activations per token, in units of the hidden size: input, query, key, value, attention, residual, and the
# intermediate states (four times as wide) before and after their activation function.
_WIDTHS_PER_TOKEN = 16

# Parts of these are computed in float32 and multiplied with the states as they are.
_FLOAT32_ONLY = frozenset({"deberta", "fnet", "xlnet"})

_CPU_GENERATION_BYTES = 2**31
_MAX_CPU_GENERATION_TOKENS = 2**16
_MAX_CUDA_GENERATION_TOKENS = 2**20
_BYTES_PER_LOGIT = 16  # the logits, their exponentials, and the cumulative sums of some


def settle_device(device: str) -> str:
    """Return `cpu`, `cuda` (all GPUs of this machine) or `cuda:N`; `auto` is `cuda` if there is a GPU, else `cpu`.

    Raises UsageError for an unknown or missing device.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if kind_of(device) == "cpu":
        return device
    _, _, index = device.partition(":")
    if not torch.cuda.is_available() or int(index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {device} is not available: torch {torch.__version__} finds {torch.cuda.device_count()} GPUs; "
            "see `cappy doctor`, or use --device cpu"
        )
    return device


def kind_of(device: str) -> str:
    """Return the kind of a device, cpu or cuda, whether it is here or not. Raises UsageError for an unknown name."""
    name, _, index = device.partition(":")
    if device != "cpu" and (name != "cuda" or (index and not index.isdecimal())):
        raise UsageError(f"unknown device {device!r}: choose from {', '.join(DEVICES)} and cuda:N")
    return name


def settle_dtype(dtype: str, device: str, config: PreTrainedConfig | None = None) -> str:
    """Return the dtype; `auto` is bfloat16 where the device has it, else float16 on a GPU and float32 on a CPU.

    A model (`config`) whose code works in float32 alone gets float32. Raises UsageError for a name that is not in
    `DTYPES`, and for another dtype than such a model needs.
    """
    if dtype not in DTYPES:
        raise UsageError(f"unknown dtype {dtype!r}: choose from {', '.join(DTYPES)}")
    if config is not None and config.model_type in _FLOAT32_ONLY:
        if dtype not in ("auto", "float32"):
            raise UsageError(f"--dtype {dtype}: transformers computes {config.model_type} in float32 only; give that")
        return "float32"
    if dtype != "auto":
        return dtype
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    has = torch.cpu.get_capabilities()
    return "bfloat16" if has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16") else "float32"


def settle_tokens_per_batch(config: PreTrainedConfig, device: str, dtype: str) -> int:
    """Return the token budget of a batch: a constant on a CPU; on a GPU a power of two for half of its free memory.

    Call it before the model is loaded on the GPU.
    """
    if device == "cpu":
        return CPU_TOKENS
    free, _ = torch.cuda.mem_get_info(device)
    per_token = _WIDTHS_PER_TOKEN * config.hidden_size * torch.finfo(getattr(torch, dtype)).bits // 8
    if config.model_type in DECODERS:
        per_token += CACHED_PER_TOKEN * token_bytes(config, dtype)
    fitting = max(1, int(free * _SHARE_OF_FREE_MEMORY) // per_token)
    return int(min(_MAX_CUDA_TOKENS, 2 ** (fitting.bit_length() - 1)))


def token_bytes(config: PreTrainedConfig, dtype: str) -> int:
    """Return the bytes of one token's keys and values in the cache of a language model."""
    text = config.get_text_config(decoder=True)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    size = (
        getattr(text, "head_dim", None) or getattr(text, "d_kv", None) or text.hidden_size // text.num_attention_heads
    )
    layers = getattr(text, "num_decoder_layers", None) or text.num_hidden_layers
    caches = 2 if config.is_encoder_decoder else 1
    return int(2 * caches * layers * heads * size * torch.finfo(getattr(torch, dtype)).bits // 8)


def logit_tokens(config: PreTrainedConfig, dtype: str) -> int:
    """Return the memory of a row's logits while they are filtered, in tokens of the cache."""
    return int(config.get_text_config(decoder=True).vocab_size * _BYTES_PER_LOGIT // token_bytes(config, dtype))


def settle_generation_tokens(config: PreTrainedConfig, device: str, dtype: str) -> int:
    """Return the token budget of a batch in generation (see `Generator`): a power of two.

    It fills 2 GB per CPU core, or half of a GPU's free memory.
    """
    room, most = _CPU_GENERATION_BYTES, _MAX_CPU_GENERATION_TOKENS
    if device != "cpu":
        room, most = int(torch.cuda.mem_get_info(device)[0] * _SHARE_OF_FREE_MEMORY), _MAX_CUDA_GENERATION_TOKENS
    fitting = max(1, room // token_bytes(config, dtype))
    return int(min(most, 2 ** (fitting.bit_length() - 1)))


def cuda_devices(device: str) -> list[torch.device]:
    """Return the GPUs denoted by `cuda` (all) or `cuda:N`."""
    if ":" in device:
        return [torch.device(device)]
    return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]


def free_memory() -> None:
    """Give the memory of models that nothing refers to any more back to this machine and its GPUs."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
