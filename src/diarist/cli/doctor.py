"""``diarist doctor``: check the installation."""

from __future__ import annotations

import json
import sys

import click

from diarist.cli import FAILED, printable
from diarist.errors import ConfigurationError
from diarist.settings import load_settings

COLORS = {"ok": "green", "warning": "yellow", "error": "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
def doctor(as_json: bool) -> None:
    """Check this installation and say how to fix problems.

    Prints one line for each check: ok, warning or error. Nothing is changed. The exit code is 1 if there is an error.
    """
    from diarist.doctor.checks import run_checks
    from diarist.doctor.findings import Finding, error

    findings: dict[str, Finding] = {}

    def report(name: str, finding: Finding) -> None:
        findings[name] = finding
        if not as_json:
            level = click.style(f"{finding.level:<8}", fg=COLORS[finding.level])
            click.echo(f"{level} {name}: {printable(finding.message)}")

    try:
        settings = load_settings()
    except ConfigurationError as exc:
        report("settings", error(str(exc)))
    else:
        report("settings", Finding("ok", f"valid, ENGINE is {settings.engine}"))
        for name, finding in run_checks(settings):
            report(name, finding)
    worst = max((finding.level for finding in findings.values()), key=tuple(COLORS).index)
    if as_json:
        rows = [{"check": name, "level": each.level, "message": each.message} for name, each in findings.items()]
        click.echo(json.dumps({"result": worst, "findings": rows}, indent=2))
    if worst == "error":
        sys.exit(FAILED)
