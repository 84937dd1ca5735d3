"""Importing modules that may be missing or broken."""

import importlib
import importlib.util
import warnings
from types import ModuleType


def is_installed(module: str) -> bool:
    """Return whether a module is installed, broken or not."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def load(module: str) -> tuple[ModuleType | None, str | None]:
    """Return the module, or None and the reason why it cannot be imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module), None
    except Exception as error:  # a broken installation can raise anything
        return None, f"cannot be imported: {brief(error)}"


def brief(error: Exception) -> str:
    """Return an error on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
