"""Runs whose input may grow: which files they know, what may be added to them, and which launch added what.

Pure functions of what run.json holds. Files keep the numbers that they have in its list; new ones follow.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from beam_pipelines.io.inputs import NOTHING_KNOWN, Known
from beam_pipelines.report.text import plural
from beam_pipelines.runs.changes import describe_other_run
from schemas.errors import CappyError

_OF_UNITS = ("unit_rows", "unit_bytes")
"""Settings that only say how rows are cut into files."""
_OTHER_FOLDER = "Give another folder, or --overwrite to replace it."
_FIXED = {"limit": "--limit", "per_template": "--per-template"}
"""Settings under which no file may be added: they choose rows among all that there are."""


class Standing(NamedTuple):
    """How a run stands in its folder.

    Args:
      finished: whether it has a manifest.
      older: whether an earlier version laid out its files.
      kept: how many of the files that it was last begun with stay as they are.
      added: names of the files that are new to it.
      same_reuse: whether scores are reused from where the run that was last begun has them from.
    """

    finished: bool = False
    older: bool = False
    kept: int = 0
    added: Sequence[str] = ()
    same_reuse: bool = True

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.finished and not self.added

    def in_words(self) -> str:
        """Say how many files were there and how many are new."""
        new = f"{len(self.added):,} {'is' if len(self.added) == 1 else 'are'} new"
        return f"{plural(self.kept, 'file')} {'was' if self.kept == 1 else 'were'} there, {new}"


def name_new(added: Sequence[str]) -> str:
    """Name the first of the files that are new, and count the others."""
    return f"{added[0]} is new" if len(added) == 1 else f"{added[0]} and {len(added) - 1:,} more are new"


def launched(files: Sequence[Mapping[str, Any]], begun: str, reuse: Sequence[Any] = ()) -> dict[str, Any]:
    """Return the entry of `growth` for a launch that added `files`; `begun` is its time.

    `reuse` says where it reuses scores from, as in the fingerprint inputs.
    """
    entry = {"files": len(files), "rows": sum(int(file["rows"]) for file in files), "begun": begun}
    return {**entry, "reuse": list(reuse)} if reuse else entry


def known_in(run: Mapping[str, Any]) -> Known:
    """Return the files of the run that a run.json is of: their order, and how many of them its first launch had."""
    files, growth = run["facts"].get("files"), run.get("growth")
    if not files:
        return NOTHING_KNOWN
    return Known(tuple(file["name"] for file in files), growth[0]["files"] if growth else len(files))


def compare(
    output: str, before: Mapping[str, Any], run: Mapping[str, Any], *, finished: bool, failed: bool
) -> Standing:
    """Return how a run stands in its folder.

    A run that has `growth` takes files in. Until it has finished, those that its last launch added may have changed or
    gone; those of its first launch only after a failure.
    Once it has finished, later files may reuse other scores: what is written stays as it is.

    Args:
      output: the folder.
      before: its run.json.
      run: the run as `describe_run` gives it.
      finished, failed: whether the folder holds a manifest, or the reason of a failure.

    Raises CappyError, naming every difference, for another run, and for a run of another form that cannot go on.
    """
    older, grows = version_of(before) < version_of(run), "growth" in run
    if older and not finished:
        raise older_form(output)
    stored, now = _comparable(before, run, finished=finished, failed=failed)
    difference = describe_other_run(stored, now, growing=grows)
    if difference:
        input_only = {**stored, "files": None} == {**now, "files": None}
        reusing = _reusing(output, run["job"]) if finished and not older else ""
        put_back = f"Put it back, give another folder, or --overwrite to replace it{reusing}."
        raise CappyError(f"{output}: {difference}. {put_back if input_only else _OTHER_FOLDER}")
    if not grows:
        return Standing(finished, older)
    kept = len(stored["files"])
    added = [file["name"] for file in now["files"][kept:]]
    if stored["files"] != now["files"][:kept]:
        raise CappyError(f"{output}: another command has added files to it meanwhile; run this one again")
    if added and kept == len(before["facts"]["files"]):
        _check_may_grow(output, run["job"], now["settings"], added, older=older)
    same_reuse = before["facts"].get("reuse") == run["facts"].get("reuse")
    return Standing(finished, older, kept, added, same_reuse)


def older_form(output: str) -> CappyError:
    """Return the error for an unfinished run of an older form (see `version_of`)."""
    return CappyError(
        f"{output}: was started by an earlier version of cappy, whose file layout differs; finish it with that "
        "version, give another folder, or --overwrite to replace it"
    )


def refuse_rebuild(output: str, lost: str, standing: Standing) -> None:
    """Raise CappyError for `lost` files (in words) of a finished run that cannot be rebuilt as they were.

    Those of an older form have other names now, and reused scores have to come from where they came from.
    """
    if not standing.same_reuse:
        raise CappyError(
            f"{output}: {lost}. The source of reused scores (--reuse, or the rows in its folders) has changed, so they "
            "would not be rebuilt as they were; give the --reuse of the run, or --overwrite to run it again."
        )
    if standing.older:
        raise CappyError(
            f"{output}: {lost}. An earlier version of cappy wrote this run, so they cannot be rebuilt one by one; "
            "give another folder, or --overwrite to run it again."
        )


def growth_after(before: Mapping[str, Any], run: Mapping[str, Any], standing: Standing) -> list[dict[str, Any]]:
    """Return the `growth` of a run that goes on: of the launches before, and of this one if it adds files."""
    growth, files = list(before["growth"]), run["facts"]["files"]
    (launch,) = run["growth"]
    if standing.kept < len(before["facts"]["files"]):  # the files of a failed launch have changed
        growth.pop()
    there = sum(entry["files"] for entry in growth)
    return [*growth, {**launch, **launched(files[there:], launch["begun"])}] if len(files) > there else growth


def version_of(run: Mapping[str, Any]) -> int:
    """Return the version of the layout of a run's folder, from its run.json."""
    return int(run["facts"].get("format_version", 1))


