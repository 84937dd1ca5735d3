"""The generator: responses of a local language model to prompts, with the model's log-likelihood of each."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from cappy_model.checkpoints import ModelSource, find_checkpoint, load_generator
from cappy_model.devices import logit_tokens, settle_device, settle_dtype, settle_generation_tokens
from cappy_model.generate.decodings import Drawing, Drawn, Failure, Sample
from cappy_model.generate.prompt_progress import PromptProgress
from cappy_model.generate.prompts import EncodedPrompt, padded, prompt_encoder
from cappy_model.generate.rollout import Rolled, Rows, likelihoods_of, prefix_cache, roll_out, special_tokens
from cappy_model.generate.sampling import uniforms
from cappy_model.lanes import Lane, Lanes
from cappy_model.score.batching import token_batches
from cappy_model.work import ProgressCallback


@dataclass
class _Draft:
    """The samples of a prompt so far, by decoding number and sample index."""

    samples: dict[tuple[int, int], Sample] = field(default_factory=dict)
    failure: Failure | None = None


class _Batch(NamedTuple):
    """Prompts, by position, and the decodings generated together: all without beams, or one with beams."""

    prompts: np.ndarray
    ids: list[np.ndarray]
    seeds: list[int]
    decodings: tuple[int, ...]


class Generator:
    """A loaded language model, decoder-only or encoder-decoder; thread-safe. Load it with `from_pretrained`.

    The cost of a batch is its rows (one for each sample or beam) times the tokens of the longest prompt and response
    and of the logits, in tokens of the cache. It is at most `tokens_per_batch`, except for a single prompt.

    A sample depends on prompt, seed, decoding and index alone, up to rounding errors that differ with the batch. Of the
    model's own generation settings only the special tokens are used, forced ones included: a decoding has exactly the
    filters it names.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        drawing: Drawing,
        *,
        device: str,
        tokens_per_batch: int,
    ) -> None:
        self.config = model.config
        self.drawing, self.device, self.dtype = drawing, device, str(model.dtype).removeprefix("torch.")
        self.tokens_per_batch = tokens_per_batch
        self._extra_tokens = drawing.max_new_tokens + logit_tokens(self.config, self.dtype)
        self._tokenizer = tokenizer
        self._special = special_tokens(model, tokenizer)
        model.generation_config = GenerationConfig()
        self._prompts = prompt_encoder(tokenizer, self.config, drawing)
        self.max_prompt_tokens, self.truncation_side = self._prompts.max_tokens, self._prompts.side
        together = tuple(place for place, one in enumerate(drawing.decodings) if one.beams == 1)
        beams = [(place,) for place, one in enumerate(drawing.decodings) if one.beams > 1]
        self._groups = [group for group in (together, *beams) if group]
        self._lanes = Lanes(model, device)
        self._out_of_memory = 0

    @classmethod
    def from_pretrained(
        cls,
        id_or_path: str,
        drawing: Drawing,
        *,
        device: str = "auto",
        dtype: str = "auto",
        tokens_per_batch: int | None = None,
        allow_pickle: bool = False,
        trust_remote_code: bool = False,
        storage: Mapping[str, Any] | None = None,
    ) -> "Generator":
        """Load a language model from a folder, an fsspec URL, or a hub id (`name/model[@revision]`).

        `tokens_per_batch`: token budget of a batch (see the class); None: chosen for the device. The other arguments
        are those of `Scorer.from_pretrained`. Raises ModelError for a model that cannot be loaded or does not generate,
        UsageError for a device or dtype that is unknown or not available.
        """
        source = ModelSource(id_or_path, allow_pickle, trust_remote_code, storage or {})
        settled = settle_device(device)
        kind = settle_dtype(dtype, settled)
        model, tokenizer = load_generator(find_checkpoint(source), getattr(torch, kind))
        tokens = tokens_per_batch or settle_generation_tokens(model.config, settled, kind)
        return cls(model, tokenizer, drawing, device=settled, tokens_per_batch=tokens)

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], *, on_progress: ProgressCallback | None = None
    ) -> list[Drawn]:
        """Generate the responses to each prompt, in order; `seeds` are 64-bit, one for each prompt.

        `on_progress` is called after each token of a batch, with parts of prompts. A prompt without tokens, one that
        the chat template refuses, or one that does not fit into memory has a Failure. Raises GenerationError for a
        model that returns NaN.
        """
        encoded = self._prompts.encode(prompts)
        drafts = [_Draft() for _ in prompts]
        for draft, prompt in zip(drafts, encoded, strict=True):
            if prompt.error is not None:
                draft.failure = Failure("refused_prompt", prompt.error)
            elif not len(prompt.ids):
                draft.failure = Failure("empty_prompt", "the prompt has no tokens")
        progress = (
            None if on_progress is None else PromptProgress(len(prompts), self._groups, self._weight, on_progress)
        )
        compute = partial(self._compute, progress=progress)
        for outcome in self._lanes.run(self._batches(encoded, seeds), compute, self._halve):
            self._out_of_memory += outcome.out_of_memory
            for batch, rows in outcome.done:
                self._keep(batch, rows, drafts)
            for batch in outcome.unfit:
                detail = f"{len(batch.ids[0])} tokens with {self._weight(batch.decodings)} responses at once"
                drafts[batch.prompts[0]].failure = Failure("out_of_memory", f"{detail} do not fit on {self.device}")
        return [_drawn(draft, prompt) for draft, prompt in zip(drafts, encoded, strict=True)]

    def out_of_memory(self) -> int:
        """Return the number of out-of-memory errors so far; each has halved a batch."""
        return self._out_of_memory

    def _weight(self, decodings: Sequence[int]) -> int:
        """Return the rows of a prompt in a batch of these decodings."""
        return sum(max(one.samples, one.beams) for one in (self.drawing.decodings[place] for place in decodings))

    def _batches(self, prompts: list[EncodedPrompt], seeds: Sequence[int]) -> Iterator[_Batch]:
        valid = np.array([place for place, prompt in enumerate(prompts) if len(prompt.ids)], dtype=np.int64)
        lengths = np.array([len(prompts[place].ids) + self._extra_tokens for place in valid], dtype=np.int64)
        for group in self._groups:
            for batch in token_batches(lengths, self.tokens_per_batch // self._weight(group), padded=True):
                places = valid[batch]
                yield _Batch(places, [prompts[p].ids for p in places], [seeds[p] for p in places], group)

    def _halve(self, batch: _Batch) -> tuple[_Batch, ...]:
        """Split a batch that does not fit, and lower the batch budget; () for a single prompt."""
        count = len(batch.prompts)
        if count == 1:
            return ()
        size = (max(map(len, batch.ids)) + self._extra_tokens) * count * self._weight(batch.decodings)
        self.tokens_per_batch = min(self.tokens_per_batch, size // 2)
        parts = (slice(None, count // 2), slice(count // 2, None))
        return tuple(_Batch(batch.prompts[part], batch.ids[part], batch.seeds[part], batch.decodings) for part in parts)

    def _compute(
        self, lane: Lane, batch: _Batch, progress: PromptProgress | None
    ) -> list[tuple[int, int, int, Rolled]]:
        """Return (position of the prompt, decoding number, sample index, response) of each row."""

        def on_step(tokens: int) -> None:
            if progress is not None:
                progress.update(batch.prompts, batch.decodings, tokens / self.drawing.max_new_tokens)

        with lane.lock:
            prompts = padded(batch.ids, self._special.pad, left=not self.config.is_encoder_decoder)
            on_device = (prompts[0].to(lane.device), prompts[1].to(lane.device))
            decoding = self.drawing.decodings[batch.decodings[0]]
            if decoding.beams > 1:
                responses = self._beam_search(lane.model, on_device, decoding.beams, on_step)
                keys = [(int(prompt), batch.decodings[0], 0) for prompt in batch.prompts]
            else:
                rows, keys = self._rows(batch)
                responses = self._roll_out(lane.model, on_device, rows, on_step)
            on_step(self.drawing.max_new_tokens)
        return [(*key, rolled) for key, rolled in zip(keys, responses, strict=True)]

    def _rows(self, batch: _Batch) -> tuple[Rows, list[tuple[int, int, int]]]:
        """Return one row for each sample, grouped by decoding, and the key of each row."""
        prompts, decodings, numbers, keys = [], [], [], []
        for place in batch.decodings:
            decoding = self.drawing.decodings[place]
            for row, (prompt, seed) in enumerate(zip(batch.prompts.tolist(), batch.seeds, strict=True)):
                for index in range(decoding.samples):
                    prompts.append(row)
                    decodings.append(place)
                    numbers.append(uniforms(seed, decoding, index, self.drawing.max_new_tokens))
                    keys.append((prompt, place, index))
        return Rows(np.array(prompts), np.array(decodings), np.stack(numbers)), keys

    def _roll_out(
        self,
        model: PreTrainedModel,
        prompts: tuple[torch.Tensor, torch.Tensor],
        rows: Rows,
        on_step: Callable[[int], None],
    ) -> list[Rolled]:
        return roll_out(
            model,
            prompts,
            rows,
            self.drawing.decodings,
            self._special,
            min_new_tokens=self.drawing.min_new_tokens,
            stopped=self._stopped if self.drawing.stop else None,
            on_step=on_step,
        )

    def _stopped(self, tokens: np.ndarray) -> np.ndarray:
        texts = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return np.array([any(stop in text for stop in self.drawing.stop) for text in texts])

    def _beam_search(
        self,
        model: Any,
        prompts: tuple[torch.Tensor, torch.Tensor],
        beams: int,
        on_step: Callable[[int], None],
    ) -> list[Rolled]:
        """Run transformers' beam search, and return the best hypothesis of each prompt with its likelihoods."""
        special, drawing = self._special, self.drawing
        config = GenerationConfig(
            num_beams=beams,
            do_sample=False,
            max_new_tokens=drawing.max_new_tokens,
            min_new_tokens=drawing.min_new_tokens,
            pad_token_id=special.pad,
            eos_token_id=list(special.ends) or None,
            decoder_start_token_id=special.start,
            forced_bos_token_id=special.first,
            forced_eos_token_id=special.last,
        )
        ids, mask = prompts
        first = 1 if self.config.is_encoder_decoder else ids.shape[1]

        def stopped(tokens: torch.Tensor, scores: object, **unused: object) -> torch.Tensor:
            on_step(tokens.shape[1] - first)
            if not drawing.stop:
                return torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
            return torch.from_numpy(self._stopped(tokens[:, first:].cpu().numpy())).to(tokens.device)

        prefix = prefix_cache(model, prompts)
        cache = copy.deepcopy(prefix)
        if cache is not None:
            cache.batch_repeat_interleave(beams)
        hypotheses = model.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            generation_config=config,
            stopping_criteria=[stopped],
        )
        responses = [self._ended(row) for row in hypotheses[:, first:].cpu().numpy()]
        likelihoods = likelihoods_of(model, prompts, responses, special.start, prefix)
        return [Rolled(*both) for both in zip(responses, likelihoods, strict=True)]

    def _ended(self, tokens: np.ndarray) -> np.ndarray:
        """Cut the tokens of a response after its end token, or after the token that completes a stop text."""
        ends = np.flatnonzero(np.isin(tokens, self._special.ends))
        tokens = tokens[: ends[0] + 1] if len(ends) else tokens
        for length in range(1, len(tokens)):
            if self.drawing.stop and self._stopped(tokens[None, :length])[0]:
                return tokens[:length]
        return tokens

    def _keep(self, batch: _Batch, rows: list[tuple[int, int, int, Rolled]], drafts: list[_Draft]) -> None:
        texts = self._tokenizer.batch_decode([rolled.tokens.tolist() for *_, rolled in rows], skip_special_tokens=True)
        for (prompt, place, index, rolled), text in zip(rows, texts, strict=True):
            drafts[prompt].samples[place, index] = self._sample(place, index, rolled, text)

    def _sample(self, place: int, index: int, rolled: Rolled, text: str) -> Sample:
        count, drawing = len(rolled.tokens), self.drawing
        cuts = [text.index(stop) for stop in drawing.stop if stop in text]
        by_itself = int(rolled.tokens[-1]) in self._special.ends
        forced = self._special.last is not None and count == drawing.max_new_tokens
        total = float(rolled.log_likelihoods.sum(dtype=np.float64))
        return Sample(
            decoding=drawing.decodings[place].name,
            sample_index=index,
            response=text[: min(cuts, default=None)].strip(),
            finish_reason="stop" if cuts or (by_itself and not forced) else "length",
            log_likelihood_sum=total,
            log_likelihood_mean=total / count,
            num_tokens=count,
        )


def _drawn(draft: _Draft, prompt: EncodedPrompt) -> Drawn:
    samples = () if draft.failure else tuple(draft.samples[key] for key in sorted(draft.samples))
    return Drawn(samples, draft.failure, len(prompt.ids), prompt.truncated)
