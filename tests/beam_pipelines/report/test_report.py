"""report.html: well-formed, self-contained, safe, the same for the same manifest, and right in its numbers."""

import copy
import json
from functools import cache

import pytest

from beam_pipelines.jobs.build_corpus import plots as corpus_plots
from beam_pipelines.jobs.build_corpus import tables as corpus_tables
from beam_pipelines.jobs.build_corpus.page import few_wrong
from beam_pipelines.report import plots, svg
from beam_pipelines.report import tables as common
from beam_pipelines.report import text as words
from beam_pipelines.runs.report import render_report
from schemas.errors import CappyError
from schemas.records import GROUND_TRUTH
from tests.beam_pipelines.fake_manifests import (
    SMALL,
    TEMPLATE_NAMES,
    Manifest,
    big,
    empty,
    instructions_only,
    manifest_of,
    reject_rows,
    small,
    tiny,
)
from tests.beam_pipelines.report.pages import read

MANIFESTS = {"small": small, "big": big, "instructions_only": instructions_only, "empty": empty}


@cache
def page_of(name: str) -> str:
    return render_report(MANIFESTS[name]())


@pytest.fixture(params=MANIFESTS)
def case(request: pytest.FixtureRequest) -> tuple[Manifest, str]:
    return MANIFESTS[request.param](), page_of(request.param)


def test_page_is_balanced_html(case: tuple[Manifest, str]) -> None:
    _, page = case
    assert page.lstrip().startswith("<!DOCTYPE html>")
    read(page)


def test_page_needs_nothing_from_outside(case: tuple[Manifest, str]) -> None:
    _, page = case
    checker = read(page)
    loading = {"src", "href", "xlink:href", "srcset", "data", "action", "poster"}
    assert not [entry for entry in checker.attributes if entry[1] in loading]
    assert "<script" not in page and "@import" not in page and "url(" not in page
    assert "http://" not in page and "https://" not in page
    assert not [entry for entry in checker.attributes if entry[1].startswith("on")]


