"""The model spec sent to workers, so that each loads the model as the launcher settled it."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelSpec:
    """A model and how it computes. `storage` holds the options of fsspec as JSON, for a model at a URL."""

    model: str
    device: str
    dtype: str
    tokens_per_batch: int
    allow_pickle: bool
    trust_remote_code: bool
    storage: str

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of `from_pretrained` beside the model."""
        return {
            "device": self.device,
            "dtype": self.dtype,
            "tokens_per_batch": self.tokens_per_batch,
            "allow_pickle": self.allow_pickle,
            "trust_remote_code": self.trust_remote_code,
            "storage": json.loads(self.storage),
        }

    @property
    def fingerprint_inputs(self) -> dict[str, Any]:
        """The part of the fingerprint that says how the model computes."""
        return {"device": self.device, "dtype": self.dtype, "tokens_per_batch": self.tokens_per_batch}
