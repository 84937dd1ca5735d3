"""The manifest of candidates, and their dataset card."""

from collections.abc import Mapping
from typing import Any

from beam_pipelines.jobs.generate.config import OPENAI
from beam_pipelines.jobs.generate.empty import failure_of, warning_of
from beam_pipelines.jobs.generate.generation import tokens_per_bin
from beam_pipelines.report.text import plural
from beam_pipelines.runs.card import REJECTS, Card, Part
from beam_pipelines.runs.manifest import count_rejects, samples, sparse
from schemas.stats import BINS_PER_SCORE, FIXED_POINT, REAL_TOKENS, SCORE_BINS, Stats

_SEVERAL = 2  # instructions; the samples of a single one may well be equal

_COLUMNS = {
    "instruction_id": ("text", "of the input, or the hash of the instruction where the input has none"),
    "dataset": ("text or null", "of the input"),
    "instruction": ("text", "of the input; the prompt may have more around it"),
    "references": ("list of texts or null", "of the input: the correct responses"),
    "response": ("text", ""),
    "generator": ("text", "the model"),
    "decoding": ("text", "how the response was sampled"),
    "sample_index": ("int32", "from 0, within the instruction and the decoding"),
    "count": ("int32 or null", "how many samples have this text, where equal ones are merged"),
    "finish_reason": ("text or null", "`stop`: ended by itself; `length`: cut; or as the API reports"),
    "log_likelihood_sum": ("float32 or null", "the model's own, over the tokens of the response and its end token"),
    "log_likelihood_mean": ("float32 or null", "the same per token"),
}


def _text(manifest: Mapping[str, Any]) -> str:
    totals = manifest["totals"]
    return (
        f"{plural(totals['candidates'], 'response')} of {manifest['model']['name']} to "
        f"{plural(totals['generated'], 'instruction')}, in the order of the input, then of the decodings "
        f"({', '.join(manifest['decodings'])}). Rows load in `cappy build-corpus --candidates` and in "
        "`cappy score`."
    )


CARD = Card(
    "Candidate responses",
    _text,
    [Part("candidates", "candidates/part-*.parquet", "the responses, several for each instruction", _COLUMNS), REJECTS],
)


def generate_manifest(stats: Stats, *, hashed: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Return the manifest's part of a generate run, from its statistics and its fingerprint inputs `hashed`.

    It has the key `failure`, with the reason, if all responses are empty.
    """
    counts, drawing = stats.counts, hashed["settings"]["drawing"]
    decodings = {each["name"]: _decoding(stats, each["name"]) for each in drawing["decodings"]}
    drawn, empty = (sum(each[key] for each in decodings.values()) for key in ("candidates", "empty"))
    failure = failure_of(empty, drawn, stats.under("empty"))
    return {
        **({"failure": failure} if failure else {}),
        "model": {"name": model, **hashed["model"]},
        "inputs": hashed["files"],
        "totals": {
            "rows": counts["rows", "read"],
            "generated": counts["rows", "generated"],
            "sampled_out": counts["rows", "sampled_out"],
            "rejected": counts["rows", "unusable"] + counts["rows", "failed"],
            "candidates": counts["candidates", "written"],
            "drawn": drawn,
            "distinct": counts["candidates", "distinct"],
            "empty": empty,
            "prompts_truncated": counts["prompts", "truncated"],
        },
        "empty": stats.under("empty"),
        "concessions": stats.under("concessions"),
        "warnings": [] if failure else _warnings(stats, decodings, hashed["settings"]),
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
        "rejects": _rejects(stats),
        "samples": samples(stats, "rows", "rejects"),
    }


def _warnings(stats: Stats, decodings: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with many responses, or with what a server answers."""
    drawn, empty = (sum(each[key] for each in decodings.values()) for key in ("candidates", "empty"))
    warnings = [warning_of(empty, drawn, stats.under("empty"))]
    for part, count in stats.under("beside").items():
        warnings.append(f"{plural(count, 'message')} held {part} beside the text; only the text is kept")
    thinking = stats.counts["candidates", "thinking"]
    if thinking:
        hold = f"{plural(thinking, 'response')} of {drawn:,} hold{'s' if thinking == 1 else ''}"
        warnings.append(
            f"{hold} reasoning (</think>); turn the model's thinking off, or let the server separate it (vLLM: "
            "--reasoning-parser)"
        )
    if settings.get("engine") == OPENAI:
        warnings += [_alike(decodings[each["name"]], each) for each in settings["drawing"]["decodings"]]
    return [warning for warning in warnings if warning]


def _alike(found: Mapping[str, Any], decoding: Mapping[str, Any]) -> str | None:
    """Return a warning if the samples of every instruction are equal, though they are random."""
    instructions = found["candidates"] // decoding["samples"]
    if decoding["samples"] == 1 or instructions < _SEVERAL or found["distinct"] > instructions:
        return None
    if found["empty"] == found["candidates"]:
        return None
    return (
        f"the {decoding['samples']} samples of decoding {decoding['name']!r} are equal for each of "
        f"{plural(instructions, 'instruction')}: the server seems to ignore temperature and seed, or to repeat cached "
        "answers"
    )


def _rejects(stats: Stats) -> dict[str, Any]:
    """Return the counts of rejects; the rate is the larger of two, that of failed prompts and that of unusable rows.

    In one rate over both, failed prompts would vanish among rows if few of these are sampled.
    """
    counts = stats.counts
    prompts = counts["rows", "failed"] + counts["rows", "generated"]
    shares = (
        (counts["rows", "failed"], prompts, "prompts"),
        (counts["rows", "unusable"], counts["rows", "read"], "rows"),
    )
    lost, attempted, of = max(shares, key=lambda share: share[0] / share[1] if share[1] else 0.0)
    return count_rejects(stats, lost=lost, attempted=attempted, of=of)


def _decoding(stats: Stats, name: str) -> dict[str, Any]:
    """Return the counts of a decoding before equal responses are merged; the mean is None without a likelihood."""
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