def test_ids_are_unique(case: tuple[Manifest, str]) -> None:
    ids = [value for _, name, value in read(case[1]).attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_same_manifest_gives_same_bytes(case: tuple[Manifest, str]) -> None:
    manifest, page = case
    assert render_report(json.loads(json.dumps(manifest))) == page


def test_manifest_is_left_as_it_was() -> None:
    manifest = tiny()
    before = copy.deepcopy(manifest)
    render_report(manifest)
    assert manifest == before


def test_headline_and_key_figures() -> None:
    manifest = small()
    text = read(page_of("small")).text
    totals = manifest["totals"]
    origin = f"{totals['instructions']:,} instructions from 5 datasets and 46 templates"
    assert f"{origin}, with {totals['pairs']:,} labelled pairs" in text
    assert f"{totals['rows']:,}" in text
    assert "4 min 5 s" in text and "2026-11-23 08:00 UTC" in text
    assert manifest["fingerprint"] in text


def test_every_number_of_the_tables_is_there() -> None:
    manifest = small()
    text = read(page_of("small")).text
    numbers = [count for counts in manifest["pairs"].values() for count in counts.values()]
    for dataset in manifest["datasets"].values():
        for template in dataset["templates"].values():
            numbers += [template["rendered"], template["not_applicable"], *template["pairs"].values()]
    assert all(f"{count:,}" in text for count in numbers)
    assert "does not add up" not in text
    assert "1,234" in text and "parity mode" in text


def test_numbers_that_do_not_add_up_are_marked() -> None:
    manifest = tiny()
    manifest["pairs"][GROUND_TRUTH]["written"] -= 1
    assert read(render_report(manifest)).text.count("does not add up") == 2
    manifest = tiny()
    manifest["datasets"]["ag_news:test"]["templates"]["ag_news:test-0"]["rendered"] += 1
    assert read(render_report(manifest)).text.count("does not add up") == 5


def test_few_templates_are_drawn_each_and_many_by_dataset() -> None:
    few = page_of("small")
    assert all(f'">{words.shorten(name, 41)}</text>' in few for name in TEMPLATE_NAMES)
    many = page_of("big")
    assert "read_the_following" not in many.split("<svg")[2].split("</svg>")[0]
    assert '">dataset_01:train</text>' in many


def test_sources_without_pairs_are_left_out_of_the_plots() -> None:
    page = page_of("small")
    labels = page.split("<svg")[1].split("</svg>")[0]
    assert "Ground truth" in labels and "Generated" not in labels
    assert "Generated" in page_of("big").split("<svg")[1]


def test_hostile_texts_stay_texts() -> None:
    manifest = tiny()
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp; $x^2$ </details></svg>"
    row = manifest["samples"]["pairs"][GROUND_TRUTH][0]
    row.update(dict.fromkeys(("dataset", "template_name", "instruction", "generator"), hostile), response=hostile * 99)
    manifest["samples"]["rejects"] = reject_rows()
    manifest["samples"]["rejects"][0].update(dict.fromkeys(("stage", "reason", "source", "detail", "excerpt"), hostile))
    manifest["configuration"][hostile] = hostile
    manifest["rejects"]["by_reason"][hostile] = {hostile: 3}
    manifest["datasets"] = {hostile: manifest["datasets"]["ag_news:test"]}
    manifest["datasets"][hostile]["templates"]["ag_news:test-0"]["name"] = hostile
    manifest["lengths"]["instruction"] = {hostile: manifest["lengths"]["instruction"]["ag_news:test"]}
    manifest["inputs"][0]["name"] = manifest["files"][0]["path"] = manifest["fingerprint"] = hostile
    page = render_report(manifest)
    checker = read(page)
    assert not {"script", "img"} & checker.tags
    assert "<script" not in page and "<img" not in page
    assert not [entry for entry in checker.attributes if entry[1].startswith("on")]
    assert hostile in checker.text


def test_texts_that_html_cannot_hold_are_shown_as_such() -> None:
    manifest = tiny()
    row = manifest["samples"]["pairs"][GROUND_TRUTH][0]
    row["instruction"] = "nul \x00 escape \x1b half \ud83d end"
    manifest["datasets"]["ag_news:test"]["templates"]["ag_news:test-0"]["name"] = "\x00 \udfff 新聞分類 $\\frac$"
    page = render_report(manifest)
    page.encode()
    assert "nul \ufffd escape \ufffd half \ufffd end" in page
    assert "新聞分類 $\\frac$" in page


def test_long_texts_are_folded_and_very_long_ones_cut() -> None:
    manifest = tiny()
    rows = manifest["samples"]["pairs"][GROUND_TRUTH]
    rows[0]["response"], rows[1]["response"] = "w" * 1000, "z" * 1_000_000
    page = render_report(manifest)
    assert "w" * 1000 in page and "all 1,000 characters" in page
    assert "z" * 4000 in page and "z" * 4001 not in page and "996,000 more characters" in page


def test_many_files_are_not_all_shown() -> None:
    manifest = tiny()
    manifest["files"] = [{"path": f"part-{i}.parquet", "rows": 1, "bytes": 1, "digest": "00"} for i in range(2000)]
    text = read(render_report(manifest)).text
    assert "part-199.parquet" in text and "part-200.parquet" not in text
    assert "1,800 more files" in text and "2,000 output files" in text


def test_the_total_is_the_last_row_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in (corpus_tables.MOST_TEMPLATES, 10):
        monkeypatch.setattr(corpus_tables, "MOST_TEMPLATES", limit)
        table = corpus_tables.template_pairs(small())
        assert [row.style for row in table.rows].count("total") == 1 and table.rows[-1].style == "total"
        assert len(table.rows) + table.left_out == 1 + len(SMALL) + sum(count for *_, count in SMALL.values())


def test_datasets_stand_in_the_order_of_the_mixture() -> None:
    manifest, many = small(), big()
    manifest["lengths"]["instruction"] = dict(sorted(manifest["lengths"]["instruction"].items()))
    drawn = {
        str(corpus_plots.instruction_lengths(manifest)): manifest,
        str(corpus_plots.pairs_by_template(many)): many,
    }
    for plot, origin in drawn.items():
        places = [plot.index(f'">{words.shorten(label, 41)}</text>') for label in origin["datasets"]]
        assert places == sorted(places)


def test_templates_with_few_wrong_responses_are_named() -> None:
    manifest = tiny()
    assert few_wrong(manifest) == [] and "Few wrong responses" not in render_report(manifest)
    templates = manifest["datasets"]["ag_news:test"]["templates"].values()
    for template in templates:
        template["without_wrong"] = template["rendered"] // 2 + 1
    assert len(few_wrong(manifest)) == 3 and all("ag_news:test" in line for line in few_wrong(manifest))
    assert few_wrong(manifest)[0] in read(render_report(manifest)).text
    assert len(few_wrong(big())) == 0
    many = big()
    for dataset in many["datasets"].values():
        for template in dataset["templates"].values():
            template["without_wrong"] = template["rendered"]
    assert len(few_wrong(many)) == 11 and few_wrong(many)[-1].endswith("more templates")


def test_candidates_are_no_input_of_source_rows() -> None:
    manifest = manifest_of(SMALL, generated=1000)
    manifest["inputs"].append({**manifest["inputs"][0], "dataset": "(candidates)", "name": "lm.parquet"})
    text = read(render_report(manifest)).text
    assert "5 input files" in text and "of language models, 1 file" in text


def test_empty_sections_say_so() -> None:
    text = read(page_of("empty")).text
    assert "0 instructions from 0 datasets and 0 templates" in text
    assert "Nothing was rejected" in text and "No dataset was read" in text and "There is no text to measure" in text


def test_instructions_only_has_no_pairs() -> None:
    text = read(page_of("instructions_only")).text
    assert "Instructions only" in text and "Instructions by dataset and template" in text
    assert "Labels by source" not in text and "Sample pairs" not in text


def test_more_datasets_than_fit_are_summed_up() -> None:
    manifest = manifest_of({f"d{i:03d}:train": (100 + i, 2, 1) for i in range(100)})
    page = render_report(manifest)
    assert "37 other datasets" in page


def test_unknown_job_is_named() -> None:
    with pytest.raises(CappyError, match="'bake'.*build-corpus"):
        render_report({"job": "bake"})
    with pytest.raises(CappyError, match="None"):
        render_report({})


def test_damaged_manifest_is_named() -> None:
    manifest = tiny()
    del manifest["lengths"]
    with pytest.raises(CappyError, match="lacks 'lengths'"):
        render_report(manifest)
    manifest = tiny()
    del manifest["samples"]["pairs"][GROUND_TRUTH][0]["label"]
    with pytest.raises(CappyError, match="label"):
        render_report(manifest)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (999, "999"), (1234567, "1,234,567")],
)
def test_number(value: int, shown: str) -> None:
    assert words.number(value) == shown


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [
        (0, 0, "0%"),
        (1, 4, "25.0%"),
        (4, 4, "100%"),
        (1, 10**6, "<0.01%"),
        (99_999, 100_000, ">99.9%"),
        (1, 300, "0.33%"),
    ],
)
def test_share(part: int, whole: int, shown: str) -> None:
    assert words.share(part, whole) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.04, "0.0 s"), (12.34, "12.3 s"), (59.97, "1 min 0 s"), (7800, "2 h 10 min")]
)
def test_duration(seconds: float, shown: str) -> None:
    assert words.duration(seconds) == shown


