"""Findings of the doctor, and their report."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from beam_pipelines.runs.release import install_command

BASE_INSTALL = install_command()
"""Remedy for packages that the jobs without a model need."""

Status = Literal["ok", "warn", "missing", "wrong", "unknown"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    `status`: "ok", usable; "warn", usable with a caveat; "missing", not usable; of a model also "wrong", and "unknown"
    for what could not be checked. `remedy` may be empty. `needed` marks requirements of the jobs without a model.
    """

    section: str
    name: str
    status: Status
    detail: str
    remedy: str = ""
    needed: bool = False


def check(
    section: str, name: str, problem: str | None, *, detail: str = "", remedy: str = "", needed: bool = False
) -> Finding:
    """Return "ok" with `detail` if there is no `problem`, else "missing" with the problem and its remedy."""
    if problem:
        return Finding(section, name, "missing", problem, remedy, needed)
    return Finding(section, name, "ok", detail, needed=needed)


def exit_status(findings: Sequence[Finding]) -> int:
    """Return 0 if everything is usable that the jobs without a model need and nothing is wrong, else 1."""
    return int(
        any(finding.status == "wrong" or (finding.needed and finding.status == "missing") for finding in findings)
    )


def render(findings: Sequence[Finding], where: str = "here") -> str:
    """Return the findings as text: a block per section, a line per finding, its remedy below it, and a verdict.

    `where` is the place that was checked, in words that follow "can run".
    """
    blocking = [finding.name for finding in findings if finding.needed and finding.status == "missing"]
    verdict = (
        f"Missing, and needed by every job: {', '.join(blocking)}." if blocking else f"The base jobs can run {where}."
    )
    return f"{render_blocks(findings)}\n\n{verdict}".lstrip("\n")


def render_blocks(findings: Sequence[Finding]) -> str:
    """Return the findings as text, without a verdict (see `render`)."""
    names = max((len(finding.name) for finding in findings), default=0)
    lines: list[str] = []
    section = None
    for finding in findings:
        if finding.section != section:
            section = finding.section
            lines += ["", section]
        lines.append(f"  {finding.status:<8} {finding.name:<{names}}  {finding.detail}".rstrip())
        if finding.remedy:
            lines.append(f"  {'':<8} {'':<{names}}  -> {finding.remedy}")
    return "\n".join(lines).lstrip("\n")
