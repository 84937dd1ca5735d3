"""Runs whose input may grow: what they know, what may be added, and what each launch added."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.io.inputs import NOTHING_KNOWN
from beam_pipelines.runs.growth import Standing, compare, growth_after, known_in, launched
from schemas.errors import CappyError

Run = dict[str, Any]


def files(*names: str, size: int = 1) -> list[dict[str, Any]]:
    return [{"name": name, "size": size, "ends": name, "rows": 10} for name in names]


def run_of(entries: list[dict[str, Any]], *, growing: bool = True, **facts: Any) -> Run:
    given = {"job": "score", "format_version": 2, "settings": {"limit": None}, "files": entries, **facts}
    return {"job": "score", "facts": given, **({"growth": [launched(entries, "now")]} if growing else {})}


def stored(entries: list[dict[str, Any]], *launches: int, **facts: Any) -> Run:
    counts = launches or (len(entries),)
    growth = [{"files": count, "rows": 10 * count, "begun": f"launch {i}"} for i, count in enumerate(counts)]
    return {**run_of(entries, **facts), "growth": growth}


def standing(before: Run, now: Run, *, finished: bool = True, failed: bool = False) -> Standing:
    return compare("OUT", before, now, finished=finished, failed=failed)


def test_the_same_files_and_more() -> None:
    before = stored(files("b", "c"))
    same = standing(before, run_of(files("b", "c")))
    assert (same.done, same.kept, same.added) == (True, 2, [])
    grown = standing(before, run_of(files("b", "c", "a")))
    assert (grown.finished, grown.done, grown.kept, grown.added) == (True, False, 2, ["a"])
    assert grown.in_words() == "2 files were there, 1 is new"
    assert not standing(before, run_of(files("b", "c")), finished=False).done


def test_what_each_launch_added() -> None:
    before = stored(files("b", "c"))
    now = run_of(files("b", "c", "a"))
    growth = growth_after(before, now, standing(before, now))
    assert growth == [{"files": 2, "rows": 20, "begun": "launch 0"}, {"files": 1, "rows": 10, "begun": "now"}]
    assert growth_after(before, run_of(files("b", "c")), Standing(kept=2)) == before["growth"]


@pytest.mark.parametrize("growing", [False, True])
@pytest.mark.parametrize(
    ("now", "words"),
    [
        (files("c"), "OUT: its input has changed: b is missing. Put it back, give another folder, or --overwrite"),
        (files("b", size=2) + files("c"), "b has another size .1 -> 2 bytes"),
    ],
)
def test_a_file_that_changed_or_went_is_named(now: list[dict[str, Any]], words: str, growing: bool) -> None:
    before = stored(files("b", "c"))
    with pytest.raises(CappyError, match=words):
        standing(before, run_of(now, growing=growing))


def test_a_run_that_does_not_grow() -> None:
    before = run_of(files("b"), growing=False)
    with pytest.raises(CappyError, match="OUT: its input has changed: a is new"):
        standing(before, run_of(files("b", "a"), growing=False))
    assert standing(before, run_of(files("b"), growing=False)).done


@pytest.mark.parametrize(("name", "flag"), [("limit", "--limit"), ("per_template", "--per-template")])
def test_with_a_choice_among_all_rows_nothing_grows(name: str, flag: str) -> None:
    settings = {"settings": {name: 5}}
    before = stored(files("b"), **settings)
    with pytest.raises(
        CappyError, match=rf"OUT: was started with {flag}, so no files can be added \(a and 1 more are new"
    ):
        standing(before, run_of(files("b", "a", "c"), **settings))
    assert standing(before, run_of(files("b"), **settings)).done


def test_another_command_has_grown_the_run_meanwhile() -> None:
    with pytest.raises(CappyError, match="another command has added files"):
        standing(stored(files("b", "d"), 1, 1), run_of(files("b", "c", "d")))


def test_files_of_a_failed_launch_may_change_and_go() -> None:
    before = stored(files("b", "c", "d", "e"), 1, 3)
    changed = run_of([*files("b", "c"), *files("d", size=2), *files("e")])
    went = run_of(files("b", "c", "e"))
    for now, kept, added in ((changed, 2, ["d", "e"]), (went, 2, ["e"]), (run_of(files("b")), 1, [])):
        with pytest.raises(CappyError, match="its input has changed: [cd] "):
            standing(before, now)
        found = standing(before, now, finished=False)
        assert found == standing(before, now, finished=False, failed=True)
        assert (found.kept, list(found.added)) == (kept, added)
        growth = growth_after(before, now, found)
        assert [entry["files"] for entry in growth] == [1, len(now["facts"]["files"]) - 1][: 1 + bool(added)]
    with pytest.raises(CappyError, match="b is missing"):
        standing(before, run_of(files("c", "d", "e")), finished=False, failed=True)


def test_files_of_the_first_launch_may_change_once_it_has_failed() -> None:
    before = stored(files("b", "c"), layouts={"x": 1})
    for now, kept in ((files("b"), 1), (files("b") + files("c", size=2), 1), (files("a", "c"), 0)):
        facts = {"layouts": {"x": 1 if kept else 2}}
        with pytest.raises(CappyError, match="[bc] "):
            standing(before, run_of(now, **facts), finished=False)
        found = standing(before, run_of(now, **facts), finished=False, failed=True)
        assert (found.kept, len(found.added)) == (kept, len(now) - kept)
        (launch,) = growth_after(before, run_of(now), found)
        assert launch["files"] == len(now)
    with pytest.raises(CappyError, match="layouts"):
        standing(before, run_of(files("b"), layouts={"x": 2}), finished=False, failed=True)


@pytest.mark.parametrize("name", ["limit", "per_template"])
def test_a_choice_among_all_rows_begins_again_with_another_file(name: str) -> None:
    settings = {"settings": {name: 5}}
    now = run_of(files("b") + files("c", size=2), **settings)
    found = standing(stored(files("b", "c"), **settings), now, finished=False, failed=True)
    assert (found.kept, list(found.added)) == (0, ["b", "c"])


def older(entries: list[dict[str, Any]], **facts: Any) -> Run:
    return run_of(entries, growing=False, format_version=1, settings={"limit": None, "unit_rows": 128}, **facts)


def test_an_older_form() -> None:
    now = run_of(files("b"), settings={"limit": None, "unit_bytes": 99})
    found = standing(older(files("b")), now)
    assert found.done and found.older
    with pytest.raises(CappyError, match="was started by an earlier version of cappy.*finish it with that version"):
        standing(older(files("b")), now, finished=False)
    with pytest.raises(CappyError, match=r"no files can be added \(a is new\)\. .*; `cappy score --reuse OUT` copies"):
        standing(older(files("b")), run_of(files("b", "a")))
    with pytest.raises(CappyError, match="settings.limit: null -> 3"):
        standing(older(files("b")), run_of(files("b"), settings={"limit": 3}))


def test_what_a_run_knows() -> None:
    assert known_in(run_of([])) == NOTHING_KNOWN
    assert known_in(stored(files("b", "c", "a"), 2, 1)).names == ("b", "c", "a")
    assert known_in(stored(files("b", "c", "a"), 2, 1)).initial == 2
    assert known_in(older(files("b", "c"))).initial == 2


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=3, unique=True), min_size=1, max_size=5))
def test_growth_adds_up_to_the_files(steps: list[list[str]]) -> None:
    """Whatever is added in whatever steps, launches add up to all files, in the order in which they came."""
    names = list(dict.fromkeys(steps[0])) or ["z"]
    before = stored(files(*names))
    for step in steps[1:]:
        names = [*names, *sorted(set(step) - set(names))]
        now = run_of(files(*names))
        before = {**now, "growth": growth_after(before, now, standing(before, now))}
        assert [file["name"] for file in before["facts"]["files"]] == names
        assert sum(entry["files"] for entry in before["growth"]) == len(names)
        assert all(entry["files"] for entry in before["growth"])