def test_moment_is_told_in_utc() -> None:
    assert words.moment("2026-11-23T09:30:00+01:00") == "2026-11-23 08:30 UTC"


@pytest.mark.parametrize("text", ["", "short", "x" * 50, "新聞分類" * 20, "a\nb\tc " * 20])
def test_shorten_fits(text: str) -> None:
    shown = words.shorten(text, 20)
    assert sum(2 if character > "\u2e80" else 1 for character in shown) <= 20
    assert "\n" not in shown


def test_quantiles_come_from_the_buckets() -> None:
    manifest = tiny()
    edges = manifest["lengths"]["edges"]
    counts = [0] * len(edges)
    counts[edges.index(max(edge for edge in edges if edge <= 1000))] = 100
    svg = plots.density_rows([plots.Histogram("one", counts, "accent", "text")], edges, title="lengths")
    assert "<title>one: 100 texts</title>" in svg


def test_colours_are_variables_of_the_page() -> None:
    page = page_of("small")
    assert all(f"--{name}: {light};" in page for name, (light, _) in svg.THEME.items())
    drawn = page.split("</style>", 1)[1]
    assert not [light for light, _ in svg.THEME.values() if light in drawn]


def test_inputs_name_the_dataset_only_where_a_job_has_several():
    manifest = small()
    assert [column.label for column in common.inputs(manifest).columns][:2] == ["Dataset", "File"]
    for entry in manifest["inputs"]:
        del entry["dataset"]
    table = common.inputs(manifest)
    assert [column.label for column in table.columns] == ["File", "Size", "Rows", "Hash of head and tail"]
    assert [row.cells[0] for row in table.rows] == [entry["name"] for entry in manifest["inputs"]]


def test_inputs_say_when_they_were_added_where_a_run_has_grown():
    manifest = small()
    count = len(manifest["inputs"])
    growth = [{"files": count - 1, "rows": 1, "begun": "2026-10-28T21:05:00+00:00"}]
    manifest["growth"] = [*growth, {"files": 1, "rows": 1, "begun": "2026-11-28T21:05:00+00:00"}]
    table = common.inputs(manifest)
    assert table.columns[-1].label == "Added"
    assert [row.cells[-1] for row in table.rows][-2:] == ["2026-10-28 21:05 UTC", "2026-11-28 21:05 UTC"]
    manifest["growth"] = [{**growth[0], "files": count}]
    assert common.inputs(manifest).columns[-1].label != "Added"
