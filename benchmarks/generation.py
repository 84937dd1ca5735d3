"""The Generator against the plain loop: one call of transformers' `generate` for each prompt and decoding.

    python -m benchmarks.generation --model FOLDER               # a folder that tools/gemma.py wrote, say
    python -m benchmarks.generation --model FOLDER --device cuda --dtype bfloat16
    python -m benchmarks.generation --tiny                       # a tiny model: proves the script, no more

Same weights, same prompts (BIG-Bench Hard instructions, their last 600 characters), the paper's 17 candidates of each.
The two take turns in one process; loading is not counted. The loop is the obvious one: `num_return_sequences` samples a
call, the library's top-k of 50 off, and no likelihoods, which the Generator gives as well. The responses of the beam
search, which need no random numbers, are compared before a table is printed.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.utils import logging

from benchmarks.machine import ROOT, describe, markdown_table, ratio
from cappy_model.checkpoints import Source, find_checkpoint, load_generator
from cappy_model.generate.decodings import PAPER, PRESETS, Decoding, Drawing
from cappy_model.generate.generator import Generator
from cappy_model.host import usable_cores

PACKAGES = ("torch", "transformers")
_PROMPT_CHARACTERS = 600
_ACTIVITIES = torch.profiler.ProfilerActivity


@dataclass
class Timing:
    """Seconds of each turn, generated tokens, and the response of the beam search to each prompt."""

    seconds: list[float] = field(default_factory=list)
    tokens: int = 0
    beams: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Generated tokens per second, of the median turn."""
        return self.tokens / statistics.median(self.seconds)


class PlainLoop:
    """One prompt and one decoding at a time."""

    def __init__(self, folder: str, drawing: Drawing, device: str, dtype: str) -> None:
        model, self._tokenizer = load_generator(find_checkpoint(Source(folder)), getattr(torch, dtype))
        self._model: Any = model.to(device)  # type: ignore[arg-type]
        self._drawing, self._ends = drawing, self._model.generation_config.eos_token_id

    def run(self, prompts: Sequence[str], timing: Timing) -> None:
        """Generates everything once."""
        timing.tokens, timing.beams = 0, []
        started = time.perf_counter()
        for prompt in prompts:
            inputs = self._tokenizer([prompt], return_tensors="pt").to(self._model.device)
            for decoding in self._drawing.decodings:
                self._generate(inputs, decoding, timing)
        timing.seconds.append(time.perf_counter() - started)

    def _generate(self, inputs: Any, decoding: Decoding, timing: Timing) -> None:
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
        found = self._model.generate(**inputs, generation_config=config)
        first = 1 if self._model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        for row in found[:, first:].tolist():
            ends = self._ends if isinstance(self._ends, list) else [self._ends]
            timing.tokens += next((place + 1 for place, token in enumerate(row) if token in ends), len(row))
        texts = self._tokenizer.batch_decode(found[:, first:], skip_special_tokens=True)
        timing.beams += [text.strip() for text in texts] if decoding.beams > 1 else []


def ours(generator: Generator, prompts: Sequence[str], timing: Timing) -> None:
    """Generates everything once."""
    started = time.perf_counter()
    found = generator.draw(prompts, list(range(len(prompts))))
    timing.seconds.append(time.perf_counter() - started)
    samples = [sample for drawn in found for sample in drawn.samples]
    timing.tokens = sum(sample.num_tokens for sample in samples)
    timing.beams = [sample.response for sample in samples if sample.decoding == "beam4"]


def busy(generator: Generator, prompts: Sequence[str]) -> float:
    """The share of the time in which a kernel of the GPU runs."""
    with torch.profiler.profile(activities=[_ACTIVITIES.CUDA]) as profiler:
        started = time.perf_counter()
        ours(generator, prompts, Timing())
        seconds = time.perf_counter() - started
    return sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6 / seconds


def real_prompts(shared: Path, count: int) -> list[str]:
    """Instructions of BIG-Bench Hard, cut to so many characters that their question stays."""
    files = sorted((shared / "data" / "sources" / "bbh").glob("*.jsonl"))
    texts = [json.loads(line)["instruction"] for file in files for line in file.read_text().splitlines()]
    if not texts:
        raise SystemExit(f"{shared}: has no data/sources/bbh/*.jsonl; --shared names another folder")
    return [text[-_PROMPT_CHARACTERS:] for text in texts[:: max(1, len(texts) // count)][:count]]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", help="folder of a language model")
    which.add_argument("--tiny", action="store_true", help="a tiny model, on the CPU")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder of real data (../shared)")
    parser.add_argument("--prompts", type=int, default=8, metavar="N", help="(default: 8)")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="(default: 3)")
    parser.add_argument("--max-new-tokens", type=int, default=64, metavar="N", help="(default: 64)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tokens-per-batch", type=int, metavar="N", help="(default: by the device)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    arguments = _parser().parse_args(argv)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with TemporaryDirectory() as folder:
        if arguments.tiny:
            from tests.cappy_model.models import save_tiny_generator

            arguments.model = str(save_tiny_generator(Path(folder)))
        compare(arguments, real_prompts(arguments.shared, arguments.prompts))


def compare(arguments: argparse.Namespace, prompts: list[str]) -> None:
    """Lets the two take turns, and prints the table."""
    drawing = Drawing(tuple(PRESETS[name] for name in PAPER), max_new_tokens=arguments.max_new_tokens)
    loop = PlainLoop(arguments.model, drawing, arguments.device, arguments.dtype)
    settings = {"device": arguments.device, "dtype": arguments.dtype, "tokens_per_batch": arguments.tokens_per_batch}
    generator = Generator.from_pretrained(arguments.model, drawing, **settings)
    prompts = [prompt[-40:] if arguments.tiny else prompt for prompt in prompts]  # of few positions
    print(f"{describe(*PACKAGES)} {len(prompts)} prompts, 17 candidates each, {generator.config.model_type}.")
    timings = {"generate, prompt by prompt": Timing(), "Generator": Timing()}
    peer, mine = timings.values()
    for turn in range(arguments.repeat):
        torch.set_num_threads(usable_cores())
        loop.run(prompts, peer)
        ours(generator, prompts, mine)
        print(f"repeat {turn + 1}: {peer.seconds[-1]:.1f} s, {mine.seconds[-1]:.1f} s", file=sys.stderr)
    same = sum(a == b for a, b in zip(peer.beams, mine.beams, strict=True))
    print(f"\nThe beam search gives the same response to {same} of {len(prompts)} prompts.\n")
    rows = [
        [
            words,
            f"{one.tokens:,}",
            f"{statistics.median(one.seconds):,.1f}",
            f"{one.rate:,.0f}",
            ratio(one.rate, peer.rate),
        ]
        for words, one in timings.items()
    ]
    print(markdown_table(["", "tokens", "seconds", "tokens/s", "ratio"], rows))
    if arguments.device != "cpu":
        print(f"\nThe device is busy for {busy(generator, prompts):.0%} of the Generator's time (profiled).")


if __name__ == "__main__":
    main()
