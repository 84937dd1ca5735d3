"""The page of a generate run."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from beam_pipelines.report import tables as common
from beam_pipelines.report import text as words
from beam_pipelines.report.frame import Column, KeyFigure, Page, Row, Table
from beam_pipelines.report.plots import MOST_ROWS, Bar, Histogram, histogram_rows, stacked_bars, sum_parts

FINISHED = {
    "accent": "ended by itself",
    "mismatch": "cut at its length",
    "reject": "otherwise",
    "quiet": "not told",
}
"""How a response ended, by the colour that stands for it."""
_COLOURS = {"stop": "accent", "length": "mismatch", "untold": "quiet"}


def generate_page(manifest: Mapping[str, Any]) -> Page:
    """The page for the manifest of a generate run."""
    totals, names = manifest["totals"], list(manifest["decodings"])
    return Page(
        template="generate.html.j2",
        title="generate",
        headline=_headline(totals),
        lead=_lead(manifest),
        figures=_figures(manifest),
        content={
            **common.content(manifest),
            "model": list(words.flatten(manifest["model"])),
            "shown": names[:MOST_ROWS],
            "not_shown": len(names[MOST_ROWS:]),
            "finished": _finished(manifest),
            "endings": _endings(manifest),
            "decodings": _decodings(manifest),
            "lengths": _lengths(manifest),
            "likelihoods": _likelihoods(manifest),
            "accounting": common.accounting(
                "Rows read",
                totals["rows"],
                **{"generated for": totals["generated"], "sampled out": totals["sampled_out"]},
                rejected=totals["rejected"],
            ),
        },
    )


def _headline(totals: Mapping[str, int]) -> str:
    return f"{words.plural(totals['candidates'], 'candidate')} for {words.plural(totals['generated'], 'instruction')}"


def _lead(manifest: Mapping[str, Any]) -> str:
    totals, tokens = manifest["totals"], manifest["tokens"]
    sentences = []
    if totals["drawn"]:
        share = words.share(totals["distinct"], totals["drawn"])
        sentences.append(f"{share} of the responses are distinct within their instruction.")
    if totals["empty"]:
        share = words.share(totals["empty"], totals["drawn"])
        sentences.append(f"{words.plural(totals['empty'], 'response')} ({share}) {_be(totals['empty'])} empty.")
    if totals["prompts_truncated"]:
        cut = words.plural(totals["prompts_truncated"], "prompt")
        sentences.append(f"{cut} {_be(totals['prompts_truncated'])} cut.")
    if tokens["out_of_memory"]:
        often = words.plural(tokens["out_of_memory"], "time")
        sentences.append(f"Memory ran out {often}: batches were halved, which may change responses.")
    return " ".join([*sentences, common.rejected_in_words(manifest)])


def _be(count: int) -> str:
    return "was" if count == 1 else "were"


def _figures(manifest: Mapping[str, Any]) -> list[KeyFigure]:
    totals, tokens = manifest["totals"], manifest["tokens"]
    rate = tokens["this_launch"] / manifest["seconds"] if manifest["seconds"] else 0.0
    launch = "with start-up" if tokens["this_launch"] == tokens["real"] else "of the last launch"
    prompts = f"for {words.compact(tokens['prompt'])} of prompts" if tokens["prompt"] else "of responses"
    each = f"{totals['drawn'] / totals['generated']:.3g} drawn for each" if totals["generated"] else ""
    return [
        KeyFigure(words.number(totals["generated"]), "instructions", f"of {words.plural(totals['rows'], 'row')}"),
        KeyFigure(words.number(totals["candidates"]), "candidates", each),
        KeyFigure(words.compact(tokens["real"]), "tokens", prompts),
        KeyFigure(words.number(round(rate)), "tokens per second", launch),
        *common.last_figures(manifest),
    ]


def _parts(decoding: Mapping[str, Any]) -> dict[str, int]:
    """The candidates of a decoding by how they ended, as colours."""
    return sum_parts({_COLOURS.get(reason, "reject"): n} for reason, n in decoding["finish_reasons"].items())


def _finished(manifest: Mapping[str, Any]) -> Markup | None:
    if not manifest["totals"]["drawn"]:
        return None
    found = list(manifest["decodings"].items())[:MOST_ROWS]
    bars = [
        Bar(name, {colour: parts[colour] for colour in FINISHED if colour in parts}, FINISHED)
        for name, decoding in found
        if (parts := _parts(decoding))
    ]
    return stacked_bars(bars, title="Candidates by decoding and how they ended")


def _endings(manifest: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The legend: colour, what it stands for, and its share of all that was drawn."""
    total = sum_parts(_parts(decoding) for decoding in manifest["decodings"].values())
    return [
        (colour, meaning, words.share(total[colour], sum(total.values())))
        for colour, meaning in FINISHED.items()
        if colour in total
    ]


def _decodings(manifest: Mapping[str, Any]) -> Table:
    columns = [
        Column("Decoding", "text"),
        Column("Candidates"),
        Column("Distinct"),
        Column("Empty"),
        Column("Tokens"),
        Column("Tokens each", "figure"),
        Column("Mean log-likelihood", "figure"),
    ]
    rows = []
    for name, each in manifest["decodings"].items():
        counts = (each["candidates"], each["distinct"], each["empty"], each["tokens"])
        length = words.decimal(each["tokens"] / each["candidates"], ".1f") if each["candidates"] else None
        mean = each["log_likelihood_mean"]
        rows.append(Row([name, *counts, length, None if mean is None else words.decimal(mean)]))
    return Table(columns, rows)


def _lengths(manifest: Mapping[str, Any]) -> Markup | None:
    width = manifest["bins"]["tokens_per_bin"]
    found = {name: each["lengths"] for name, each in list(manifest["decodings"].items())[:MOST_ROWS] if each["lengths"]}
    if not found:
        return None
    bins = 1 + max(int(number) for lengths in found.values() for number in lengths)
    rows = [
        Histogram(name, [lengths.get(str(number), 0) for number in range(bins)], "accent", "candidate")
        for name, lengths in found.items()
    ]
    return histogram_rows(rows, title="Lengths of responses in tokens, by decoding", axis="tokens", high=bins * width)


def _likelihoods(manifest: Mapping[str, Any]) -> Markup | None:
    found = {
        n: d["log_likelihoods"] for n, d in list(manifest["decodings"].items())[:MOST_ROWS] if d["log_likelihoods"]
    }
    bins = manifest["bins"]
    # By number, since a decoding may be called as the bins are.
    scores: dict[str, Any] = {f"{index}": counts for index, counts in enumerate(found.values())}
    rows = {f"{index}": (name, "accent") for index, name in enumerate(found)}
    scores.update(bins=bins["likelihoods"], bins_per_score=bins["bins_per_likelihood"])
    return common.score_histograms(scores, rows, axis="mean log-likelihood", unit="candidate")
