"""The Generator against the plain loop: one call of transformers' `generate` for each prompt and decoding.

    python -m benchmarks.generation --model FOLDER               # for example a folder written by tools/gemma.py
    python -m benchmarks.generation --model FOLDER --device cuda --dtype bfloat16
    python -m benchmarks.generation --tiny                       # a tiny model, to test the script

Same weights, same prompts (BIG-Bench Hard instructions, their last 600 characters), the paper's 17 candidates of each.
The two take turns in one process; loading is not counted. The loop makes one call per decoding with
`num_return_sequences`, without the library's default top-k of 50, and computes no likelihoods, which the Generator
does. The responses of beam search, which is deterministic, are compared before a table is printed.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.utils import logging

from benchmarks.machine import describe, make_parser, markdown_table, ratio, timed
from cappy_model.checkpoints import ModelSource, find_checkpoint, load_generator
from cappy_model.generate.decodings import PAPER, PRESETS, Decoding, Drawing
from cappy_model.generate.generator import Generator
from cappy_model.host import usable_cores

PACKAGES = ("torch", "transformers")
_PROMPT_CHARACTERS = 600


@dataclass
class Responses:
    """Number of generated tokens, and the responses of beam search, one per prompt."""

    tokens: int = 0
    beams: list[str] = field(default_factory=list)


class PlainLoop:
    """A loop over prompts and decodings with one call of `generate` for each."""

    def __init__(self, folder: str, drawing: Drawing, *, device: str, dtype: str) -> None:
        model, self._tokenizer = load_generator(find_checkpoint(ModelSource(folder)), getattr(torch, dtype))
        self._model: Any = model.to(device)  # type: ignore[arg-type]
        ends = self._model.generation_config.eos_token_id
        self._drawing, self._ends = drawing, ends if isinstance(ends, list) else [ends]

    def run(self, prompts: Sequence[str]) -> Responses:
        """Generate all candidates once."""
        responses = Responses()
        for prompt in prompts:
            inputs = self._tokenizer([prompt], return_tensors="pt").to(self._model.device)
            for decoding in self._drawing.decodings:
                self._generate(inputs, decoding, responses)
        return responses

    def _generate(self, inputs: Any, decoding: Decoding, responses: Responses) -> None:
        sampling: dict[str, Any] = {"num_beams": decoding.beams, "do_sample": False}
        if decoding.random:
            filters = {"top_k": decoding.top_k or 0, "top_p": decoding.top_p or 1.0}
            sampling = {"do_sample": True, "temperature": decoding.temperature, **filters}
        config = GenerationConfig(
            num_return_sequences=decoding.samples,
            max_new_tokens=self._drawing.max_new_tokens,
            min_new_tokens=self._drawing.min_new_tokens,
            **sampling,
        )
        sequences = self._model.generate(**inputs, generation_config=config)
        first = 1 if self._model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        for row in sequences[:, first:].tolist():
            responses.tokens += next((place + 1 for place, token in enumerate(row) if token in self._ends), len(row))
        texts = self._tokenizer.batch_decode(sequences[:, first:], skip_special_tokens=True)
        responses.beams += [text.strip() for text in texts] if decoding.beams > 1 else []


def generate(generator: Generator, prompts: Sequence[str]) -> Responses:
    """Generate all candidates once with the Generator."""
    drawn = generator.draw(prompts, list(range(len(prompts))))
    samples = [sample for each in drawn for sample in each.samples]
    beams = [sample.response for sample in samples if sample.decoding == "beam4"]
    return Responses(sum(sample.num_tokens for sample in samples), beams)


def busy(generator: Generator, prompts: Sequence[str]) -> float:
    """Return the share of time in which a kernel of the GPU runs."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        seconds, _ = timed(lambda: generate(generator, prompts))
    return sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6 / seconds


def real_prompts(shared: Path, count: int) -> list[str]:
    """Return the ends of instructions of BIG-Bench Hard, which contain the question."""
    files = sorted((shared / "data" / "sources" / "bbh").glob("*.jsonl"))
    texts = [json.loads(line)["instruction"] for file in files for line in file.read_text().splitlines()]
    if not texts:
        raise SystemExit(f"{shared}: has no data/sources/bbh/*.jsonl; give another folder with --shared")
    return [text[-_PROMPT_CHARACTERS:] for text in texts[:: max(1, len(texts) // count)][:count]]


def compare(arguments: argparse.Namespace, prompts: list[str]) -> None:
    """Run both in turns and print the table."""
    drawing = Drawing(tuple(PRESETS[name] for name in PAPER), max_new_tokens=arguments.max_new_tokens)
    placing = {"device": arguments.device, "dtype": arguments.dtype}
    loop = PlainLoop(arguments.model, drawing, **placing)
    tokens = arguments.tokens_per_batch
    generator = Generator.from_pretrained(arguments.model, drawing, tokens_per_batch=tokens, **placing)
    prompts = [prompt[-40:] if arguments.tiny else prompt for prompt in prompts]  # tiny models have few positions
    print(f"{describe(*PACKAGES)} {len(prompts)} prompts, 17 candidates each, {generator.config.model_type}.")
    turns = []
    for turn in range(arguments.repeat):
        torch.set_num_threads(usable_cores())
        turns.append((timed(lambda: loop.run(prompts)), timed(lambda: generate(generator, prompts))))
        print(f"repeat {turn + 1}: {turns[-1][0][0]:.1f} s, {turns[-1][1][0]:.1f} s", file=sys.stderr)
    peer, ours = (responses for _, responses in turns[-1])
    same = sum(a == b for a, b in zip(peer.beams, ours.beams, strict=True))
    print(f"\nBeam search gives the same response to {same} of {len(prompts)} prompts.\n")
    peer_seconds, our_seconds = (statistics.median(run[0] for run in runs) for runs in zip(*turns, strict=True))
    results = {"generate, prompt by prompt": (peer, peer_seconds), "Generator": (ours, our_seconds)}
    rows = [
        {
            "": title,
            "tokens": f"{responses.tokens:,}",
            "seconds": f"{seconds:,.1f}",
            "tokens/s": f"{responses.tokens / seconds:,.0f}",
            "ratio": ratio(responses.tokens / seconds, peer.tokens / peer_seconds),
        }
        for title, (responses, seconds) in results.items()
    ]
    print(markdown_table(rows))
    if arguments.device != "cpu":
        print(f"\nThe device is busy for {busy(generator, prompts):.0%} of the Generator's time (profiled).")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = make_parser(__doc__, repeat=3, shared=True)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", help="folder of a language model")
    which.add_argument("--tiny", action="store_true", help="a tiny model, on the CPU")
    parser.add_argument("--prompts", type=int, default=8, metavar="N", help="(default: 8)")
    parser.add_argument("--max-new-tokens", type=int, default=64, metavar="N", help="(default: 64)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tokens-per-batch", type=int, metavar="N", help="(default: by the device)")
    arguments = parser.parse_args(argv)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with TemporaryDirectory() as folder:
        if arguments.tiny:
            from tests.cappy_model.models import save_tiny_generator

            arguments.model = str(save_tiny_generator(Path(folder)))
        compare(arguments, real_prompts(arguments.shared, arguments.prompts))


if __name__ == "__main__":
    main()
