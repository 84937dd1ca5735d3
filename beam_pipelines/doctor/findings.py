"""What the doctor finds, and how it is said."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from beam_pipelines.runs.release import install_command

BASE_INSTALL = install_command()
"""The remedy for what the jobs without a model need."""

Status = Literal["ok", "warn", "missing"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    `status`: "ok", usable; "warn", usable with a caveat; "missing", not usable. `remedy` is what to do, empty when
    there is nothing to. `needed` marks what the jobs without a model cannot do without.
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
    """Usable, as `detail` says, when there is no `problem`; else missing, with its remedy."""
    if problem:
        return Finding(section, name, "missing", problem, remedy, needed)
    return Finding(section, name, "ok", detail, needed=needed)


def exit_status(findings: Sequence[Finding]) -> int:
    """0 when all that the jobs without a model need is usable, else 1."""
    return int(any(finding.needed and finding.status == "missing" for finding in findings))


def render(findings: Sequence[Finding], where: str = "here") -> str:
    """The findings as text: a block per section, a line per finding, its remedy below it, and a verdict at the end.

    `where` is what was looked at, in words that follow "can run".
    """
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
    blocking = [finding.name for finding in findings if finding.needed and finding.status == "missing"]
    verdict = (
        f"Missing, and needed by every job: {', '.join(blocking)}." if blocking else f"The base jobs can run {where}."
    )
    return "\n".join([*lines, "", verdict]).lstrip("\n")
