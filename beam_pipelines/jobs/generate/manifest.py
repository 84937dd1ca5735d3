"""The manifest of candidates, made of their stats."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beam_pipelines.jobs.generate.generation import tokens_per_bin
from beam_pipelines.report.text import plural
from beam_pipelines.runs.card import REJECTS, Card, Part
from beam_pipelines.runs.job import count_rejects, sparse
from schemas.stats import BINS_PER_SCORE, FIXED_POINT, REAL_TOKENS, SCORE_BINS, Stats

_COLUMNS = {
    "instruction_id": ("text", "of the input, or the hash of the instruction where the input has none"),
    "dataset": ("text or null", "of the input"),
    "instruction": ("text", "of the input; what was asked may have more around it"),
    "references": ("list of texts or null", "of the input: the correct responses"),
    "response": ("text", ""),
    "generator": ("text", "the model"),
    "decoding": ("text", "how the response was drawn"),
    "sample_index": ("int32", "from 0, within the instruction and the decoding"),
    "count": ("int32 or null", "how many samples of the instruction are this text, where equal ones are merged"),
    "finish_reason": ("text or null", "`stop`: it ended by itself; `length`: it was cut; or as the API says"),
    "log_likelihood_sum": ("float32 or null", "by the model itself, over the tokens of the response and its end"),
    "log_likelihood_mean": ("float32 or null", "the same by token"),
}


def _text(manifest: Mapping[str, Any]) -> str:
    totals = manifest["totals"]
    return (
        f"{plural(totals['candidates'], 'response')} of {manifest['model']['name']} to "
        f"{plural(totals['generated'], 'instruction')}, in the order of the input, then of the decodings "
        f"({', '.join(manifest['decodings'])}). Rows load as `cappy build-corpus --candidates` and `cappy score` want "
        "them."
    )


CARD = Card(
    "Candidate responses",
    _text,
    [Part("candidates", "part-*.parquet", "the responses, several for each instruction", _COLUMNS), REJECTS],
)


@dataclass(frozen=True)
class GenerateSummary:
    """Makes a generating run's part of the manifest, for its fingerprinted facts and the name of its model."""

    facts: Mapping[str, Any]
    model: str

    def __call__(self, stats: Stats) -> dict[str, Any]:
        """Model, totals, tokens, decodings, rejects and samples; every number comes from the stats."""
        counts, drawing = stats.counts, self.facts["settings"]["drawing"]
        failed, unusable = counts["rows", "failed"], counts["rows", "unusable"]
        decodings = {each["name"]: _decoding(stats, each["name"]) for each in drawing["decodings"]}
        return {
            "model": {"name": self.model, **self.facts["model"]},
            "inputs": self.facts["files"],
            "totals": {
                "rows": counts["rows", "read"],
                "generated": counts["rows", "generated"],
                "sampled_out": counts["rows", "sampled_out"],
                "rejected": unusable + failed,
                "candidates": counts["candidates", "written"],
                "drawn": sum(decoding["candidates"] for decoding in decodings.values()),
                "distinct": counts["candidates", "distinct"],
                "empty": sum(decoding["empty"] for decoding in decodings.values()),
                "prompts_truncated": counts["prompts", "truncated"],
            },
            "tokens": {
                "real": counts[REAL_TOKENS],
                "prompt": counts["tokens", "prompt"],
                "out_of_memory": counts["tokens", "out_of_memory"],
                "this_launch": counts["launch", "tokens"],
            },
            "decodings": decodings,
            "bins": {
                "tokens_per_bin": tokens_per_bin(drawing["max_new_tokens"]),
                "likelihoods": SCORE_BINS,
                "bins_per_likelihood": BINS_PER_SCORE,
            },
            "rejects": self._rejects(stats),
            "samples": {key: [row for _, row in stats.samples.get(key, [])] for key in ("rows", "rejects")},
        }

    @staticmethod
    def _rejects(stats: Stats) -> dict[str, Any]:
        """Two shares could be too large, and the larger one counts.

        With few sampled, rows that cannot be used would outnumber the prompts, and failed prompts vanish among rows.
        """
        counts = stats.counts
        attempted = counts["rows", "failed"] + counts["rows", "generated"]
        shares = (
            (counts["rows", "failed"], attempted, "prompts"),
            (counts["rows", "unusable"], counts["rows", "read"], "rows"),
        )
        lost, attempted, of = max(shares, key=lambda share: share[0] / share[1] if share[1] else 0.0)
        return count_rejects(stats, lost=lost, attempted=attempted, of=of)


def _decoding(stats: Stats, name: str) -> dict[str, Any]:
    """What was counted of one decoding, before equal responses were merged. The mean is None without a likelihood."""
    counts = {
        key: stats.counts["decodings", name, key]
        for key in ("candidates", "distinct", "empty", "tokens", "with_likelihood")
    }
    total, number = stats.counts["decodings", name, "likelihood"], counts["with_likelihood"]
    return {
        **counts,
        "log_likelihood_mean": total / FIXED_POINT / number if number else None,
        "finish_reasons": stats.under("finish_reasons", name),
        "lengths": sparse(stats.under("lengths", name)),
        "log_likelihoods": sparse(stats.under("log_likelihoods", name)),
    }
