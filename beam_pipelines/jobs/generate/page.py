"""The page of a generate run."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from beam_pipelines.jobs.generate.empty import in_words, warning_of
from beam_pipelines.report import tables, text
from beam_pipelines.report.frame import Column, KeyFigure, Page, Row, Table, count
from beam_pipelines.report.plots import MOST_ROWS, Bar, Histogram, histogram_rows, stacked_bars, sum_parts
from cappy_model.generate.decodings import CONCESSIONS

_FINISHED = {
    "accent": "stopped by itself",
    "mismatch": "reached the token limit",
    "reject": "other",
    "quiet": "unknown",
}
"""Finish reasons in words, by the colour of their bars."""
_COLOURS = {"stop": "accent", "length": "mismatch", "untold": "quiet"}


def page(manifest: Mapping[str, Any]) -> Page:
    """Return the page for the manifest of a generate run."""
    totals, decodings = manifest["totals"], manifest["decodings"]
    shown = dict(list(decodings.items())[:MOST_ROWS])
    candidates, instructions = totals["candidates"], totals["generated"]
    return Page(
        title="generate",
        headline=f"{text.plural(candidates, 'candidate')} for {text.plural(instructions, 'instruction')}",
        lead=_lead(manifest),
        figures=_figures(manifest),
        content={
            **tables.content(manifest),
            "model": list(text.flatten(manifest["model"])),
            "not_shown": len(decodings) - len(shown),
            "finished": _finished(shown),
            "endings": _endings(decodings),
            "decodings": _decodings(decodings),
            "lengths": _lengths(shown, manifest["bins"]["tokens_per_bin"]),
            "likelihoods": _likelihoods(shown, manifest["bins"]),
            "accounting": tables.accounting(
                "Rows read",
                totals["rows"],
                **{"generated for": instructions},
                sampled_out=totals["sampled_out"],
                rejected=totals["rejected"],
            ),
        },
    )


def _lead(manifest: Mapping[str, Any]) -> str:
    totals, sentences = manifest["totals"], []
    if totals["drawn"]:
        share = text.share(totals["distinct"], totals["drawn"])
        sentences.append(f"{share} of the responses are distinct within their instruction.")
    warnings = manifest.get("warnings", ())  # earlier versions had none
    reasons = manifest.get("empty", {})
    if totals["empty"] and not (warnings and warning_of(totals["empty"], totals["drawn"], reasons)):
        share = text.share(totals["empty"], totals["drawn"])
        why = f": {in_words(reasons)}" if reasons else ""
        sentences.append(f"{text.plural(totals['empty'], 'response')} ({share}) {_be(totals['empty'])} empty{why}.")
    sentences += [f"Warning: {warning}." for warning in warnings]
    sentences += [f"{_capital(CONCESSIONS[name])}." for name in manifest.get("concessions", ())]
    if totals["prompts_truncated"]:
        prompts = text.plural(totals["prompts_truncated"], "prompt")
        sentences.append(f"{prompts} {_be(totals['prompts_truncated'])} truncated.")
    sentences += tables.halved_in_words(manifest["tokens"], "may change responses")
    return " ".join([*sentences, tables.rejected_in_words(manifest)])


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _be(number: int) -> str:
    return "was" if number == 1 else "were"


def _figures(manifest: Mapping[str, Any]) -> list[KeyFigure]:
    totals, prompt = manifest["totals"], manifest["tokens"]["prompt"]
    each = f"{totals['drawn'] / totals['generated']:.3g} sampled per instruction" if totals["generated"] else ""
    return [
        count(totals["generated"], "instruction", f"of {text.plural(totals['rows'], 'row')}"),
        count(totals["candidates"], "candidate", each),
        *tables.throughput(manifest, f"for {text.compact(prompt)} prompt tokens" if prompt else "of responses"),
        *tables.last_figures(manifest),
    ]


def _parts(decoding: Mapping[str, Any]) -> dict[str, int]:
    """Return the candidates of a decoding by the colour of their finish reason."""
    found = sum_parts({_COLOURS.get(reason, "reject"): n} for reason, n in decoding["finish_reasons"].items())
    return {colour: found[colour] for colour in _FINISHED if colour in found}


def _finished(decodings: Mapping[str, Any]) -> Markup | None:
    bars = [Bar(name, parts) for name, decoding in decodings.items() if (parts := _parts(decoding))]
    title = "Candidates by decoding and finish reason"
    return stacked_bars(bars, title=title, axis="candidates", meanings=_FINISHED) if bars else None


def _endings(decodings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the legend of finish reasons, each colour with its meaning and its share of all samples."""
    total = sum_parts(_parts(decoding) for decoding in decodings.values())
    whole = sum(total.values())
    return [
        (colour, f"{_FINISHED[colour]} {text.share(total[colour], whole)}") for colour in _FINISHED if colour in total
    ]


def _decodings(decodings: Mapping[str, Any]) -> Table:
    counts = ("candidates", "distinct", "empty", "tokens")
    columns = [
        Column("Decoding", "text"),
        *(Column(name.capitalize()) for name in counts),
        Column("Tokens per candidate", "figure"),
        Column("Mean log-likelihood", "figure"),
    ]
    rows = []
    for name, each in decodings.items():
        length = text.decimal(each["tokens"] / each["candidates"], ".1f") if each["candidates"] else None
        mean = each["log_likelihood_mean"]
        rows.append(Row([name, *(each[key] for key in counts), length, None if mean is None else text.decimal(mean)]))
    return Table(columns, rows)


def _lengths(decodings: Mapping[str, Any], width: int) -> Markup | None:
    found = {name: each["lengths"] for name, each in decodings.items() if each["lengths"]}
    if not found:
        return None
    bins = 1 + max(int(number) for lengths in found.values() for number in lengths)
    rows = [
        Histogram(name, [lengths.get(str(number), 0) for number in range(bins)], "accent", "candidate")
        for name, lengths in found.items()
    ]
    return histogram_rows(rows, title="Lengths of responses in tokens, by decoding", axis="tokens", high=bins * width)


def _likelihoods(decodings: Mapping[str, Any], bins: Mapping[str, int]) -> Markup | None:
    found = {name: each["log_likelihoods"] for name, each in decodings.items() if each["log_likelihoods"]}
    # Keyed by index, since a decoding may have the name of a key such as "bins".
    scores: dict[str, Any] = {f"{index}": counts for index, counts in enumerate(found.values())}
    rows = {f"{index}": (name, "accent") for index, name in enumerate(found)}
    scores.update(bins=bins["likelihoods"], bins_per_score=bins["bins_per_likelihood"])
    return tables.score_histograms(scores, rows, axis="mean log-likelihood", unit="candidate")
