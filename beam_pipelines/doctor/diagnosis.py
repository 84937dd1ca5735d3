"""All checks of this machine, and their report."""

from beam_pipelines.doctor.findings import Finding, exit_status, render
from beam_pipelines.doctor.installation import compressions, file_systems, packages
from beam_pipelines.doctor.machine import devices, machine
from beam_pipelines.doctor.runners import runners


def diagnose() -> list[Finding]:
    """Return all findings, section by section."""
    return [*packages(), *machine(), *devices(), *file_systems(), *runners(), *compressions()]


def doctor() -> int:
    """Run all checks, print the report, and return the exit status."""
    findings = diagnose()
    print(render(findings))
    return exit_status(findings)
