"""What a worker is told of a model, so that it loads the very one that the launcher settled."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelSpec:
    """A model and how it computes; `device`, `dtype` and `tokens_per_batch` are settled.

    `storage` is JSON, for a model at an fsspec URL.
    """

    model: str
    device: str
    dtype: str
    tokens_per_batch: int
    allow_pickle: bool
    trust_remote_code: bool
    storage: str

    @property
    def settings(self) -> dict[str, Any]:
        """What a `from_pretrained` of ours is told beside the model."""
        return {
            "device": self.device,
            "dtype": self.dtype,
            "tokens_per_batch": self.tokens_per_batch,
            "allow_pickle": self.allow_pickle,
            "trust_remote_code": self.trust_remote_code,
            "storage": json.loads(self.storage),
        }
