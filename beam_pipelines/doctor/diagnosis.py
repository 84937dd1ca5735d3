"""All findings, and the report of them."""

from beam_pipelines.doctor.findings import Finding, exit_status, render
from beam_pipelines.doctor.installation import compressions, file_systems, packages
from beam_pipelines.doctor.machine import devices, machine
from beam_pipelines.doctor.runners import runners


def diagnose() -> list[Finding]:
    """Everything looked at, section by section."""
    return [*packages(), *machine(), *devices(), *file_systems(), *runners(), *compressions()]


def doctor() -> int:
    """Looks, prints the report, and returns the exit status."""
    findings = diagnose()
    print(render(findings))
    return exit_status(findings)
