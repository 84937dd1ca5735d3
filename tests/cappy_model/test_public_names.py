"""The public names of the package, and that they are imported only when they are asked for."""

import subprocess
import sys

import pytest

import cappy_model


def test_the_package_imports_neither_torch_nor_transformers() -> None:
    program = "import cappy_model, sys; print(*{'torch', 'transformers', 'numpy', 'pyarrow'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout == "\n"


def test_names_are_those_of_their_modules() -> None:
    from cappy_model import Generator, Scorer
    from cappy_model import scorer as old
    from cappy_model.generate import generator
    from cappy_model.score import scorer

    assert Scorer is scorer.Scorer and Generator is generator.Generator
    assert all(getattr(old, name) is getattr(scorer, name) for name in old.__all__)


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(AttributeError, match="module 'cappy_model' has no attribute 'Ranker'"):
        _ = cappy_model.Ranker
