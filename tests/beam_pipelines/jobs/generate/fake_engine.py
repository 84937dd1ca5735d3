"""An engine without a model: what it draws is a function of the prompt, the seed and the decoding."""

from collections.abc import Sequence
from typing import Any

from cappy_model.generate.decodings import Decoding, Drawing, Drawn, Failure, GenerationError, Sample
from schemas.ids import seed_for

FAILS, BREAKS = "cannot be served", "breaks the engine"
"""A prompt with one of these is a Failure, or ends everything."""


class FakeEngine:
    """Draws few words, so that some samples of a prompt are equal; a word is a token."""

    def __init__(self, drawing: Drawing) -> None:
        self.drawing = drawing
        self.prompts: list[str] = []
        self.seeds: list[int] = []
        self.memory_errors = 0

    def draw(self, prompts: Sequence[str], seeds: Sequence[int], *, on_progress: Any = None) -> list[Drawn]:
        self.prompts += prompts
        self.seeds += seeds
        return [self._drawn(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]

    def out_of_memory(self) -> int:
        return self.memory_errors

    def _drawn(self, prompt: str, seed: int) -> Drawn:
        tokens = len(prompt.split())
        if BREAKS in prompt:
            raise GenerationError("the engine is broken: call somebody")
        if FAILS in prompt:
            return Drawn((), Failure("prompt_too_long", f"{tokens} tokens"), tokens, truncated=False)
        samples = [
            self._sample(prompt, seed, decoding, index)
            for decoding in self.drawing.decodings
            for index in range(decoding.samples)
        ]
        return Drawn(tuple(samples), None, tokens, truncated=tokens > 40)

    def _sample(self, prompt: str, seed: int, decoding: Decoding, index: int) -> Sample:
        chance = seed_for(seed, prompt, decoding.name, str(index)) if decoding.random else seed_for(0, prompt)
        said = prompt.split()[chance % 5 :][: chance // 8 % 3]
        length = len(said) + 1
        mean = -(chance % 1000) / 250
        return Sample(
            decoding.name, index, " ".join(said), "stop" if chance % 3 else "length", mean * length, mean, length
        )