def _comparable(
    before: Mapping[str, Any], run: Mapping[str, Any], *, finished: bool, failed: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fingerprint inputs of a run and of the one in its folder, without what may differ."""
    stored, now = dict(before["facts"]), dict(run["facts"])
    if version_of(before) < version_of(run):
        stored, now = _without_units(stored), _without_units(now)
    may_differ = []
    if "growth" in run and finished:
        may_differ.append("reuse")
    elif "growth" in run:
        stored["files"] = stored["files"][: _unchanged(before, now, failed=failed)]
        if not stored["files"]:
            may_differ.append("layouts")  # which follow from the files
    for name in may_differ:
        stored.pop(name, None)
        now.pop(name, None)
    return stored, now


def _without_units(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return fingerprint inputs without the form of the files and the number of rows in each."""
    settings = {name: value for name, value in facts["settings"].items() if name not in _OF_UNITS}
    return {**facts, "format_version": None, "settings": settings}


def _unchanged(before: Mapping[str, Any], now: Mapping[str, Any], *, failed: bool) -> int:
    """Return how many files of an unfinished run stay: all that an earlier launch had, and those before a change."""
    files, found = before["facts"]["files"], now["files"]
    earlier = sum(entry["files"] for entry in before.get("growth", ())[:-1])
    equal = next((number for number, file in enumerate(files) if found[number : number + 1] != [file]), len(files))
    if not earlier and not failed:
        return len(files)
    if equal < len(files) and _fixed_by(now["settings"]):
        return earlier  # rows are chosen among those of all files
    return max(earlier, equal)


def _fixed_by(settings: Mapping[str, Any]) -> str | None:
    """Return the flag under which no file may be added, if one is set."""
    return next((flag for name, flag in _FIXED.items() if settings.get(name) is not None), None)


def _check_may_grow(output: str, job: str, settings: Mapping[str, Any], added: Sequence[str], *, older: bool) -> None:
    if older:
        raise CappyError(
            f"{output}: holds a finished run of an earlier version of cappy, to which no files can be added "
            f"({name_new(added)}). "
            f"Give another folder{_reusing(output, job)}."
        )
    flag = _fixed_by(settings)
    if flag is not None:
        new = name_new(added)
        raise CappyError(f"{output}: was started with {flag}, so no files can be added ({new}). {_OTHER_FOLDER}")


def _reusing(output: str, job: str) -> str:
    return f"; `cappy score --reuse {output}` copies its scores" if job == "score" else ""
