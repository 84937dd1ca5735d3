"""Models without Apache Beam: scoring, generation, training and metrics.

`Scorer` and `Generator` import torch and transformers, so they are loaded when they are first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cappy_model.generate.generator import Generator
    from cappy_model.score.scorer import Scorer

__all__ = ["Generator", "Scorer"]

_MODULES = {"Generator": "cappy_model.generate.generator", "Scorer": "cappy_model.score.scorer"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
